"""Estimates against brute force, closed forms, scipy, and the coverage that a 95 % interval promises."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from posttrain.evaluation.statistics.estimates import (
    estimate,
    majority,
    metrics,
    pass_at,
    powers,
    rerun_error,
    standard_error,
    wilson,
)


def test_pass_at_is_the_share_of_subsets_with_a_right_sample():
    for n in range(1, 8):
        for c in range(n + 1):
            samples = [1] * c + [0] * (n - c)
            for k in range(1, n + 1):
                subsets = list(itertools.combinations(range(n), k))
                share = sum(any(samples[i] for i in s) for s in subsets) / len(subsets)
                assert pass_at(c, n, k)[0] == pytest.approx(share, abs=1e-12)


@given(st.integers(1, 300), st.data())
def test_pass_at_closed_form_and_order(n, data):
    c = data.draw(st.integers(0, n))
    k = data.draw(st.integers(1, n))
    exact = 1 - math.comb(n - c, k) / math.comb(n, k)
    assert pass_at(c, n, k)[0] == pytest.approx(exact, abs=1e-9)
    assert pass_at(c, n, 1)[0] == pytest.approx(c / n, abs=1e-12)
    if k > 1:
        assert pass_at(c, n, k)[0] >= pass_at(c, n, k - 1)[0] - 1e-12
    assert pass_at(c, n, n)[0] == float(c > 0)


def test_pass_at_is_unbiased_where_the_plug_in_is_not():
    generator = np.random.default_rng(1)
    for p in (0.02, 0.2):
        right = generator.binomial(16, p, size=400_000)
        truth = 1 - (1 - p) ** 8
        assert pass_at(right, 16, 8).mean() == pytest.approx(truth, abs=0.0015)
        assert np.mean(1 - (1 - right / 16) ** 8) < truth - 0.02


@pytest.mark.parametrize(("right", "samples", "k"), [(1, 2, 3), (3, 2, 1), (-1, 2, 1), (1, 2, 0)])
def test_pass_at_refuses_what_has_no_estimator(right, samples, k):
    with pytest.raises(ValueError, match="pass@"):
        pass_at(right, samples, k)


def brute_majority(scores, classes):
    """Every answer that no other answer outnumbers, each drawn with equal chance."""
    voted = [c for c in classes if c is not None]
    if not voted:
        return 0.0
    counts = Counter(voted)
    leaders = [c for c in counts if all(counts[c] >= other for other in counts.values())]
    return sum(next(s for s, d in zip(scores, classes, strict=True) if d == c) for c in leaders) / len(leaders)


def test_majority_of_every_small_vote():
    # Class 0 is the right answer, so scores follow from classes.
    for k in range(1, 6):
        for classes in itertools.product([0, 1, 2, None], repeat=k):
            scores = [1.0 if c == 0 else 0.0 for c in classes]
            assert majority(scores, classes) == brute_majority(scores, classes)


matrices = st.integers(1, 6).flatmap(
    lambda k: st.lists(st.lists(st.sampled_from([0.0, 1.0]), min_size=k, max_size=k), min_size=1, max_size=12)
)


@given(matrices)
def test_metrics_agree_with_each_other(scores):
    k = len(scores[0])
    votes = [["right" if s else f"wrong {j}" for j, s in enumerate(row)] for row in scores]
    found = metrics(scores, votes)
    mean = float(np.mean(scores))
    assert found["accuracy"] == found[f"avg@{k}"]
    assert found["accuracy"]["value"] == pytest.approx(mean)
    assert found["pass@1"]["value"] == pytest.approx(mean)
    values = [found[f"pass@{size}"]["value"] for size in powers(k)]
    assert values == sorted(values)
    if k == 1:
        assert found["maj@1"]["value"] == pytest.approx(mean)
    assert found[f"maj@{k}"]["value"] <= found[f"pass@{k}"]["value"] + 1e-12
    for one in found.values():
        if len(scores) == 1:
            assert one["low"] is None
            assert one["high"] is None
            assert one["se"] is None
            assert one["method"].startswith("unknown")
        else:
            assert 0 <= one["low"] <= one["value"] <= one["high"] <= 1
            assert one["high"] - one["low"] > 1e-3, "an interval never collapses"


def test_powers():
    assert [powers(k) for k in (1, 2, 3, 8, 10)] == [[1], [1, 2], [1, 2, 3], [1, 2, 4, 8], [1, 2, 4, 8, 10]]


@given(st.integers(2, 400), st.data())
def test_single_samples_get_wilsons_interval(n, data):
    c = data.draw(st.integers(0, n))
    found = estimate([1] * c + [0] * (n - c))
    low, high = stats.binomtest(c, n).proportion_ci(method="wilson")
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))
    assert found.method == f"Wilson over {n} problems"


@given(st.lists(st.floats(0.3, 0.7), min_size=12, max_size=60))
def test_means_of_several_samples_get_the_t_interval(values):
    if np.ptp(values) < 1e-6:
        return
    found = estimate(values)
    assert found.method.startswith("t over")
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.se == pytest.approx(stats.sem(values))


def test_no_problem_one_problem_one_cluster():
    assert estimate([]).value is None
    assert estimate([0.25]) == estimate([0.25], ["a"])
    assert estimate([0.25]).low is None
    assert estimate([0.25]).value == 0.25
    assert estimate([0.25, 0.75], ["a", "a"]).high is None


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_equal_values_still_have_an_interval(share):
    found = estimate([share] * 8)
    low, high = wilson(share, 8, stats.t.ppf(0.975, 7) if share == 0.5 else stats.norm.ppf(0.975))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.high - found.low > 0.2


@settings(max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 4)), min_size=2, max_size=30))
def test_cluster_error_against_the_double_sum(pairs):
    values, clusters = zip(*pairs, strict=True)
    x = np.array(values)
    m = len(set(clusters))
    se, found = standard_error(x, clusters)
    assert found == m
    if m < 2:
        assert math.isnan(se)
        return
    d = x - x.mean()
    double = sum(d[i] * d[j] for i in range(len(x)) for j in range(len(x)) if clusters[i] == clusters[j])
    assert se**2 == pytest.approx(m / (m - 1) * double / len(x) ** 2, abs=1e-12)


def test_cluster_error_against_statsmodels():
    statsmodels = pytest.importorskip("statsmodels.api")
    generator = np.random.default_rng(3)
    clusters = generator.integers(0, 12, 80)
    x = np.clip(generator.normal(0.5, 0.1, 80) + 0.1 * generator.normal(size=12)[clusters], 0, 1)
    fit = statsmodels.OLS(x, np.ones(80)).fit(
        cov_type="cluster", cov_kwds={"groups": clusters, "use_correction": True}
    )
    # statsmodels multiplies by m/(m-1) * (n-1)/(n-k) with k = 1 parameter: the same.
    assert standard_error(x, clusters)[0] == pytest.approx(float(fit.bse[0]))


def test_own_cluster_each_is_no_clustering():
    x = np.random.default_rng(0).uniform(size=40)
    assert standard_error(x)[0] == pytest.approx(stats.sem(x))
    assert standard_error(x, list(range(40)))[0] == pytest.approx(stats.sem(x))


def test_values_outside_are_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        estimate([0.5, 1.5])


def draw(generator, problems, k):
    """30 problems of which many are nearly never or nearly always solved, as in small contest sets."""
    p = generator.beta(0.5, 0.9, size=problems)
    return p, (generator.random((problems, k)) < p[:, None]).astype(float)


def test_intervals_hold_what_they_promise():
    """Published simulation: over problems 0.95, over n*k rows 0.53, with the rerun error 0.42 (n = 30, k = 16)."""
    generator = np.random.default_rng(7)
    truth = 0.5 / 1.4
    rounds = 1500
    held, rows, rerun = 0, 0, 0
    for _ in range(rounds):
        _, x = draw(generator, 30, 16)
        found = estimate(x.mean(axis=1))
        held += found.low <= truth <= found.high
        half = 1.96 * math.sqrt(found.value * (1 - found.value) / x.size)
        rows += abs(found.value - truth) <= half
        rerun += abs(found.value - truth) <= 1.96 * rerun_error(list(x))
    assert held / rounds == pytest.approx(0.949, abs=0.02)
    assert rows / rounds == pytest.approx(0.533, abs=0.05)
    assert rerun / rounds == pytest.approx(0.423, abs=0.05)


def test_rerun_error_is_the_spread_of_reruns():
    """Published: 6.3, 3.2, 1.6, 0.8 points at k = 1, 4, 16, 64 for 30 problems of Beta(0.5, 0.9)."""
    generator = np.random.default_rng(11)
    for k, published in ((4, 3.2), (16, 1.6), (64, 0.8)):
        predicted, seen = [], []
        for _ in range(40):
            p, _ = draw(generator, 30, 1)
            reruns = (generator.random((60, 30, k)) < p[None, :, None]).mean(axis=2)
            seen.append(reruns.mean(axis=1).var(ddof=1))
            predicted.append(rerun_error(list((generator.random((30, k)) < p[:, None]).astype(float))) ** 2)
        assert math.sqrt(np.mean(seen)) * 100 == pytest.approx(published, rel=0.08)
        assert math.sqrt(np.mean(predicted)) == pytest.approx(math.sqrt(np.mean(seen)), rel=0.08)
    assert rerun_error([[1.0], [0.0]]) is None


@pytest.mark.parametrize(("shape", "k"), [((0.05, 2.0), 4), ((2.0, 0.05), 4), ((0.02, 0.5), 16)])
def test_intervals_near_the_edges_do_not_undercover(shape, k):
    """Almost all problems at 0 (or 1): the t interval would often have no width."""
    generator = np.random.default_rng(5)
    truth = shape[0] / sum(shape)
    held, collapsed = 0, 0
    for _ in range(800):
        p = generator.beta(*shape, size=30)
        x = (generator.random((30, k)) < p[:, None]).astype(float).mean(axis=1)
        found = estimate(x)
        held += found.low <= truth <= found.high
        collapsed += np.ptp(x) == 0
    assert held / 800 >= 0.93
    assert shape != (0.05, 2.0) or collapsed > 100, "the case that matters is among them"


def test_uneven_samples_are_refused():
    with pytest.raises(ValueError, match="same number"):
        metrics([[1.0], [1.0, 0.0]], [["a"], ["a", "b"]])
