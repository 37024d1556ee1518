"""A sound run passes every check, and is afterwards what it would have been without them."""

from __future__ import annotations

import json

import pytest
import torch

from posttrain import preflight
from posttrain.errors import Mistake
from posttrain.rundir import read_lines

TIMES = ("time", "step_time", "train_runtime")


def trained(trainer, parts):
    """What a run leaves: weights, metrics but for times, rollouts."""
    trainer.train()
    parts.stack.close()
    weights = {k: v.detach().clone() for k, v in trainer.model.named_parameters() if v.requires_grad}
    metrics = [
        {k: v for k, v in m.items() if not k.startswith(TIMES) and "per_second" not in k}
        for m in read_lines(parts.run.metrics)
    ]
    rollouts = "".join(f.read_text() for f in sorted(parts.run.rollouts.glob("*.jsonl")))
    return weights, metrics, rollouts


def equal(a, b):
    assert a[0].keys() == b[0].keys()
    assert all(torch.equal(a[0][k], b[0][k]) for k in a[0])
    assert a[1] == b[1]
    assert len(a[1]) >= 3
    assert a[2] == b[2]


DROPOUT = ("adapter.lora_dropout=0.2",)  # so that the trainer draws from torch's global stream as well


@pytest.mark.parametrize("words", [(), DROPOUT, ("trainer.algorithm=rloo",)], ids=["grpo", "dropout", "rloo"])
def test_a_run_is_the_same_with_and_without(build, alone, words, capsys):
    trainer, parts = build(*words)
    rows = preflight.run(trainer, parts, alone, "stop")
    assert all(row.ok is not False for row in rows)
    assert {row.name for row in rows if row.ok} >= {
        *("chat template", "EOS and pad", "lengths", "adapter", "base weights", "reward correct: answers"),
        *("reward correct: spread", "engine", "log-probs", "probe: rewards", "probe: length", "memory", "disk"),
    }
    assert "all well" in capsys.readouterr().out
    checked = trained(trainer, parts)
    trainer, parts = build(*words)
    preflight.run(trainer, parts, alone, "off")
    equal(checked, trained(trainer, parts))


@pytest.mark.parametrize("recipe", ["arithmetic_sft", "arithmetic_dpo"])
def test_offline_runs_too(build, alone, recipe):
    trainer, parts = build(recipe=recipe)
    rows = {row.name: row for row in preflight.run(trainer, parts, alone, "stop")}
    assert rows["pairs" if recipe.endswith("dpo") else "answers"].ok
    assert not any("reward" in name or "probe" in name for name in rows)
    checked = trained(trainer, parts)
    trainer, parts = build(recipe=recipe)
    equal(checked, trained(trainer, parts))


def test_a_reward_that_draws_from_the_global_streams(build, alone, reward):
    """Its draws before the run must not shift those of the run."""
    noisy = reward(
        "import random, numpy, torch\n"
        "return [random.random() + numpy.random.rand() + torch.rand(()).item() for _ in texts]",
        signature="completions, **columns",
    )
    trainer, parts = build(noisy, *DROPOUT)
    preflight.run(trainer, parts, alone, "stop")
    checked = trained(trainer, parts)
    trainer, parts = build(noisy, *DROPOUT)
    equal(checked, trained(trainer, parts))


def test_a_reward_that_counts_its_calls_is_not_counted_up(build, alone, tmp_path):
    """Classes are built anew for the checks; what the run uses has not been called."""
    file = tmp_path / "counting.py"
    file.write_text(
        "class Judge:\n    def __init__(self):\n        self.calls = 0\n"
        "    def __call__(self, completions, **columns):\n        self.calls += 1\n"
        "        return [float(len(c[0]['content'])) + 1000 * self.calls for c in completions]\n"
    )
    trainer, parts = build(f"rewards=[{{use: '{file}:Judge', name: counted}}]", "trainer.args.max_steps=1")
    preflight.run(trainer, parts, alone, "stop")
    assert parts.judged[0].guard.calls == 0
    trainer.train()
    assert all(1000 <= r["reward"] < 2000 for f in parts.run.rollouts.glob("*") for r in read_lines(f))


def test_what_is_written(build, alone):
    trainer, parts = build()
    rows = preflight.run(trainer, parts, alone, "warn")
    told = json.loads((parts.run.root / preflight.FILE).read_text())
    assert told["mode"] == "warn"
    assert [c["name"] for c in told["checks"]] == [row.name for row in rows]
    assert {c["ok"] for c in told["checks"]} <= {True, None}
    assert told["cpu_seconds"] > 0


def test_stop_warn_and_off(build, alone, capsys):
    words = ("rollouts.sampling.max_tokens=8",)
    trainer, parts = build(*words)
    with pytest.raises(
        Mistake, match=r"preflight failed\n(.*\n)*probe: length: 64 of 64 rollouts cut at 8 tokens; raise"
    ):
        preflight.run(trainer, parts, alone, "stop")
    rows = preflight.run(trainer, parts, alone, "warn")
    assert [row.name for row in rows if row.ok is False] == ["probe: rewards", "probe: length"]
    capsys.readouterr()
    assert preflight.run(trainer, parts, alone, "off") == []
    assert "switched off" in capsys.readouterr().out
