"""A real run against a real vLLM server with a key: the key is in no file of the run, no output and no command line."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.vllm, pytest.mark.processes, pytest.mark.slow]


def environment(**more: str) -> dict[str, str]:
    known = {k: v for k, v in os.environ.items() if not k.startswith("POSTTRAIN_VLLM_KEY")}
    return {**known, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **more}


@dataclass
class Served:
    url: str
    key: str
    folder: Path
    recipe: Path
    log: Path
    process: subprocess.Popen


def recipe(folder: Path, tiny: str, url: str) -> Path:
    rows = [{"prompt": [{"role": "user", "content": f"{i} + 1 ="}], "answer": str(i + 1)} for i in range(16)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "mine.py").write_text(
        "def length(completion_ids, **_): return [float(len(set(i)) % 7) for i in completion_ids]\n"
    )
    made = {
        "model": {"name": tiny, "max_length": 128}, "adapter": {"r": 8},
        "data": {"train": {"path": str(folder / "rows.jsonl")}}, "rewards": [{"use": "mine.py:length"}],
        "rollouts": {"engine": {"use": "vllm-server", "with": {"urls": [url]}}, "sampling": {"max_tokens": 12}},
        "trainer": {"args": {"per_device_train_batch_size": 8, "num_generations": 4, "max_steps": 3}},
        "evaluation": [{"benchmark": "arithmetic", "limit": 4}], "checkpoints": {"every": 1}, "preflight": "warn",
        "run": {"name": "keyed", "directory": str(folder / "runs"), "report_to": ["tensorboard"]},
    }  # fmt: skip
    file = folder / "recipe.yaml"
    file.write_text(json.dumps(made, indent=1))
    return file


@pytest.fixture(scope="module")
def served(tiny, tmp_path_factory):
    """`posttrain serve --run`, its key from a file."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    folder = tmp_path_factory.mktemp("keyed")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    url, key = f"http://127.0.0.1:{port}", f"key{secrets.token_hex(16)}"
    (folder / "secret").write_text(key + "\n")
    file = recipe(folder, tiny, url)
    command = [sys.executable, "-m", "posttrain.cli", "serve", str(file), "--run"]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT,
                                   env=environment(POSTTRAIN_VLLM_KEY_FILE=str(folder / "secret")))  # fmt: skip
    until = time.monotonic() + 300
    while time.monotonic() < until and process.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=2).close()
            break
        except OSError:
            time.sleep(0.5)
    else:
        process.kill()
        pytest.fail(f"the server did not start: {(folder / 'server.log').read_text()[-3000:]}")
    yield Served(url, key, folder, file, folder / "server.log", process)
    process.terminate()
    process.wait(timeout=60)


@dataclass
class Commands(threading.Thread):
    """Every command line of this machine, seen again and again while something runs."""

    needle: bytes
    seen: set[bytes] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self.stop = threading.Event()

    __hash__ = object.__hash__

    def run(self) -> None:
        while not self.stop.wait(0.1):
            for name in os.listdir("/proc"):
                if name.isdigit():
                    try:
                        self.seen.add(
                            Path("/proc", name, "cmdline").read_bytes() + Path("/proc", name, "comm").read_bytes()
                        )
                    except OSError:
                        continue


def holding(folder: Path, needle: bytes) -> list[str]:
    return [str(p) for p in folder.rglob("*") if p.is_file() and needle in p.read_bytes()]


def test_the_key_is_nowhere(served):
    key = served.key.encode()
    commands = Commands(key)
    commands.start()
    words = [sys.executable, "-m", "posttrain.cli", "train", str(served.recipe)]
    ended = subprocess.run(words, cwd=served.folder, capture_output=True, check=False, timeout=600,
                           env=environment(POSTTRAIN_VLLM_KEY=served.key))  # fmt: skip
    commands.stop.set()
    commands.join()
    assert ended.returncode == 0, ended.stderr.decode()[-3000:]
    run = served.folder / "runs" / "keyed"
    files = {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()}
    for wanted in ("report.html", "status.json", "resolved.json", "recipe.yaml", "environment.json", "metrics.jsonl",
                   "evaluation/after-arithmetic/result.json", "adapter/adapter_model.safetensors"):  # fmt: skip
        assert wanted in files
    assert any(name.startswith("checkpoints/") and name.endswith(".safetensors") for name in files)
    assert any(name.startswith("rollouts/") for name in files)
    assert any("tfevents" in name for name in files)
    assert json.loads((run / "status.json").read_text())["steps"] == 3
    assert holding(run, key) == []
    assert key not in ended.stdout + ended.stderr
    assert key not in served.log.read_bytes()
    started = [line for line in commands.seen if b"posttrain.train" in line]
    assert started, "the training process was not seen"
    assert any(b"vllm.entrypoints" in line for line in commands.seen), "the server was not seen"
    assert [line for line in commands.seen if key in line] == []


def test_nor_after_a_run_with_another_key(served):
    """What a refusal leaves behind holds neither the key that was sent nor the server's."""
    wrong = f"key{secrets.token_hex(16)}"
    words = [sys.executable, "-m", "posttrain.cli", "train", str(served.recipe), "run.name=refused"]
    ended = subprocess.run(words, cwd=served.folder, capture_output=True, text=True, check=False, timeout=600,
                           env=environment(POSTTRAIN_VLLM_KEY=wrong))  # fmt: skip
    assert ended.returncode == 3
    assert "refuses the key; put the server's into POSTTRAIN_VLLM_KEY" in ended.stderr
    for one in (wrong, served.key):
        assert one not in ended.stdout + ended.stderr
        assert holding(served.folder / "runs", one.encode()) == []


def ask(url: str, key: str | None, body: dict) -> int:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        return urllib.request.urlopen(request, timeout=30).status
    except urllib.error.HTTPError as error:
        return error.code


def test_the_server_answers_this_machine_and_this_key_alone(served, tiny):
    for path, body in (
        ("/v1/completions", {"model": tiny, "prompt": [3, 4], "max_tokens": 1}),
        ("/v1/load_lora_adapter", {"lora_name": "x", "lora_path": "/nowhere"}),
        ("/v1/unload_lora_adapter", {"lora_name": "x"}),
    ):
        assert ask(served.url + path, None, body) == 401
        assert ask(served.url + path, "wrong", body) == 401
        assert ask(served.url + path, served.key, body) != 401
    port = int(served.url.rpartition(":")[2])
    listening = [
        line.split()[1]
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        if Path(table).exists()
        for line in Path(table).read_text().splitlines()[1:]
        if line.split()[3] == "0A" and int(line.split()[1].rpartition(":")[2], 16) == port
    ]
    assert [place.partition(":")[0] for place in listening] == ["0100007F"]  # 127.0.0.1
