"""The same recipe through vLLM: in process, over HTTP, and with a server that dies under it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import pytest

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

KEY = "only-for-tests"
ENV = {"POSTTRAIN_VLLM_KEY": KEY}


class Server:
    """A stock vLLM server, started by the command that `posttrain serve` prints for the recipe."""

    def __init__(self, recipe: Path, port: int, log: Path):
        from posttrain import serve
        from posttrain.recipe import load

        self.url = f"http://127.0.0.1:{port}"
        loaded = load(recipe, [engine([self.url])])
        environment = {
            **os.environ,
            **serve.environment(loaded, on_cpu=True),
            "VLLM_API_KEY": KEY,
            "OMP_NUM_THREADS": "1",
        }
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(serve.command(loaded, on_cpu=True), env=environment, cwd=log.parent, stdout=file,
                                            stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip

    def ask(self, path: str, body: dict | None = None) -> str:
        request = urllib.request.Request(
            f"{self.url}/{path}", headers={"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
            data=None if body is None else json.dumps(body).encode(),
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=5 if body is None else 60) as answer:
            return answer.read().decode()

    def wait(self) -> None:
        until = time.monotonic() + 240
        while time.monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(OSError):
                self.ask("health")
                return
            time.sleep(0.5)
        pytest.fail(f"the server did not start: {self.log.read_text()[-3000:]}")

    def busy(self) -> bool:
        """True while it is generating."""
        with contextlib.suppress(OSError):
            lines = self.ask("metrics").splitlines()
            return any(x.startswith("vllm:num_requests_running") and float(x.split()[-1]) > 0 for x in lines)
        return False

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def engine(urls: list[str]) -> str:
    quoted = ", ".join(f'"{url}"' for url in urls)
    return f"rollouts.engine={{use: vllm-server, with: {{urls: [{quoted}], timeout: 60}}}}"


@pytest.fixture(scope="module")
def servers(recipes, tmp_path_factory):
    """Two of them, up; the last test kills them."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    folder = tmp_path_factory.mktemp("servers")
    made: list[Server] = []
    try:
        for i in range(2):
            with socket.socket() as s:
                s.bind(("127.0.0.1", 0))
                port = s.getsockname()[1]
            made.append(Server(recipes / "arithmetic_grpo.yaml", port, folder / f"server{i}.log"))
        for server in made:
            server.wait()
        yield made
    finally:
        for server in made:
            server.kill()


def learned(ended, steps: int) -> None:
    assert ended.code == 0, ended.err[-3000:]
    rewards = ended.metrics("reward")
    assert len(rewards) == steps
    assert sum(rewards[-5:]) / 5 > sum(rewards[:3]) / 3 + 0.15
    # float32 on both sides: what is left of the difference is rounding
    assert max(ended.metrics("sampling/sampling_logp_difference/max")) < 1e-3
    assert min(ended.metrics("sampling/ess")) > 0.999
    assert [r["version"] for r in ended.rollouts()] == [step for step in range(steps) for _ in range(64)]


def test_vllm_in_process(launch, recipes):
    pytest.importorskip("vllm", reason="vLLM is not installed")
    learned(launch(recipes / "arithmetic_grpo_vllm.yaml", "trainer.args.max_steps=20", "evaluation=[]"), 20)


