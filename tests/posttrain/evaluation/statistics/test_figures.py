"""Published figures and rules of thumb that no other test here has, each beside its closed form or exact sum."""

import math

import numpy as np
import pytest
from scipy import stats

from posttrain.evaluation.statistics.conformal import conformal_pvalue
from posttrain.evaluation.statistics.curves import best_of_n, maj_at
from posttrain.evaluation.statistics.estimates import estimate, metrics, pass_at, rerun_error, standard_error
from posttrain.evaluation.statistics.power import detectable
from posttrain.evaluation.statistics.until import Until

SPREAD = 0.5 * 0.9 / (1.4**2 * 2.4)
"""Variance of chances of Beta(0.5, 0.9), and ..."""
NOISE = 0.5 * 0.9 / (1.4 * 2.4)
"""... the mean of p (1 - p)."""


@pytest.mark.parametrize(("k", "item", "rerun"), [(1, 8.75, 6.68), (4, 6.56, 3.34), (8, 6.12, 2.36), (16, 5.89, 1.67), (32, 5.77, 1.18), (64, 5.71, 0.84)])  # fmt: skip
def test_both_errors_of_thirty_problems(k, item, rerun):
    """(spread + noise/k)/n over problems, noise/(k n) for the same ones again.

    Published for k = 1 ... 64: rerun 6.3, 3.2, 2.3, 1.6, 1.1, 0.8, item 9.2 to 6.7 points. Those are of one draw of thirty
    chances, which the published numbers show themselves: 9.2^2 - 6.7^2 = 6.3^2. The law of the chances gives what is here.
    """
    assert 100 * math.sqrt((SPREAD + NOISE / k) / 30) == pytest.approx(item, abs=0.006)
    assert 100 * math.sqrt(NOISE / k / 30) == pytest.approx(rerun, abs=0.006)
    assert math.sqrt(9.2**2 - 6.7**2) == pytest.approx(6.3, abs=0.05)
    generator = np.random.default_rng(k)
    rounds = 1500
    right = generator.binomial(k, generator.beta(0.5, 0.9, (rounds, 30)))
    found = math.sqrt(np.mean([standard_error(row / k)[0] ** 2 for row in right]))
    assert found * 100 == pytest.approx(item, rel=0.02)
    if k > 1:
        again = [rerun_error([[1.0] * c + [0.0] * (k - c) for c in row]) for row in right[:300]]
        assert math.sqrt(np.mean(np.square(again))) * 100 == pytest.approx(rerun, rel=0.04)


def test_rules_of_thumb():
    """1.8 points for MATH-500 at 80 %; about 0.8 points for 60 problems asked 32 to 64 times; 30 problems vary by 9.1 at most."""
    assert estimate([1.0] * 400 + [0.0] * 100).se * 100 == pytest.approx(1.8, abs=0.02)
    assert [100 * math.sqrt(NOISE / 60 / k) for k in (32, 64)] == pytest.approx([0.8, 0.6], abs=0.04)
    assert max(standard_error([1.0] * c + [0.0] * (30 - c))[0] for c in range(31)) * 100 == pytest.approx(9.1, abs=0.2)
    assert detectable(30, SPREAD) * 100 > 15, "one set of 30 cannot show 5 points for problems in general"


@pytest.mark.parametrize(("p", "truth", "plug_in"), [(0.02, 0.1492, 0.1216), (0.2, 0.8322, 0.7581)])
def test_pass_at_8_of_16(p, truth, plug_in):
    """Sums over the binomial law. Published, by simulation: unbiased .1486 and .8324, plug-in .1216 and .7581."""
    right = np.arange(17)
    law = stats.binom.pmf(right, 16, p)
    assert law @ pass_at(right, 16, 8) == pytest.approx(1 - (1 - p) ** 8, abs=1e-12)
    assert 1 - (1 - p) ** 8 == pytest.approx(truth, abs=5e-5)
    assert law @ (1 - (1 - right / 16) ** 8) == pytest.approx(plug_in, abs=6e-4)


def test_samples_that_were_not_drawn_do_not_halve_the_score():
    """Eight samples a problem and a divisor of 16, 32, 64 once gave .219, .109, .055: here pass@1 is the mean of what there is."""
    rows = [[1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0]] * 20
    found = metrics(rows, [["a"] * 8] * 20)
    assert found["pass@1"]["value"] == found["avg@8"]["value"] == pytest.approx(3 / 8)
    assert "pass@16" not in found
    with pytest.raises(ValueError, match="pass@16"):
        pass_at(3, 8, 16)


