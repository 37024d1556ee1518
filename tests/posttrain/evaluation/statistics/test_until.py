"""Sampling until success: exact sums over the negative binomial law, published figures, coverage."""

import math

import numpy as np
import pytest
from scipy import stats

from posttrain.evaluation.statistics.until import Until, at_most, pass_until


def draws(p, r, n=20_000, seed=0):
    """Until the r-th success."""
    return stats.nbinom.rvs(r, p, size=n, random_state=seed) + r


@pytest.mark.parametrize(("r", "p", "ratio"), [(1, 0.01, 4.6), (1, 0.001, 7.0), (2, 0.01, 1.95), (10, 0.01, 1.11)])
def test_the_likeliest_estimate_is_too_high(r, p, ratio):
    found = np.mean([Until(r, r, int(k)).likeliest() for k in draws(p, r)]) / p
    assert found == pytest.approx(ratio, rel=0.05)
    if r == 1:  # E[1/K] = -p ln p / (1 - p)
        assert found == pytest.approx(-math.log(p) / (1 - p), rel=0.05)


@pytest.mark.parametrize(("r", "p"), [(2, 0.3), (3, 0.05), (10, 0.02)])
def test_the_unbiased_estimate(r, p):
    k = np.arange(r, 40 * r / p).astype(int)
    law = stats.nbinom.pmf(k - r, r, p)
    assert law.sum() == pytest.approx(1, abs=1e-9)
    values = np.array([Until(r, r, int(n)).unbiased() for n in k])
    assert law @ values == pytest.approx(p, rel=1e-6)


def test_spread_at_ten_successes():
    """Published: relative standard deviation 0.35 of (r-1)/(K-1), 0.39 of r/K."""
    k = draws(0.001, 10)
    assert np.std([Until(10, 10, int(n)).unbiased() for n in k]) / 0.001 == pytest.approx(0.35, abs=0.012)
    assert np.std([Until(10, 10, int(n)).likeliest() for n in k]) / 0.001 == pytest.approx(0.39, abs=0.015)


def outcomes(p, r, cap):
    """Every end of sampling with its chance."""
    for k in range(r, cap + 1):
        yield Until(r, r, k), float(stats.nbinom.pmf(k - r, r, p))
    for s in range(r):
        yield Until(r, s, cap), float(stats.binom.pmf(s, cap, p))


@pytest.mark.parametrize(("p", "r", "cap"), [(0.02, 3, 100), (0.3, 2, 6), (0.001, 5, 200), (0.9, 4, 5)])
def test_a_cap_leaves_the_mean_unbiased_and_the_interval_exact(p, r, cap):
    every = list(outcomes(p, r, cap))
    assert sum(chance for _, chance in every) == pytest.approx(1)
    assert sum(one.unbiased() * chance for one, chance in every) == pytest.approx(p, rel=1e-9)
    below = sum(chance for one, chance in every if one.interval()[0] > p)
    above = sum(chance for one, chance in every if one.interval()[1] < p)
    assert below <= 0.025 + 1e-9
    assert above <= 0.025 + 1e-9


def test_small_chances_are_chi_squared():
    one = Until(10, 10, 250_000)
    low, high = one.interval()
    assert low == pytest.approx(stats.chi2.ppf(0.025, 20) / 500_000, rel=1e-3)
    assert high == pytest.approx(stats.chi2.ppf(0.975, 20) / 500_000, rel=1e-3)


def test_no_success_before_the_cap():
    assert at_most(0, 10_000) == pytest.approx(3 / 10_000, rel=0.01)
    assert Until(2, 0, 10_000).interval() == (0.0, pytest.approx(3.69 / 10_000, rel=0.01))
    assert Until(2, 0, 10_000).unbiased() == 0.0
    assert at_most(4, 4) == 1.0
    assert Until(2, 2, 2).interval()[1] == 1.0


def test_at_most_against_scipy():
    for s, n in ((0, 5), (3, 40), (11, 12)):
        one_sided = stats.binomtest(s, n, alternative="less").proportion_ci(method="exact")
        assert at_most(s, n) == pytest.approx(one_sided.high)


def test_a_set_of_problems():
    found = pass_until([Until(3, 3, 10), Until(3, 3, 21), Until(3, 1, 50)])
    assert found.value == pytest.approx((2 / 9 + 2 / 20 + 1 / 50) / 3)
    assert found.low < found.value < found.high


@pytest.mark.parametrize("wrong", [(0, 0, 1), (2, 3, 5), (2, 2, 1), (2, 0, 0), (1, -1, 3)])
def test_what_cannot_be(wrong):
    with pytest.raises(ValueError, match="cannot be"):
        Until(*wrong)


def test_one_success_has_no_unbiased_estimate():
    with pytest.raises(ValueError, match="two or more"):
        Until(1, 1, 9).unbiased()
