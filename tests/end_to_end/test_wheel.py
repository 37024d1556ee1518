"""The installed wheel in another place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def run(*command: str, cwd: Path, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, env={**os.environ, "PYTHONPATH": str(path)}, capture_output=True, text=True,
        timeout=500, check=False,
    )  # fmt: skip


def test_the_wheel_works_elsewhere(tmp_path):
    """Built, installed without the checkout, and used from a folder of its own."""
    source, site, work = tmp_path / "source", tmp_path / "site", tmp_path / "work"
    work.mkdir()
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    built = run(
        "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(source), cwd=tmp_path, path=work
    )
    assert built.returncode == 0, built.stderr
    where = run("-c", "import posttrain; print(posttrain.__file__)", cwd=work, path=site)
    assert str(site) in where.stdout
    listed = run("-m", "posttrain.cli", "recipes", "ls", cwd=work, path=site)
    assert "custom_reward.yaml" in listed.stdout, listed.stderr
    copied = run("-m", "posttrain.cli", "recipes", "cp", "custom_reward", cwd=work, path=site)
    assert copied.returncode == 0, copied.stderr
    assert {"custom_reward.yaml", "arithmetic_grpo.yaml", "my_rewards.py"} <= {p.name for p in work.iterdir()}
    trained = run("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "--num_machines", "1",
                  "--mixed_precision", "no", "--dynamo_backend", "no", "-m", "posttrain.train", "custom_reward.yaml",
                  "trainer.args.max_steps=1", "evaluation=[]", cwd=work, path=site)  # fmt: skip
    assert trained.returncode == 0, trained.stderr[-3000:]
    assert (work / "runs" / "custom-reward" / "report.html").is_file()