@pytest.mark.parametrize(("r", "p", "ratio"), [(1, 0.01, 4.652), (1, 0.001, 6.915), (2, 0.01, 1.926), (2, 0.001, 1.988), (10, 0.01, 1.110), (10, 0.001, 1.111)])  # fmt: skip
def test_how_far_the_likeliest_is_off(r, p, ratio):
    """Exact sums over the negative binomial. Published: 4.6 and 7.0 (r = 1), 1.9 to 2.0, 1.11; near r/(r-1)."""
    k = np.arange(r, int(60 * r / p))
    law = stats.nbinom.pmf(k - r, r, p)
    some = k[:: max(1, k.size // 50)]
    assert [Until(r, r, int(n)).likeliest() for n in some] == pytest.approx(list(r / some))
    assert law @ (r / k) / p == pytest.approx(ratio, abs=0.002)
    if r == 1:
        assert -math.log(p) / (1 - p) == pytest.approx(ratio, abs=0.002)
        return
    values = (r - 1) / (k - 1)
    assert [Until(r, r, int(n)).unbiased() for n in some] == pytest.approx(list((r - 1) / (some - 1)))
    assert law @ values / p == pytest.approx(1, abs=1e-9)
    if r > 2:  # published: 0.35, about sqrt((1-p)/(r-2)); sqrt(1/r) = 0.32 says too little
        spread = math.sqrt(law @ values**2 - p * p) / p
        assert spread == pytest.approx(math.sqrt((1 - p) / (r - 2)), rel=0.01)
        assert spread > math.sqrt(1 / r) * 1.1


@pytest.mark.parametrize(("pool", "bare"), [(20, 9 / 21), (240, 97 / 241)])
def test_a_rule_without_the_ones(pool, bare):
    """Takeover where at least 0.6 of the pool is below: published .432 and .405 by simulation, exactly 9/21 and 97/241."""
    assert bare == pytest.approx({20: 0.432, 240: 0.405}[pool], abs=0.004)
    stored = np.arange(pool) + 0.5
    places = [conformal_pvalue(float(at), stored) for at in range(pool + 1)]
    assert np.mean(np.array(places) <= 0.4) <= 0.4 < bare
    assert sum(at / pool <= 0.4 for at in range(pool + 1)) / (pool + 1) == pytest.approx(bare)


def test_a_pool_of_sixteen_is_coarse():
    found = sorted({conformal_pvalue(score, range(16)) for score in np.linspace(-1, 16, 200)})
    assert found == pytest.approx([(i + 1) / 17 for i in range(17)])


@pytest.mark.parametrize("n", [1, 4, 16])
def test_best_of_n_by_the_published_weights(n):
    """sum over ranks of C(N-j, n-1)/C(N, n) right_j, written out."""
    generator = np.random.default_rng(n)
    right = (generator.random(24) < 0.4).astype(float)
    scores = generator.permutation(24).astype(float)
    ranked = right[np.argsort(-scores)]
    weights = [math.comb(24 - j, n - 1) / math.comb(24, n) for j in range(1, 25)]
    assert sum(weights) == pytest.approx(1)
    assert best_of_n(scores, right, n) == pytest.approx(float(np.dot(weights, ranked)))


def test_voting_by_the_exact_law():
    """maj@4 and maj@16 of chances Beta(.6, .8) with wrong answers .5/.3/.2, by sums over the multinomial law: .480 and .529.

    Published, of one draw of 4,000 chances with mean .44 (the law's is .4286): .487 and .540.
    """
    places = np.linspace(0, 1, 201)
    p = stats.beta.ppf((places[:-1] + places[1:]) / 2, 0.6, 0.8)
    for n, exact, published in ((4, 0.480, 0.487), (16, 0.529, 0.540)):
        counts = np.array([(a, b, c, n - a - b - c) for a in range(n + 1) for b in range(n + 1 - a) for c in range(n + 1 - a - b)])  # fmt: skip
        names = [["right"] * a + ["x"] * b + ["y"] * c + ["z"] * d for a, b, c, d in counts]
        votes = np.array([maj_at(row, [float(v == "right") for v in row], n) for row in names])
        law = [stats.multinomial.pmf(counts, n, [q, *((1 - q) * np.array([0.5, 0.3, 0.2]))]) for q in p]
        found = float(np.mean(np.array(law) @ votes))
        assert found == pytest.approx(exact, abs=0.002)
        assert found == pytest.approx(published, abs=0.015)
