"""A real run against a real vLLM server with a key: the key is in no file of the run, no output and no command line."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.vllm, pytest.mark.processes, pytest.mark.slow]


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


def environment(**more: str) -> dict[str, str]:
    known = {k: v for k, v in os.environ.items() if not k.startswith("POSTTRAIN_VLLM_KEY")}
    return {**known, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **more}


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
    models = urllib.request.Request(f"{served.url}/v1/models", headers={"Authorization": f"Bearer {served.key}"})
    assert [m["id"] for m in json.loads(urllib.request.urlopen(models, timeout=5).read())["data"]] == [tiny]
    port = int(served.url.rpartition(":")[2])
    listening = [
        line.split()[1]
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        if Path(table).exists()
        for line in Path(table).read_text().splitlines()[1:]
        if line.split()[3] == "0A" and int(line.split()[1].rpartition(":")[2], 16) == port
    ]
    assert [place.partition(":")[0] for place in listening] == ["0100007F"]  # 127.0.0.1
