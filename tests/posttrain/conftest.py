"""A tiny untrained model on disk, with a real tokenizer: quick to load, good for everything but accuracy."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> str:
    """Directory of a one-layer Qwen2 with random weights (std 0.3, so that its distribution is not flat)."""
    import torch

    from posttrain.miniature import models, tokenizer

    folder = tmp_path_factory.mktemp("tiny")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = tokenizer.build()
        model = models.new(made, hidden_size=64, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=0.3)
    models.save(model, made, folder)
    return str(folder)


@dataclass
class Served:
    url: str
    key: str
    folder: Path
    recipe: Path
    log: Path


def _recipe(folder: Path, tiny: str, url: str) -> Path:
    rows = [{"prompt": [{"role": "user", "content": f"{i} + 1 ="}], "answer": str(i + 1)} for i in range(16)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "mine.py").write_text(
        "def length(completion_ids, **_): return [float(len(set(i)) % 7) for i in completion_ids]\n"
    )
    made = {
        "model": {"name": tiny, "max_length": 256}, "adapter": {"r": 8},
        "data": {"train": {"path": str(folder / "rows.jsonl")}}, "rewards": [{"use": "mine.py:length"}],
        "rollouts": {"engine": {"use": "vllm-server", "with": {"urls": [url]}}, "sampling": {"max_tokens": 12}},
        "trainer": {"args": {"per_device_train_batch_size": 8, "num_generations": 4, "max_steps": 3}},
        "evaluation": [{"benchmark": "arithmetic", "limit": 4}], "checkpoints": {"every": 1}, "preflight": "warn",
        "run": {"name": "keyed", "directory": str(folder / "runs"), "report_to": ["tensorboard"]},
    }  # fmt: skip
    file = folder / "recipe.yaml"
    file.write_text(json.dumps(made, indent=1))
    return file


@pytest.fixture(scope="session")
def served(tiny, tmp_path_factory) -> Iterator[Served]:
    """`posttrain serve --run`, a real vLLM server of the tiny model, its key from a file. Told to end, it takes the server down."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    folder = tmp_path_factory.mktemp("served")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    url, key = f"http://127.0.0.1:{port}", f"key{secrets.token_hex(16)}"
    (folder / "secret").write_text(key + "\n")
    file = _recipe(folder, tiny, url)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("POSTTRAIN_VLLM_KEY")}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment["POSTTRAIN_VLLM_KEY_FILE"] = str(folder / "secret")
    command = [sys.executable, "-m", "posttrain.cli", "serve", str(file), "--run"]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, env=environment)
    until = time.monotonic() + 300
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{url}/health", timeout=2).close()
            break
        time.sleep(0.5)
    else:
        process.kill()
        pytest.fail(f"the server did not start: {(folder / 'server.log').read_text()[-3000:]}")
    yield Served(url, key, folder, file, folder / "server.log")
    process.terminate()
    assert process.wait(timeout=60) == 0
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=2)
