"""The 2PL: information, ability, choice. Oracles: grid search, finite differences, scipy's optimiser."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import check_grad, minimize_scalar

from posttrain.evaluation.adaptive import fit as fitting
from posttrain.evaluation.adaptive.ability import Ability, Prior, estimate
from posttrain.evaluation.adaptive.choose import most_informative
from posttrain.evaluation.adaptive.model import chance, information


def posterior(theta, shares, a, b, samples, prior):
    """Log posterior by the book, (grid,)."""
    p = 1 / (1 + np.exp(-np.asarray(a) * (np.asarray(theta)[..., None] - np.asarray(b))))
    x = np.asarray(shares)
    likelihood = np.sum(np.asarray(samples) * (x * np.log(p) + (1 - x) * np.log1p(-p)), -1)
    return likelihood - (np.asarray(theta) - prior.mean) ** 2 / (2 * prior.sd**2)


answers = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from([1, 2, 4]), st.floats(0.2, 4), st.floats(-3, 3)),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(answers, st.floats(-1, 1), st.floats(0.3, 2), st.floats(-4, 4))
def test_map_is_the_argmax_of_a_grid(rows, mean, sd, start):
    shares = [min(right, k) / k for right, k, _, _ in rows]
    samples, a, b = ([row[i] for row in rows] for i in (1, 2, 3))
    prior = Prior(mean, sd)
    found = estimate(shares, a, b, samples or 1, prior, start=start)
    grid = np.linspace(-4, 4, 801)
    rough = grid[np.argmax(posterior(grid, shares, a, b, samples, prior))]
    fine = np.clip(np.linspace(rough - 0.01, rough + 0.01, 2001), -4, 4)
    assert found.value == pytest.approx(fine[np.argmax(posterior(fine, shares, a, b, samples, prior))], abs=1e-4)
    # the error is the curvature of the log posterior there
    h = 1e-3
    around = posterior(np.array([found.value - h, found.value, found.value + h]), shares, a, b, samples, prior)
    assert found.se == pytest.approx((-(around[0] - 2 * around[1] + around[2]) / h**2) ** -0.5, rel=1e-3)


def test_no_answers_leave_the_prior():
    assert estimate([], [], [], prior=Prior(0.3, 2.0)) == Ability(pytest.approx(0.3), 2.0)


def test_steep_items_far_away_do_not_throw_newton_off():
    """Two steep items that contradict each other: Newton's step from the far end would leave the scale."""
    found = estimate([1, 0, 1], [40, 40, 40], [-3, 3, 2.9], prior=Prior(0, 10), start=-4)
    assert -4 < found.value < 4
    again = estimate([1, 0, 1], [40, 40, 40], [-3, 3, 2.9], prior=Prior(0, 10), start=4)
    assert again.value == pytest.approx(found.value, abs=1e-8)


def test_ability_stays_on_the_scale():
    assert estimate([1] * 50, [3] * 50, [4] * 50, prior=Prior(0, 9)).value == 4.0
    assert estimate([0] * 50, [3] * 50, [-4] * 50, prior=Prior(0, 9)).value == -4.0


@pytest.mark.parametrize("wrong", [([1.5], [1], [0]), ([1, 0], [1], [0]), ([math.nan], [1], [0]), ([-0.1], [1], [0])])
def test_answers_that_are_none(wrong):
    with pytest.raises(ValueError, match="shares"):
        estimate(*wrong)


@pytest.mark.parametrize(("a", "b"), [(0.4, -2.0), (1.0, 0.0), (2.5, 1.3)])
def test_information_peaks_at_b_with_a_quarter_of_a_squared(a, b):
    assert float(information(b, a, b)) == pytest.approx(a * a / 4)
    peak = minimize_scalar(lambda theta: -float(information(theta, a, b)), bounds=(-6, 6), method="bounded")
    assert peak.x == pytest.approx(b, abs=1e-4)
    h = 1e-5  # information is (slope of P)² / (P (1 - P))
    slope = (chance(0.7 + h, a, b) - chance(0.7 - h, a, b)) / (2 * h)
    p = chance(0.7, a, b)
    assert float(information(0.7, a, b, samples=3)) == pytest.approx(float(3 * slope**2 / (p * (1 - p))), rel=1e-6)


def test_choice_is_the_best_first_and_of_equal_ones_the_first():
    a = np.array([1.0, 2.0, 2.0, 0.5, 2.0])
    b = np.array([0.0, 0.5, 0.5, 0.0, -0.5])
    assert most_informative(0.0, a, b, (), 3) == [1, 2, 4]
    assert most_informative(0.0, a, b, {1, 4}, 2) == [2, 0]
    assert most_informative(0.0, a, b, {0, 1, 2, 4}, 3) == [3]
    assert most_informative(0.0, a, b, range(5), 3) == []


def test_the_slope_of_the_fit_is_the_slope():
    draw = np.random.default_rng(1)
    shares, weights = draw.random((5, 7)), draw.integers(0, 4, (5, 7)).astype(float)
    chosen = fitting.Settings(0.8, 2.0, 0.4)
    for _ in range(5):
        x = draw.normal(size=5 + 14)
        off = check_grad(
            lambda x: fitting.objective(x, shares, weights, chosen)[0],
            lambda x: fitting.objective(x, shares, weights, chosen)[1],
            x,
        )
        assert off < 1e-6
