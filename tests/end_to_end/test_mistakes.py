"""What a user sees when something is wrong: one line, the right exit code, nothing half-written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from posttrain.cli import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def posttrain(tmp_path):
    def do(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "posttrain.cli", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return do


RECIPE = """\
model: {name: miniature/arithmetic}
adapter: {r: 8}
data:
  train: {use: "posttrain.miniature.arithmetic:train", with: {n: 64}}
rewards:
  - {use: "rewards.math:correct"}
rollouts: {sampling: {max_tokens: 96}}
trainer:
  algorithm: grpo
  args: {per_device_train_batch_size: 16, num_generations: 8, max_steps: 2}
run: {name: x}
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("rewards:", "reward:", 'r.yaml:5: reward: unknown key; did you mean "rewards"?'),
        ("num_generations: 8", "num_generation: 8", 'r.yaml:10: trainer.args.num_generation: '),
        ("max_steps: 2", "max_steps: many", "r.yaml:10: trainer.args.max_steps: "),
        ("max_steps: 2", "max_steps: 2, temperature: 0.5", "rollouts.sampling.temperature"),
        ("rewards.math:correct", "rewards.math:corect", 'did you mean "correct"?'),
        ("num_generations: 8", "num_generations: 7", "7"),
        ("n: 64", "n: 1", "posttrain: "),
        ("algorithm: grpo", "algorithm: gpro", 'did you mean "grpo"?'),
        ("miniature/arithmetic", "miniature/arithmetics", "miniature/arithmetic"),
    ],
)  # fmt: skip
def test_plan_says_it_in_one_line(tmp_path, monkeypatch, capfd, old, new, said):
    """In this process: what a process of its own makes of an exit code is looked at below."""
    assert old in RECIPE
    (tmp_path / "r.yaml").write_text(RECIPE.replace(old, new, 1))
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "r.yaml"]) == 2
    stderr = capfd.readouterr().err
    lines = [line for line in stderr.splitlines() if line.startswith("posttrain:")]
    assert len(lines) == 1, stderr
    assert said in lines[0]
    assert "Traceback" not in stderr
    assert not (tmp_path / "runs").exists()


def test_train_passes_the_exit_code_on(posttrain, tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE.replace("num_generations: 8", "num_generations: 7"))
    ended = posttrain("train", "--accelerate", str(ROOT / "recipes/accelerate/cpu.yaml"), "--processes", "1", "r.yaml")
    assert ended.returncode == 2, ended.stderr
    assert ended.stdout.startswith("$ accelerate launch --config_file")
    assert "7" in next(line for line in ended.stderr.splitlines() if line.startswith("posttrain:"))


def test_a_reward_that_throws_stops_both_processes_in_one_line(launch, recipes, tmp_path):
    (tmp_path / "bad.py").write_text(
        "def picky(completions, answer, **columns):\n"
        "    return [1.0 / (len(c[0]['content']) - len(c[0]['content']) // 7 * 7) for c in completions]\n"
    )
    ended = launch(recipes / "arithmetic_grpo.yaml", "rewards=[{use: 'bad.py:picky'}]", "trainer.args.max_steps=3",
                   "trainer.args.per_device_train_batch_size=32", "evaluation=[]", "preflight=off", processes=2)  # fmt: skip
    assert ended.code != 0
    said = [line for line in ended.err.splitlines() if "posttrain: stopped: rewards.0 (" in line]
    assert said
    assert all("ZeroDivisionError" in line and "on row arithmetic/" in line for line in said)
    status = ended.json("status.json")
    assert status["state"] == "stopped"
    assert "ZeroDivisionError" in status["error"]
    assert ended.lines("faults.jsonl")[0]["kind"] == "exception"


def test_a_reward_that_lacks_a_column_is_named_before_training(posttrain, tmp_path):
    (tmp_path / "mine.py").write_text("def rated(completions, rubric):\n    return [0.0] * len(completions)\n")
    (tmp_path / "r.yaml").write_text(RECIPE.replace('"rewards.math:correct"', '"mine.py:rated"'))
    ended = posttrain("plan", "r.yaml")
    assert ended.returncode == 2
    assert "needs rubric" in ended.stderr


def test_rewards_check(posttrain, tmp_path):
    (tmp_path / "mine.py").write_text(
        "def odd(completions, **columns):\n"
        "    return [float('nan') if 'know' in c else 'full' if not c else len(c) / 10 for c in completions]\n"
    )
    ended = posttrain("rewards", "check", "mine.py:odd")
    assert ended.returncode == 2
    assert "not_finite" in ended.stdout
    assert "not_a_number" in ended.stdout
    good = posttrain("rewards", "check", "rewards.math:correct")
    assert good.returncode == 0, good.stderr
    assert "5 rows in" in good.stdout


def test_a_run_that_is_terminated_says_so(recipes, tmp_path):
    """SIGTERM, as schedulers send it before they take a machine away."""
    import signal
    import time

    command = [sys.executable, "-m", "posttrain.train", str(recipes / "arithmetic_grpo.yaml"), "evaluation=[]"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    run = tmp_path / "runs" / "arithmetic-grpo"
    until = time.monotonic() + 300
    while not (run / "metrics.jsonl").exists() and time.monotonic() < until and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 3, said
    assert "posttrain: stopped: the process was told to end (SIGTERM)" in said
    assert "Traceback" not in said
    status = json.loads((run / "status.json").read_text())
    assert status["state"] == "stopped"
    assert status["error"].startswith("the process was told to end (SIGTERM)")


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize("processes", [1, 2])
def test_nothing_is_said_after_the_last_line_of_a_run_that_ended_itself(processes, recipes, tmp_path):
    """The launcher has a traceback of its own for every exit code; the run has said what there is to say."""
    (tmp_path / "broken.py").write_text(
        "def judge(completions, **_):\n    return [float(c[9]) for c in completions]\n"
    )
    command = [sys.executable, "-m", "posttrain.cli", "train", str(recipes / "arithmetic_grpo.yaml"), "evaluation=[]",
               "rewards=[{use: 'broken.py:judge'}]", "--processes", str(processes),
               "--accelerate", str(recipes / "accelerate/cpu.yaml")]  # fmt: skip
    ended = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 2, ended.stderr
    assert "no number for any of" in ended.stderr
    assert "Traceback" not in ended.stderr, ended.stderr
    assert ended.stderr.count("posttrain: preflight failed") == 1
