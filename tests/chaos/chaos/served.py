"""A real vLLM server for the miniature, by the command that `posttrain serve` prints."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

KEY = "only-for-tests"
ROOT = Path(__file__).resolve().parents[3]
RECIPE = ROOT / "recipes" / "arithmetic_grpo.yaml"


def engine(urls: list[str], **options: float | str) -> str:
    """The override that makes a recipe sample from these servers."""
    given = "".join(f", {k}: {v}" for k, v in options.items())
    quoted = ", ".join(f'"{url}"' for url in urls)
    return f"rollouts.engine={{use: vllm-server, with: {{urls: [{quoted}]{given}}}}}"


class VLLM:
    """One server on a port of its own, in a process group of its own."""

    def __init__(self, folder: Path, name: str = "vllm"):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.log = folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """On the same port as before."""
        from posttrain import serve
        from posttrain.recipe import load

        recipe = load(RECIPE, [engine([self.url])])
        environment = {
            **os.environ,
            **serve.environment(recipe, on_cpu=True),
            "VLLM_API_KEY": KEY,
            "OMP_NUM_THREADS": "1",
        }
        with self.log.open("ab") as file:
            self.process = subprocess.Popen(
                serve.command(recipe, on_cpu=True), env=environment, cwd=self.log.parent, stdout=file,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def wait(self, seconds: float = 300.0) -> None:
        """Until it is up and has answered once as it will be asked: vLLM compiles the ranks of log-probs at the first answer
        that has any, for 10 s or more on a cold machine."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.process is not None and self.process.poll() is None:
            with contextlib.suppress(OSError):
                self._asked("/health", timeout=5)
                (model, *_) = json.loads(self._asked("/v1/models", timeout=5))["data"]
                body = {"model": model["id"], "prompt": [[5, 6, 7]] * 16, "max_tokens": 12, "seed": 1, "logprobs": 0}
                self._asked("/v1/completions", json.dumps(body).encode(), timeout=240)
                return
            time.sleep(0.3)
        raise RuntimeError(f"the server did not start: {self.log.read_text()[-3000:]}")

    def _asked(self, path: str, body: bytes | None = None, *, timeout: float) -> bytes:
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, body, headers)
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.read()

    def signal(self, number: int) -> None:
        """To all its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait()
