"""Intervals of shares and the bootstrap, against statsmodels and scipy, and what they cover."""

import numpy as np
import pytest
from scipy import stats

from posttrain.evaluation.statistics.bootstrap import bootstrap
from posttrain.evaluation.statistics.estimates import estimate, standard_error
from posttrain.evaluation.statistics.intervals import clopper_pearson, jeffreys, score


@pytest.mark.parametrize(("right", "n"), [(0, 12), (1, 30), (17, 40), (99, 100), (8, 8)])
def test_shares_against_statsmodels(right, n):
    proportion = pytest.importorskip("statsmodels.stats.proportion", reason="statsmodels is not installed (dev extra)")
    assert clopper_pearson(right, n) == pytest.approx(proportion.proportion_confint(right, n, method="beta"), abs=1e-9)
    assert score(right, n) == pytest.approx(proportion.proportion_confint(right, n, method="wilson"), abs=1e-9)
    if 0 < right < n:
        assert jeffreys(right, n) == pytest.approx(proportion.proportion_confint(right, n, method="jeffreys"))


@pytest.mark.parametrize("n", [10, 30])
def test_what_shares_cover_exactly(n):
    """Sums over the binomial law: Clopper-Pearson never below 95 %; the others near it on average; the normal one not."""
    shares = np.linspace(0.02, 0.98, 97)
    right = np.arange(n + 1)
    law = stats.binom.pmf(right[:, None], n, shares)

    def covers(bounds):
        low, high = np.array(bounds).T
        return (law * ((low[:, None] <= shares) & (shares <= high[:, None]))).sum(axis=0)

    assert covers([clopper_pearson(int(r), n) for r in right]).min() >= 0.95
    for one in (jeffreys, score):
        assert covers([one(int(r), n) for r in right]).mean() == pytest.approx(0.95, abs=0.012)
    p = right / n
    half = 1.96 * np.sqrt(p * (1 - p) / n)
    assert covers(np.stack([p - half, p + half], axis=1)).mean() < 0.91


@pytest.mark.parametrize("wrong", [(3, 2), (-1, 2), (0, 0)])
def test_shares_that_cannot_be(wrong):
    for one in (clopper_pearson, jeffreys, score):
        with pytest.raises(ValueError, match="cannot be"):
            one(*wrong)


@pytest.mark.parametrize(("method", "theirs"), [("percentile", "percentile"), ("bca", "BCa")])
def test_bootstrap_against_scipy(method, theirs):
    x = np.random.default_rng(1).beta(0.5, 1.5, 40)
    for statistic in (np.mean, np.median):
        found = bootstrap(x, statistic, method=method, resamples=4000, seed=2)
        other = stats.bootstrap((x,), statistic, method=theirs, n_resamples=8000, rng=3, vectorized=False)
        width = other.confidence_interval.high - other.confidence_interval.low
        assert found.low == pytest.approx(other.confidence_interval.low, abs=0.08 * width)
        assert found.high == pytest.approx(other.confidence_interval.high, abs=0.08 * width)
        assert found.value == statistic(x)
        assert found.se == pytest.approx(other.standard_error, rel=0.08)


def test_both_corrections_of_bca_against_scipy():
    """A skewed sample and a biased statistic: each correction moves a bound by far more than the resamples' noise."""
    x = np.random.default_rng(3).lognormal(0, 1.5, 15)

    def spread(values, axis=-1):
        return np.std(values, axis=axis)

    found = bootstrap(x, lambda v: float(spread(v)), resamples=20_000, seed=2)
    other, plain = (
        stats.bootstrap((x,), spread, method=method, n_resamples=40_000, rng=3).confidence_interval
        for method in ("BCa", "percentile")
    )
    width = plain.high - plain.low
    assert min(abs(other.low - plain.low), abs(other.high - plain.high)) > 0.07 * width
    assert found.low == pytest.approx(other.low, abs=0.02 * width)
    assert found.high == pytest.approx(other.high, abs=0.03 * width)


def test_clusters_are_drawn_whole():
    generator = np.random.default_rng(4)
    clusters = np.repeat(np.arange(25), 4)
    x = np.clip(generator.beta(2, 2, 25)[clusters] + generator.normal(0, 0.05, 100), 0, 1)
    found = bootstrap(x, method="percentile", clusters=clusters)
    assert found.se == pytest.approx(standard_error(x, clusters)[0], rel=0.1)
    assert found.method.endswith("25 clusters")
    assert bootstrap(x).se < 0.7 * found.se


def test_items_are_drawn_not_rows():
    """n = 30, k = 16: over problems the spread is the item standard error; over pooled rows it would be far less."""
    generator = np.random.default_rng(5)
    x = (generator.random((30, 16)) < generator.beta(0.5, 0.9, 30)[:, None]).astype(float)
    items = bootstrap(x)
    assert items.se == pytest.approx(standard_error(x.mean(axis=1))[0], rel=0.08)
    assert bootstrap(x.ravel()).se < 0.4 * items.se
    both = bootstrap(x, inner=True)
    within = np.mean(x.var(axis=1)) / 16 / 30
    assert both.se**2 == pytest.approx(items.se**2 + within, rel=0.15)


def test_the_bootstrap_covers():
    generator = np.random.default_rng(6)
    held = 0
    for i in range(250):
        x = (generator.random((60, 4)) < generator.beta(0.5, 0.9, 60)[:, None]).mean(axis=1)
        found = bootstrap(x, resamples=300, seed=i)
        held += found.low <= 0.5 / 1.4 <= found.high
    assert held / 250 == pytest.approx(0.94, abs=0.04)


def test_z_covers_less_than_t():
    """Published for n = 30, k = 16: t 0.949, z 0.940."""
    generator = np.random.default_rng(7)
    p = generator.beta(0.5, 0.9, (20_000, 30))
    rows = generator.binomial(16, p) / 16
    means, se = rows.mean(axis=1), rows.std(axis=1, ddof=1) / np.sqrt(30)
    for quantile, published in ((stats.t.ppf(0.975, 29), 0.949), (stats.norm.ppf(0.975), 0.940)):
        assert np.mean(np.abs(means - 0.5 / 1.4) <= quantile * se) == pytest.approx(published, abs=0.008)
    one = estimate(rows[0])
    assert one.high - one.low == pytest.approx(2 * stats.t.ppf(0.975, 29) * se[0])


def test_one_problem_and_equal_problems():
    assert bootstrap([0.5]).low is None
    assert bootstrap([0.2, 0.4], clusters=["a", "a"]).high is None
    alike = bootstrap([0.25] * 6)
    assert (alike.low, alike.high) == (0.25, 0.25)


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ([], {}),
        ([0.1, 0.2], {"method": "basic"}),
        ([0.1, 0.2], {"inner": True}),
        ([0.1, 0.2], {"clusters": ["a"]}),
        ([0.1, 0.2], {"statistic": lambda x: float("nan")}),
    ],
)
def test_what_the_bootstrap_refuses(values, options):
    with pytest.raises(ValueError, match=r"values|method|inner|clusters|statistic"):
        bootstrap(values, **options)
