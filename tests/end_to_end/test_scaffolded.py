"""Scaffolded runs: the same draws on one process and on two, and a schedule that keeps the length it was laid out for."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

CODE = """
import os

from rollouts.strategies.scaffold import Scaffold

class Terse(Scaffold):
    '''Few words: the model's tokens are characters.'''
    def text(self, row, shown):
        return "hint " + " ".join(row.columns["rubric"][i]["criterion"] for i in shown)

def letters(completions, trainer_state, **_):
    if str(trainer_state.global_step) == os.environ.get("FALLS_IN_STEP"):
        os._exit(9)
    texts = [c[0]["content"] for c in completions]
    return [sum("a" <= x <= "m" for x in t) / max(len(t), 1) for t in texts]
"""
N, G = 5, 4


@pytest.fixture
def scaffolded(tmp_path):
    """`scaffolded(strategy arguments, **trainer.args)`: path of a recipe on a random model of one layer."""
    from posttrain.miniature import models, tokenizer

    (tmp_path / "mine.py").write_text(CODE)
    torch.manual_seed(0)
    words = tokenizer.build()
    model = models.new(words, hidden_size=64, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
    models.save(model, words, tmp_path / "tiny")
    rows = [
        {
            "row_id": f"row-{i}",
            "prompt": [{"role": "user", "content": f"say {i}"}],
            "rubric": [{"criterion": f"{i}{c}", "points": -1 if c == "e" else 2} for c in "abcde"],
        }
        for i in range(16)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(given, correction="auto", **args):
        recipe = {
            "model": {"name": str(tmp_path / "tiny")},
            "adapter": {"r": 4, "lora_alpha": 8},
            "data": {"train": {"path": str(tmp_path / "rows.jsonl")}},
            "rewards": [{"use": "mine.py:letters"}],
            "rollouts": {
                "engine": "transformers",
                "sampling": {"max_tokens": 8},
                "strategy": {"use": "mine.py:Terse", "with": {"place": "user", "inter": "constant", **given}},
                "correction": {"mode": correction},
            },
            "trainer": {
                "algorithm": "grpo",
                "args": {"num_generations": G, "optim": "sgd", "learning_rate": 0.1, "lr_scheduler_type": "constant",
                         "max_grad_norm": 1e9, "bf16": False, **args},
            },
            "preflight": "off",
        }  # fmt: skip
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe))
        return path

    return make


def told(ended):
    """What is recorded of every rollout, but for its time."""
    assert ended.code == 0, ended.err[-3000:]
    keys = ("completion", "reward", "version", "finish", "prompt_tokens", "info")
    found = {(r["step"], r["row_id"], r["sample"]): {k: r[k] for k in keys} for r in ended.rollouts()}
    assert len(found) == len(ended.rollouts()), "a sample was drawn twice"
    return found


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "batch", "more"),
    [
        # 12 rollouts a step: the second of three groups lies across the two processes. The adaptive schedule learns from both.
        ({"inter": "adaptive", "passes": 0.3, "enough": 1.0}, 12, {}),
        # One group a step, of which the second process has the half that is shown nothing.
        ({"intra": "binary", "m": 1}, 4, {"correction": "token_truncate", "max_steps": 2}),
        # Two updates a batch; a schedule that ends before the run does. (TRL shuffles a batch in each process, so that other rows
        # are in the first update: here the policy stays what it is.)
        ({"inter": "step", "t0": 0.5, "scaffold_negative": "drop"}, 8,
         {"steps_per_generation": 2, "learning_rate": 1e-12, "max_steps": 4}),
    ],
    ids=["a group on two processes", "nothing shown on one of them", "two updates a batch"],
)  # fmt: skip
def test_two_processes_show_and_draw_what_one_does(launch, scaffolded, given, batch, more):
    more = {"max_steps": 3, **more}
    one = launch(scaffolded(given, per_device_train_batch_size=batch, **more), name="one")
    two = launch(scaffolded(given, per_device_train_batch_size=batch // 2, **more), name="two", processes=2)
    assert told(one) == told(two)
    for (_, _, sample), record in told(one).items():
        assert "scaffold_leak" in record["info"]
        assert max(record["info"]["scaffold_shown"], default=0) < N
        if sample == G - 1:
            assert record["info"]["scaffold_shown"] == [], "the last sample sees nothing"
    assert any(r["info"]["scaffold_shown"] for r in told(one).values())
    a, b = ([m for m in e.lines("metrics.jsonl") if m["phase"] == "train"] for e in (one, two))
    assert len(a) == len(b) == more["max_steps"]
    names = {k for m in a for k in m if k.startswith("scaffold/")}
    assert {"scaffold/shown", "scaffold/leak", "scaffold/advantage/4", "scaffold/gap/1"} <= names
    for x, y in zip(a, b, strict=True):
        for name in names:
            assert (name in x) == (name in y), name
            # Of two micro-batches that hold other rows, a mean over tokens is another.
            if name in x and not (batch == 8 and "gap" in name):
                assert x[name] == pytest.approx(y[name], rel=1e-3, abs=1e-4), name


@pytest.mark.slow
def test_a_run_that_goes_on_with_another_length_keeps_its_schedule_and_says_so(launch, scaffolded):
    """Four iterations, everything shown in the first half; it goes on as one of eight. Half of eight would be four."""
    given = {"inter": "step", "t0": 0.5, "intra": "all"}
    recipe = scaffolded(given, per_device_train_batch_size=G, max_steps=4)
    first = launch(recipe, "checkpoints.every=2", env={"FALLS_IN_STEP": "3"})
    assert first.code == 9, first.err[-3000:]
    refused = launch(recipe, "trainer.args.max_steps=8")
    assert refused.code == 2
    assert "trainer.args.max_steps: 4 → 8" in refused.err
    ended = launch(recipe, "trainer.args.max_steps=8", "--resume-anyway")
    assert ended.code == 0, ended.err[-3000:]
    (said,) = [x for x in (ended.out + ended.err).splitlines() if "its schedule was laid out for" in x]
    assert "8 rollout iterations" in said
    assert "laid out for 4 and stays so" in said
    shown = {r["step"]: bool(r["info"]["scaffold_shown"]) for r in ended.rollouts()}
    assert shown == {0: True, 1: True, **dict.fromkeys(range(2, 8), False)}
    assert "trainer.args.max_steps" in ended.lines("launches.jsonl")[-1]["anyway"][0]
