"""Real runs: `accelerate launch -m posttrain.train` in a folder of their own, on one or two CPU processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Ended:
    code: int
    out: str
    err: str
    run: Path

    def json(self, name: str) -> Any:
        return json.loads((self.run / name).read_text())

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.run / name).read_text().splitlines()]

    def metrics(self, key: str) -> list[float]:
        return [m[key] for m in self.lines("metrics.jsonl") if m["phase"] == "train" and m.get(key) is not None]

    def rollouts(self) -> list[dict[str, Any]]:
        files = sorted((self.run / "rollouts").glob("*.jsonl"))
        return [json.loads(line) for f in files for line in f.read_text().splitlines()]

    def accuracy(self, when: str, benchmark: str = "arithmetic") -> dict[str, float]:
        return self.json(f"evaluation/{when}-{benchmark}/result.json")["metrics"]["accuracy"]


def _launch(
    folder: Path,
    recipe: str | Path,
    *overrides: str,
    processes: int = 1,
    name: str = "test",
    timeout: float = 1100,
    env=None,
) -> Ended:
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "accelerate.commands.launch", "--config_file", str(ROOT / "recipes/accelerate/cpu.yaml")]
        command += ["--num_processes", str(processes)]
    command += ["-m", "posttrain.train", str(recipe), f"run.name={name}", *overrides]
    settings = {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    ended = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **settings, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr, folder / "runs" / name)


@pytest.fixture
def launch(tmp_path: Path) -> Callable[..., Ended]:
    """`launch(recipe, "key=value", ..., processes=1)`; the run is called `run.name` of the override or `test`. One process is
    started as it is: `accelerate launch` would add its own imports and make a 1 of every exit code."""
    return partial(_launch, tmp_path)


@pytest.fixture(scope="module")
def launch_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Ended]:
    """`launch`, for a run that several tests of a module look at."""
    return partial(_launch, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def recipes() -> Path:
    return ROOT / "recipes"
