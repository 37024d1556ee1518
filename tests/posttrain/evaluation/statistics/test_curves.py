"""Curves against the mean over every subset, closed forms, and published figures."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from posttrain.evaluation.statistics.curves import best_of_n, curves, maj_at, weighted_vote
from posttrain.evaluation.statistics.estimates import majority, pass_at

samples = st.lists(st.tuples(st.sampled_from(["right", "a", "b", "c", "d", None]), st.integers(0, 3)), min_size=1, max_size=8)  # fmt: skip


@settings(max_examples=150)
@given(samples, st.data())
def test_voting_is_the_mean_over_every_subset(drawn, data):
    classes = [c for c, _ in drawn]
    right = [float(c == "right") for c in classes]
    n = data.draw(st.integers(1, len(classes)))
    every = [
        majority([right[i] for i in s], [classes[i] for i in s])
        for s in itertools.combinations(range(len(classes)), n)
    ]
    assert maj_at(classes, right, n) == pytest.approx(np.mean(every), abs=1e-12)


def test_voting_of_classes_that_are_partly_right():
    """As `majority` does: a class is worth the mean of its members (a grader that is not transitive)."""
    classes, right = ["a", "a", "b", "b", "b"], [1.0, 0.0, 0.0, 1.0, 0.0]
    assert maj_at(classes, right, 5) == majority(right, classes) == pytest.approx(1 / 3)


@settings(max_examples=150)
@given(samples, st.data())
def test_picking_by_a_score_is_the_mean_over_every_subset_and_every_lot(drawn, data):
    scores = [float(s) for _, s in drawn]
    right = [float(c == "right") for c, _ in drawn]
    n = data.draw(st.integers(1, len(drawn)))
    every = []
    for s in itertools.combinations(range(len(drawn)), n):
        best = max(scores[i] for i in s)
        every.append(np.mean([right[i] for i in s if scores[i] == best]))
    assert best_of_n(scores, right, n) == pytest.approx(np.mean(every), abs=1e-12)


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=60), st.data())
def test_a_perfect_scorer_is_coverage_and_a_constant_one_the_average(right, data):
    n = data.draw(st.integers(1, len(right)))
    assert best_of_n(right, right, n) == pytest.approx(pass_at(sum(right), len(right), n)[0], abs=1e-12)
    assert best_of_n([0.3] * len(right), right, n) == pytest.approx(np.mean(right), abs=1e-12)
    assert best_of_n([-r for r in right], right, len(right)) == float(all(right))


def test_four_thousand_problems():
    """Published: chances Beta(.6, .8), wrong answers .5/.3/.2: avg .44; maj .487/.540/.551 and pass .707/.858/.938 at 4/16/64.

    The published draw of 4,000 chances has mean .44 where the law has .4286 (two standard errors), so here the chances are
    the law's quantiles, and a figure may be off by as much.
    """
    generator = np.random.default_rng(12)
    p = stats.beta.ppf((np.arange(4000) + 0.5) / 4000, 0.6, 0.8)
    wrong = generator.choice(3, (4000, 64), p=[0.5, 0.3, 0.2])
    right = generator.random((4000, 64)) < p[:, None]
    answers = np.where(right, -1, wrong)
    count = right.sum(axis=1)
    assert right.mean() == pytest.approx(0.6 / 1.4, abs=0.003)
    for n, voted, covered in ((4, 0.487, 0.707), (16, 0.540, 0.858), (64, 0.551, 0.938)):
        # 16 samples suffice for n <= 16: the estimate is unbiased for any number that is not smaller
        width = max(n, 16)
        found = np.mean(
            [maj_at(a[:width].tolist(), r[:width].tolist(), n) for a, r in zip(answers, right, strict=True)]
        )
        assert found == pytest.approx(voted, abs=0.015)
        law = 1 - special.beta(0.6, 0.8 + n) / special.beta(0.6, 0.8)
        assert pass_at(count, 64, n).mean() == pytest.approx(law, abs=0.004)
        assert pass_at(count, 64, n).mean() == pytest.approx(covered, abs=0.015)
        if n == 64:
            assert pass_at(count, 64, n).mean() - found == pytest.approx(0.39, abs=0.015)


def test_voting_from_more_samples_is_unbiased_and_steadier():
    generator = np.random.default_rng(13)
    answers = generator.choice(4, (6000, 24), p=[0.35, 0.3, 0.2, 0.15])
    right = (answers == 0).astype(float)
    once = [majority(r[:5], a[:5]) for r, a in zip(right, answers, strict=True)]
    many = [maj_at(a.tolist(), r.tolist(), 5) for r, a in zip(right[:2000], answers[:2000], strict=True)]
    assert np.mean(many) == pytest.approx(np.mean(once), abs=0.02)
    assert np.var(many) < np.var(once) / 3


def test_a_thousand_samples_are_no_overflow():
    classes = ["right"] * 400 + ["a"] * 350 + [f"x{i}" for i in range(250)]
    right = [float(c == "right") for c in classes]
    assert 0.5 < maj_at(classes, right, 200) < maj_at(classes, right, 600) <= 1
    assert maj_at(classes, right, 1000) == 1


def test_the_weighted_vote():
    classes, right = ["a", "right", "a", None], [0.0, 1.0, 0.0, 0.0]
    assert weighted_vote(classes, right, [1, 1, 1, 9]) == 0.0
    assert weighted_vote(classes, right, [1, 3, 1, 9]) == 1.0
    assert weighted_vote(classes, right, [0.1, 0.3, 0.2, 9]) == 0.5
    assert weighted_vote([None], [0.0], [1]) == 0.0
    with pytest.raises(ValueError, match="from 0 on"):
        weighted_vote(["a"], [1.0], [-1])


def test_a_whole_table_of_curves():
    right = [[1, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
    classes = [["r", "a", "b", "r"], ["a", "a", None, "r"], ["a", "b", "c", None]]
    found = curves(right, classes, right)
    assert [[p["n"] for p in found[c]] for c in ("pass", "maj", "best_of")] == [[1, 2, 4]] * 3
    assert found["pass"][0]["value"] == found["maj"][0]["value"] == found["best_of"][0]["value"] == pytest.approx(0.25)
    assert [p["value"] for p in found["best_of"]] == pytest.approx([p["value"] for p in found["pass"]])
    assert found["maj"][2]["value"] == pytest.approx(1 / 3)
    assert all(p["low"] <= p["value"] <= p["high"] for curve in found.values() for p in curve)
    assert "best_of" not in curves(right, classes)


@pytest.mark.parametrize(
    "call",
    [
        lambda: best_of_n([1.0], [1.0], 2),
        lambda: best_of_n([1.0, 2.0], [1.0], 1),
        lambda: best_of_n([float("nan")], [1.0], 1),
        lambda: maj_at(["a"], [1.0], 2),
        lambda: maj_at(["a"], [1.0], 0),
        lambda: maj_at(["a"], [], 1),
        lambda: curves([[1], [1, 0]], [["a"], ["a", "b"]]),
        lambda: curves([], []),
    ],
)
def test_what_cannot_be_estimated_is_refused(call):
    with pytest.raises(ValueError, match=r"need|not a number"):
        call()
