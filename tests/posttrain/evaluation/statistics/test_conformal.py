"""Exchangeable scores are called unusual as often as they should be, at most."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from posttrain.evaluation.statistics.conformal import conformal_pvalue, conformal_quantile


@pytest.mark.parametrize(("size", "published"), [(20, 0.380), (240, 0.398)])
def test_how_often_it_is_at_most_two_fifths(size, published):
    rng = np.random.default_rng(0)
    draws = rng.standard_normal((20_000, size + 1))
    found = np.mean([conformal_pvalue(row[0], row[1:]) <= 0.4 for row in draws])
    exact = math.floor(0.4 * (size + 1)) / (size + 1)
    assert found == pytest.approx(exact, abs=4 * math.sqrt(0.24 / 20_000))
    assert exact == pytest.approx(published, abs=0.002)
    assert exact <= 0.4
    bare = np.mean(np.mean(draws[:, 1:] <= draws[:, :1], axis=1) <= 0.4)
    assert bare > 0.4, "without the ones the promise is broken"


def test_every_order_of_a_small_pool():
    """All permutations of five scores, two of them equal: P(p <= a) <= a for every a that p can take."""
    orders = [conformal_pvalue(o[0], o[1:]) for o in itertools.permutations([1.0, 2.0, 2.0, 3.0, 4.0])]
    for a in sorted(set(orders)):
        assert np.mean(np.array(orders) <= a + 1e-12) <= a + 1e-12


def test_what_is_no_number():
    with pytest.raises(ValueError, match="not a number"):
        conformal_pvalue(float("nan"), [1.0])
    assert conformal_pvalue(3.0, []) == 1.0


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("size", [4, 19, 39])
def test_a_further_score_stays_under_the_quantile_as_often_as_promised(size, confidence):
    rng = np.random.default_rng(1)
    draws = rng.exponential(size=(20_000, size + 1))
    held = np.mean([row[0] <= conformal_quantile(row[1:], confidence) for row in draws])
    assert held >= confidence - 4 * math.sqrt(confidence * (1 - confidence) / 20_000)
    exact = min(1.0, math.ceil(round((size + 1) * confidence, 9)) / (size + 1))
    assert held == pytest.approx(exact, abs=4 * math.sqrt(0.25 / 20_000))


def test_nineteen_scores_are_needed_for_95_percent():
    assert conformal_quantile(range(19), 0.95) == 18
    assert conformal_quantile(range(18), 0.95) == math.inf


@pytest.mark.parametrize(("scores", "confidence"), [([], 0.9), ([float("nan")], 0.9), ([1.0], 1.0), ([1.0], 0.0)])
def test_quantiles_of_nothing(scores, confidence):
    with pytest.raises(ValueError, match=r"numbers|between"):
        conformal_quantile(scores, confidence)
