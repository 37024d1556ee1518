"""The figures against statsmodels, scipy and counting by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.judging import measures

BOOLS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40)


@settings(deadline=None)
@given(BOOLS)
def test_kappa_is_cohens(pairs):
    from statsmodels.stats.inter_rater import cohens_kappa

    table = np.zeros((2, 2))
    for label, verdict in pairs:
        table[int(label), int(verdict)] += 1
    found = measures.kappa(np.array(pairs, dtype=float))
    with np.errstate(all="ignore"):
        known = cohens_kappa(table, return_results=False)
    assert found == (pytest.approx(known, abs=1e-12) if math.isfinite(known) else 0.0)


def test_kappa_of_a_published_table():
    """Cohen's 1960 kind of table: 20 and 15 on the diagonal, 5 and 10 beside it: (0.7 - 0.5) / 0.5."""
    rows = [(1, 1)] * 20 + [(1, 0)] * 5 + [(0, 1)] * 10 + [(0, 0)] * 15
    assert measures.kappa(np.array(rows, dtype=float)) == pytest.approx(0.4)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(-1, 1)), min_size=3, max_size=30))
def test_the_slope_is_least_squares(rows):
    from scipy import stats

    table = np.array(rows, dtype=float)
    known = stats.linregress(table[:, 0], table[:, 1]).slope if np.ptp(table[:, 0]) else 0.0
    assert measures.slope(table) == pytest.approx(known, abs=1e-9)


@settings(deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=2, max_size=20))
def test_self_consistency_is_the_agreement_in_fleiss_kappa(answers):
    from statsmodels.stats.inter_rater import fleiss_kappa

    counts = np.array([[row.count(True), row.count(False)] for row in answers])
    seen = float(np.mean(measures.alike(answers)))
    shares = counts.sum(0) / counts.sum()
    chance = float(shares @ shares)
    if chance < 1:
        assert (seen - chance) / (1 - chance) == pytest.approx(fleiss_kappa(counts), abs=1e-9)
    else:
        assert seen == 1


def test_failed_ones_are_no_answers():
    assert measures.alike([[True, None, True], [True, None, None], [True, False, None]]) == [1.0, None, 0.0]
    assert measures.changed([True, None, False, True], [False, True, True, True]) == [-1.0, None, 1.0, 0.0]
    found = measures.agreement([True, True, False], [True, None, True], ["a", "b", "c"])
    assert (found["accuracy"].value, found["precision"].value, found["recall"].value) == (0.5, 0.5, 1.0)


def test_agreement_by_hand():
    labels = [True] * 6 + [False] * 6
    verdicts = [True] * 4 + [False] * 2 + [True] + [False] * 5
    found = measures.agreement(labels, verdicts, [str(k) for k in range(12)])
    assert found["accuracy"].value == pytest.approx(9 / 12)
    assert found["precision"].value == pytest.approx(4 / 5)
    assert found["recall"].value == pytest.approx(4 / 6)
    assert (found["met"].value, found["labelled_met"].value) == (pytest.approx(5 / 12), pytest.approx(0.5))
    from statsmodels.stats.proportion import proportion_confint

    assert (found["accuracy"].low, found["accuracy"].high) == pytest.approx(
        proportion_confint(9, 12, method="wilson"), abs=1e-9
    )


def test_intervals_are_over_prompts_and_not_over_examples():
    """Ten times the same rows of each prompt are no more known."""
    rng = np.random.default_rng(0)
    labels = rng.random(30) < 0.5
    verdicts = np.where(rng.random(30) < 0.8, labels, ~labels)
    names = [str(k) for k in range(30)]
    once = measures.agreement(list(labels), list(verdicts), names)
    often = measures.agreement(list(labels) * 10, list(verdicts) * 10, names * 10)
    for name in ("accuracy", "kappa", "precision", "recall"):
        one, many = once[name], often[name]
        assert many.value == pytest.approx(one.value)
        assert many.high - many.low > 0.7 * (one.high - one.low)


def test_precision_has_the_interval_of_a_ratio_over_clusters():
    """Against statsmodels' cluster-robust error of a mean among those that are met."""
    import statsmodels.api as sm

    rng = np.random.default_rng(1)
    clusters = rng.integers(0, 15, 120)
    labels = rng.random(120) < 0.3 + 0.04 * clusters
    verdicts = rng.random(120) < 0.6
    found = measures.agreement(list(labels), list(verdicts), [str(c) for c in clusters])["precision"]
    x, groups = labels[verdicts].astype(float), clusters[verdicts]
    fit = sm.OLS(x, np.ones_like(x)).fit(cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False})
    m = len(set(groups))
    assert found.se == pytest.approx(float(fit.bse[0]) * math.sqrt(m / (m - 1)), rel=1e-6)


def test_a_bias_for_length_is_seen_and_none_is_not():
    lengths = [10 * 2**k for k in range(8)] * 6
    labels = [k % 2 == 0 for k in range(48)]
    names = [str(k) for k in range(48)]
    fair = measures.by_length(lengths, labels, labels, names)["per_doubling"]
    assert fair.value == 0
    long = measures.by_length(lengths, labels, [n > 200 for n in lengths], names)["per_doubling"]
    assert long.low > 0
