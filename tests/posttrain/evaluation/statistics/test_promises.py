"""What a 95 % interval and a 5 % test promise, by exact sums where the law is known and by simulation elsewhere.

Bounds are two-sided: an interval that is too wide, or a test that never speaks, breaks its promise too.
"""

import math

import numpy as np
import pytest
from scipy import stats

from posttrain.evaluation.statistics.estimates import estimate
from posttrain.evaluation.statistics.paired import UNCLEAR, interval, paired


def noise(rounds, share=0.05):
    """Three and a half standard errors of a share of so many rounds."""
    return 3.5 * math.sqrt(share * (1 - share) / rounds)


@pytest.mark.parametrize("n", [30, 100, 500])
def test_accuracy_of_one_sample_a_problem(n):
    """The sum over the binomial law, for chances over the whole range: near 95 % on average, and nowhere far below."""
    found = [estimate([1.0] * r + [0.0] * (n - r)) for r in range(n + 1)]
    low, high = (np.array([getattr(one, end) for one in found])[:, None] for end in ("low", "high"))
    p = np.linspace(0.05, 0.95, 181)
    covers = (stats.binom.pmf(np.arange(n + 1)[:, None], n, p) * ((low <= p) & (p <= high))).sum(axis=0)
    assert covers.mean() == pytest.approx(0.952, abs=0.006)
    assert covers.min() > 0.91


@pytest.mark.parametrize(("n", "rounds"), [(30, 4000), (100, 4000), (500, 2000)])
def test_accuracy_of_four_samples_a_problem(n, rounds):
    generator = np.random.default_rng(n)
    rows = generator.binomial(4, generator.beta(0.5, 0.9, (rounds, n))) / 4
    held = sum(one.low <= 0.5 / 1.4 <= one.high for one in map(estimate, rows))
    assert held / rounds == pytest.approx(0.95, abs=0.006 + noise(rounds))


@pytest.mark.parametrize(("m", "size"), [(25, 4), (100, 3)])
def test_accuracy_of_problems_in_clusters(m, size):
    """Parts of one exercise stand and fall together: over clusters 95 %, and problem by problem far fewer."""
    generator = np.random.default_rng(m)
    clusters = np.repeat(np.arange(m), size)
    rounds = 1500
    held = apart = 0
    for _ in range(rounds):
        p = generator.beta(1, 1.5, m)[clusters]
        x = generator.binomial(4, p) / 4
        one, other = estimate(x, clusters.tolist()), estimate(x)
        held += one.low <= 0.4 <= one.high
        apart += other.low <= 0.4 <= other.high
    assert held / rounds == pytest.approx(0.95, abs=0.012 + noise(rounds))
    assert apart / rounds < 0.85


def sides(a, b):
    return ({str(i): list(row) for i, row in enumerate(side)} for side in (a, b))


@pytest.mark.parametrize(
    ("n", "k", "rounds", "least"), [(30, 1, 1000, 0.003), (100, 1, 600, 0.015), (500, 1, 300, 0.01), (30, 4, 300, 0.02),
                                    (100, 4, 800, 0.03), (500, 4, 300, 0.02)]
)  # fmt: skip
def test_a_model_against_its_like(n, k, rounds, least):
    """The same chances on both sides: a verdict in at most 5 % of cases, and (but for McNemar's few steps) in about so many."""
    generator = np.random.default_rng(1000 * n + k)
    said = rejected = 0
    for _ in range(rounds):
        p = generator.beta(0.5, 0.9, n)
        a, b = ((generator.random((n, k)) < p[:, None]).astype(float) for _ in range(2))
        found = paired(*sides(a, b))
        rejected += found["p"] < 0.05
        said += found["verdict"] != UNCLEAR
        assert (found["verdict"] == UNCLEAR) or found["p"] < 0.05
    assert least <= rejected / rounds <= 0.05 + noise(rounds)
    assert said <= rejected


@pytest.mark.parametrize(("m", "size", "rounds"), [(40, 3, 200), (150, 3, 400)])
def test_a_model_against_its_like_in_clusters(m, size, rounds):
    """Two models that differ by exercise, one way as often as the other: 5 % over clusters, far more problem by problem."""
    generator = np.random.default_rng(m)
    clusters = {str(i): i // size for i in range(m * size)}
    rejected = apart = 0
    for _ in range(rounds):
        p, q = (np.repeat(generator.beta(1, 1, m), size) for _ in range(2))
        a, b = (generator.binomial(4, r)[:, None] / 4 for r in (p, q))
        rejected += paired(*sides(a, b), clusters)["p"] < 0.05
        apart += paired(*sides(a, b))["p"] < 0.05
    assert 0.01 <= rejected / rounds <= 0.05 + noise(rounds)
    assert apart / rounds > 0.12


@pytest.mark.parametrize(("n", "k", "rounds"), [(30, 1, 3000), (30, 4, 3000), (100, 4, 3000), (500, 1, 1500)])
def test_the_interval_of_a_difference(n, k, rounds):
    """A gain that is not nothing, larger on some problems: the interval holds it in 95 % of cases."""
    generator = np.random.default_rng(n + k)
    truth = held = 0.0
    grid = stats.beta.ppf((np.arange(20_000) + 0.5) / 20_000, 0.8, 0.9)
    truth = float(np.mean(grid * (1 - grid) * 0.5))
    for _ in range(rounds):
        p = generator.beta(0.8, 0.9, n)
        q = p + p * (1 - p) * 0.5
        d = (generator.binomial(k, q) - generator.binomial(k, p)) / k
        _, low, high, _ = interval(d)
        held += low <= truth <= high
    assert held / rounds == pytest.approx(0.95, abs=0.008 + noise(rounds))