def test_a_vllm_server_with_two_training_processes(launch, recipes, servers, tmp_path, monkeypatch):
    monkeypatch.setenv("POSTTRAIN_VLLM_KEY", KEY)
    words = [engine([servers[0].url]), "trainer.args.max_steps=16", "trainer.args.per_device_train_batch_size=32"]
    ended = launch(recipes / "arithmetic_grpo.yaml", *words, "evaluation=[]", processes=2, env=ENV)
    assert ended.code == 0, ended.err[-3000:]
    rewards = ended.metrics("reward")
    assert sum(rewards[-4:]) / 4 > sum(rewards[:2]) / 2 + 0.1
    assert {(r["step"], r["version"]) for r in ended.rollouts()} == {(i, i) for i in range(16)}
    assert len({(r["step"], r["row_id"], r["sample"]) for r in ended.rollouts()}) == 16 * 64
    told = {c["name"]: c for c in ended.json("preflight.json")["checks"]}
    assert all(c["ok"] is not False for c in told.values())
    assert told["engine"]["looked"].startswith("VLLMServerEngine, shared with other processes")
    assert told["log-probs"]["looked"].startswith("8 rollouts")
    # Another run's adapter comes while an engine is already in use.
    found = foreign_adapter(servers[0], recipes, tmp_path, ended.run / "adapter")
    assert found.ok is False
    assert "holds 1 adapter(s) of another run: posttrain-theirs-v3-0123456789ab" in found.looked
    assert "takeover" in found.mend
    servers[0].ask("v1/unload_lora_adapter", {"lora_name": "posttrain-theirs-v3-0123456789ab"})


def foreign_adapter(server: Server, recipes: Path, tmp_path: Path, adapter: Path):
    from contextlib import ExitStack

    from accelerate import PartialState

    from posttrain import assemble
    from posttrain.preflight import sampler
    from posttrain.preflight.scene import Scene
    from posttrain.recipe import load
    from posttrain.rundir import RunDir

    recipe = load(
        recipes / "arithmetic_grpo.yaml",
        [
            "data.train.with={n: 64}",
            "trainer.args.num_generations=8",
            "evaluation=[]",
            engine([server.url]),
            "run.name=mine",
            f"run.directory={tmp_path}",
        ],
    )
    (tmp_path / "mine").mkdir()
    with ExitStack() as stack:
        parts = assemble.parts(recipe, RunDir(tmp_path / "mine"), stack)
        trainer = assemble.trainer(assemble.trainer_class(recipe), parts)
        scene = Scene(trainer, parts, PartialState(cpu=True), online=True)
        assert sampler.is_ours(scene).ok
        server.ask(
            "v1/load_lora_adapter", {"lora_name": "posttrain-theirs-v3-0123456789ab", "lora_path": str(adapter)}
        )
        return sampler.is_ours(scene)


def test_a_server_that_dies_in_mid_generation_and_then_the_other(launch, recipes, servers, tmp_path):
    first, second = servers
    words = [engine([first.url, second.url]), "trainer.args.max_steps=60", "evaluation=[]"]
    killed: list[int] = []

    def kill_when_busy(server: Server, after: int, folder: Path) -> None:
        until = time.monotonic() + 400
        while time.monotonic() < until:
            done = len(list((folder / "runs" / "test" / "rollouts").glob("[0-9]*.jsonl")))
            if done >= after and server.busy():
                server.kill()
                killed.append(done)
                return
            time.sleep(0.02)

    def both(folder: Path) -> None:
        kill_when_busy(first, 3, folder)
        kill_when_busy(second, 8, folder)

    thread = threading.Thread(target=both, args=(tmp_path,))
    thread.start()
    ended = launch(recipes / "arithmetic_grpo.yaml", *words, env=ENV)
    thread.join()
    assert len(killed) == 2
    # The run outlived the first server: no prompt was lost, none was answered twice.
    rollouts = ended.rollouts()
    steps = sorted({r["step"] for r in rollouts})
    assert steps == list(range(len(steps)))
    assert len(steps) >= 8
    assert len({(r["step"], r["row_id"], r["sample"]) for r in rollouts}) == len(rollouts) == 64 * len(steps)
    assert all(r["version"] == r["step"] for r in rollouts)
    # It did not outlive the second, and says so in one line.
    assert ended.code != 0
    said = [line for line in ended.err.splitlines() if line.startswith("posttrain: stopped:")]
    assert len(said) == 1, ended.err[-3000:]
    assert ended.json("status.json")["state"] == "stopped"
