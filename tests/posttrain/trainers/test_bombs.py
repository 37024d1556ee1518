"""Texts that would keep a grader busy for ever, through the reward of a real training run: each costs a time limit, a batch
full of them a few, and neither stops the run."""

from __future__ import annotations

import itertools
import json

import pytest

from posttrain import assemble
from posttrain.trainers.grpo import GRPO
from rewards.grading import pool
from rewards.math import correct

BOMBS = (
    "9^{9^{9^{%d}}}", "10^{10^{1%d}}", "(10^{1%d})!", "\\sum_{i=1}^{10^{1%d}} i!", "%d99999999^{99999999}", "\\prod_{i=1}^{9999999%d} i",
    "x^{9999999%d}-1+x", "\\binom{10^{9}}{5%d0000000}",
)  # fmt: skip
LIMIT = 1.0


@pytest.fixture(autouse=True)
def two_workers(monkeypatch):
    pool.close()
    monkeypatch.setenv("REWARDS_GRADER_PROCESSES", "2")
    yield
    pool.close()


def trained(parts, bombs: int):
    """Two steps of eight rows, of which the first `bombs` end in a bomb of their own and the others in the right answer."""
    serial = itertools.count(2)
    seen: list[list[float | None]] = []

    def graded(completions, answer, log_metric=None, **_):
        texts = []
        for i, gold in enumerate(answer):
            bomb = BOMBS[i % len(BOMBS)] % next(serial)
            right = f"{gold} + \\frac{{0}}{{7}}"
            texts.append(f"$\\boxed{{{bomb if i < bombs else right}}}$")
        values = correct(texts, list(answer), grader_timeout=LIMIT, log_metric=log_metric)
        seen.append(values)
        return values

    made = parts(rewards=(graded,))
    assert made.judged[0].guard.timeout == 60.0  # over it, the run would stop
    trainer = assemble.trainer(GRPO, made)
    trainer.train()
    return made.run, seen


def metrics(run, name: str) -> list[float]:
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [line[name] for line in lines if name in line]


def test_a_bomb_is_a_wrong_answer_and_the_others_are_judged(parts):
    run, seen = trained(parts, bombs=1)
    assert seen == [[0.0] + [1.0] * 7] * 2
    assert metrics(run, "correct/timeout") == [0.125, 0.125]
    assert metrics(run, "rewards/graded/faults") == [0.0, 0.0]
    assert not run.faults.exists()


def test_a_batch_full_of_bombs_neither_stops_the_run_nor_is_it_scored_as_something_else(parts):
    run, seen = trained(parts, bombs=8)
    for values in seen:
        assert set(values) <= {0.0, None}
        assert values.count(0.0) >= 2
    assert min(metrics(run, "correct/timeout")) >= 0.75
    assert not run.faults.exists()


def test_when_the_budget_is_gone_the_rest_is_not_judged_and_none_is_remembered():
    bombs = [("\\frac{x}{2}", BOMBS[0] % i) for i in range(2, 42)]
    answers = pool.compare(bombs, timeout=1.0, budget=2.0)
    whole = [a for a in answers if a[1] != pool.NO_TIME]
    assert {a[0] for a in answers} == {"timeout"}
    assert 2 <= len(whole) <= 6  # two workers, two seconds each, halving at the end
    assert all(rule.startswith("killed after 1.") for _, rule in whole)
    again = pool.compare(bombs[-1:], timeout=1.0)
    assert again[0][1].startswith("killed after 1.")
    assert pool.compare([("\\frac{1}{2}", "\\frac{2}{4}")], timeout=1.0, budget=2.0)[0][0] == "right"


def test_quick_comparisons_are_free():
    budget = pool.Budget(5.0, 10.0)
    for _ in range(1000):
        assert budget.next() == 5.0
        budget.spent(0.4)
    budget.spent(5.0)
    assert budget.next() == 2.5
    budget.spent(4.6)
    assert budget.next() == 0.0
