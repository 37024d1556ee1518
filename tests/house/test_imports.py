"""Import weight and import direction."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "trl", "peft", "vllm", "sympy", "datasets", "accelerate", "pandas")

LIGHT = {
    "rewards.math": "import rewards.math",
    "rewards": "import rewards.format, rewards.length, rewards.runtime, rewards.grading, rewards.rubric, rewards.judge",
    "records": "import rollouts.records, rollouts.seeds, rollouts.strategies.single",
    "recipe": "import posttrain; posttrain.load({'model': {'name': 'm'}, 'data': {'train': {'hub': 'h'}}, "
    "'trainer': {'algorithm': 'sft'}, 'run': {'name': 'r'}})",
    "a wrong recipe through plan": "from posttrain.cli import main; assert main(['plan', 'missing.yaml']) == 2",
    "metrics": "import posttrain.metrics",
    "benchmarks": "import posttrain.evaluation",
}


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize("code", LIGHT.values(), ids=LIGHT)
def test_it_loads_nothing_heavy(code):
    ended = python(f"{code}\nimport sys\nprint([m for m in {HEAVY!r} if m in sys.modules])")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip().splitlines()[-1] == "[]"


def test_import_direction():
    linter = Path(sys.executable).with_name("lint-imports")
    ended = subprocess.run([str(linter)], cwd=ROOT, capture_output=True, text=True, check=False,
                           env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-3000:]


def test_a_users_own_rewards_py_is_named(tmp_path):
    """With `-m` the working directory comes first on the path."""
    (tmp_path / "rewards.py").write_text("mine = 1\n")
    ended = subprocess.run([sys.executable, "-m", "posttrain.train", "x.yaml"], cwd=tmp_path, capture_output=True,
                           text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert ended.returncode == 2
    assert ended.stderr.strip() == (
        f'posttrain: the package "rewards" is hidden by {(tmp_path / "rewards.py").resolve()}; '
        "rename that file or folder (my_rewards.py, say)"
    )
