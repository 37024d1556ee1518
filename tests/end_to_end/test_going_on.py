"""One folder, one run: who may start, what goes on, and what is refused with which line. Real processes, tiny steps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from posttrain.rundir import RunDir

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
SMALL = ["evaluation=[]", "trainer.args.per_device_train_batch_size=8", "trainer.args.num_generations=8",
         "trainer.args.gradient_accumulation_steps=1", "rollouts.sampling.max_tokens=8", "preflight=off",
         "checkpoints.every=2", "run.name=x"]  # fmt: skip


@pytest.fixture
def start(tmp_path, recipes):
    """`start(*words)`: a training process in a folder of its own."""
    started = []

    def do(*words: str) -> subprocess.Popen[str]:
        made = subprocess.Popen(
            [sys.executable, "-m", "posttrain.train", str(recipes / "arithmetic_grpo.yaml"), *SMALL, *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(made)
        return made

    yield do
    for one in started:
        if one.poll() is None:
            one.kill()
        one.communicate()


def said(process: subprocess.Popen[str]) -> str:
    _, err = process.communicate(timeout=300)
    assert "Traceback" not in err, err
    return err


def steps(run: RunDir) -> list[int]:
    try:
        lines = run.metrics.read_text().splitlines()
    except FileNotFoundError:
        return []
    return [r["step"] for r in map(json.loads, lines) if r["phase"] == "train"]


def until(run: RunDir, step: int, process: subprocess.Popen[str]) -> None:
    limit = time.monotonic() + 300
    while (not steps(run) or steps(run)[-1] < step) and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.05)
    assert process.poll() is None, said(process)


def test_the_life_of_a_folder(start, tmp_path):
    run = RunDir(tmp_path / "runs" / "x")
    first = start("trainer.args.max_steps=100000")
    until(run, 5, first)

    second = start("trainer.args.max_steps=100000")
    err = said(second)
    assert second.returncode == 2
    assert f"runs/x: another launch is at work there (process {first.pid} on " in err
    anew = start("trainer.args.max_steps=100000", "--restart")
    assert "another launch is at work there" in said(anew)
    assert anew.returncode == 2
    assert first.poll() is None
    assert run.state == "running"
    assert not run.cut_off

    first.send_signal(signal.SIGKILL)
    first.wait()
    assert run.cut_off
    before = steps(run)

    other = start("trainer.args.max_steps=9", "trainer.args.learning_rate=0.1")
    err = said(other)
    assert other.returncode == 2
    assert "trainer.args.max_steps: 100000 → 9" in err
    assert "trainer.args.learning_rate: " in err
    assert "--resume-anyway" in err
    assert steps(run) == before

    kept = max(n for n in before if n % 2 == 0 or n == 0)
    last = kept + 3
    insisting = start(f"trainer.args.max_steps={last}", "--resume-anyway")
    err = said(insisting)
    assert insisting.returncode == 0, err
    assert (
        f"goes on from step {kept}" in err or f"goes on from step {kept - 2}" in err
    )  # killed while it saved the last one
    assert steps(run) == list(range(1, last + 1))
    launches = [json.loads(line) for line in run.launches.read_text().splitlines()]
    assert len(launches) == 2
    assert launches[1]["anyway"] == [f"trainer.args.max_steps: 100000 → {last}"]
    status = run.read_status()
    assert (status["state"], status["resumed_from"], status["steps"]) == ("done", launches[1]["resumed_from"], last)
    assert sorted(p.name for p in run.checkpoints.glob("checkpoint-*")) == sorted(
        f"checkpoint-{n}" for n in sorted({last, last - last % 2, last - last % 2 - 2})[-2:]
    )
    assert "the run was cut off and went on from step" in run.report.read_text()

    done = start(f"trainer.args.max_steps={last}")
    assert "runs/x: this run is done; begin anew with --restart" in said(done)
    assert done.returncode == 2

    anew = start("trainer.args.max_steps=1", "--restart")
    assert said(anew) is not None
    assert anew.returncode == 0
    assert steps(run) == [1]
    [aside] = (tmp_path / "runs").glob("x.*")
    assert steps(RunDir(aside)) == list(range(1, last + 1))
