"""The paired test against scipy, enumeration and known power figures."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from posttrain.evaluation.statistics.paired import (
    interval,
    mcnemar,
    paired,
    sign_flip,
    verdict,
)


def sides(a, b):
    return ({str(i): list(s) for i, s in enumerate(side)} for side in (a, b))


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_test_on_discordant_pairs(better, worse):
    n = better + worse
    tail = sum(math.comb(n, i) for i in range(min(better, worse) + 1)) / 2**n
    assert mcnemar(better, worse) == pytest.approx(min(1.0, 2 * tail) if better != worse else 1.0)


def test_mcnemar_against_statsmodels():
    contingency = pytest.importorskip("statsmodels.stats.contingency_tables")
    for better, worse in ((9, 2), (0, 6), (14, 13)):
        assert mcnemar(better, worse) == pytest.approx(
            contingency.mcnemar([[50, better], [worse, 30]], exact=True).pvalue
        )


@given(st.lists(st.sampled_from([-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=9))
def test_sign_flips_against_enumeration(d):
    flips = [
        abs(sum(s * x for s, x in zip(signs, d, strict=True))) for signs in itertools.product((1, -1), repeat=len(d))
    ]
    assert sign_flip(d) == pytest.approx(sum(f >= abs(sum(d)) - 1e-9 for f in flips) / len(flips))


def test_sign_flips_against_scipy():
    d = np.random.default_rng(2).normal(0.15, 0.4, 40)
    found = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=50_000, rng=1)
    assert sign_flip(d) == pytest.approx(found.pvalue, abs=0.01)


@pytest.mark.parametrize(
    "quarters", [[4] * 14 + [-4] * 8, [4] * 30 + [-4] * 17, [1, 1, 2, 3, -1, -2] * 7, [1, -1] * 12]
)
def test_random_sign_flips_against_the_exact_law(quarters):
    """All 2^n patterns of more than 16 differences, by convolving the laws of single ones (in quarters)."""
    law = {0: 1.0}
    for size in map(abs, quarters):
        halves: dict[int, float] = {}
        for total, chance in law.items():
            for turned in (total - size, total + size):
                halves[turned] = halves.get(turned, 0.0) + chance / 2
        law = halves
    exact = sum(chance for total, chance in law.items() if abs(total) >= abs(sum(quarters)))
    found = sign_flip(np.array(quarters) / 4)
    assert found == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 100_000) + 1e-4)


def test_many_problems_get_the_paired_t_test():
    generator = np.random.default_rng(4)
    p = generator.beta(0.5, 0.5, 300)
    a = (generator.random((300, 4)) < p[:, None]).astype(float)
    b = (generator.random((300, 4)) < np.minimum(1, p + 0.06)[:, None]).astype(float)
    found = paired(*sides(a, b))
    reference = stats.ttest_rel(b.mean(axis=1), a.mean(axis=1))
    low, high = reference.confidence_interval()
    assert found["test"] == "paired t"
    assert found["p"] == pytest.approx(reference.pvalue)
    assert (found["low"], found["high"]) == (pytest.approx(low), pytest.approx(high))
    assert found["difference"] == pytest.approx(b.mean() - a.mean())


def test_single_samples_get_mcnemar():
    a = [[1.0]] * 50 + [[0.0]] * 50
    b = [[1.0]] * 45 + [[0.0]] * 5 + [[1.0]] * 20 + [[0.0]] * 30
    found = paired(*sides(a, b))
    assert (found["better"], found["worse"], found["test"]) == (20, 5, "McNemar, exact")
    assert found["p"] == pytest.approx(stats.binomtest(20, 25, 0.5).pvalue)
    assert found["verdict"] == "better"
    assert paired(*sides(b, a))["verdict"] == "worse"


def test_a_verdict_needs_both():
    """p below 0.05 and an interval without 0, whichever of them was made by another method."""
    assert verdict(0.04, 0.01, 0.2) == "better"
    assert verdict(0.04, -0.2, -0.01) == "worse"
    for nothing in ((0.04, -0.01, 0.2), (0.06, 0.01, 0.2), (0.04, 0.0, 0.2), (None, 0.01, 0.2), (0.01, None, None)):
        assert verdict(*nothing) == "not distinguishable"
    # five problems of thirty lost and none won: the t interval has no 0 in it, the exact test says 0.0625
    lost = [[0.0]] * 9 + [[1.0]] * 21
    found = paired(*sides([[1.0]] * 5 + lost[5:], lost))
    assert found["high"] < 0
    assert found["p"] == pytest.approx(2 / 2**5)
    assert found["verdict"] == "not distinguishable"


def test_verdicts_mirror():
    generator = np.random.default_rng(6)
    a, b = (generator.integers(0, 2, (20, 4)).astype(float) for _ in range(2))
    one, two = paired(*sides(a, b)), paired(*sides(b, a))
    assert one["difference"] == -two["difference"]
    assert one["low"] == pytest.approx(-two["high"])
    assert one["p"] == two["p"]
    mirrored = {"better": "worse", "worse": "better", "not distinguishable": "not distinguishable"}
    assert mirrored[one["verdict"]] == two["verdict"]


def test_a_model_against_itself_is_not_distinguishable_and_says_what_could_have_been_seen():
    a = [[1.0]] * 40 + [[0.0]] * 60
    found = paired(*sides(a, a))
    assert found["verdict"] == "not distinguishable"
    assert found["p"] == 1.0
    assert found["low"] < 0 < found["high"]
    # six of a hundred, all one way, in eight of ten cases
    assert stats.binom.sf(5, 100, found["smallest"]) == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize(("n", "k"), [(48, 1), (48, 4), (200, 1), (7, 1)])
def test_where_nothing_differed_the_least_visible_difference_is_seen_in_eight_of_ten(n, k):
    nothing = [[0.0] * k] * n
    told = paired(*sides(nothing, nothing))["smallest"]
    generator = np.random.default_rng(n)
    rounds = 400
    hits = 0
    for _ in range(rounds):
        gained = generator.random(n) < told * k  # one sample of k each
        b = [[float(g)] + [0.0] * (k - 1) for g in gained]
        hits += paired(*sides(nothing, b))["p"] < 0.05
    assert hits / rounds == pytest.approx(0.8, abs=4 * math.sqrt(0.16 / rounds))


def test_five_problems_show_nothing():
    found = paired(*sides([[0.0]] * 5, [[1.0]] * 5))
    assert found["p"] == pytest.approx(2 / 32)
    assert found["verdict"] == "not distinguishable"
    assert found["smallest"] is None
    assert paired(*sides([[0.0]] * 6, [[1.0]] * 6))["verdict"] == "better"


def test_one_problem():
    found = paired({"x": [0.0, 0.0]}, {"x": [1.0, 1.0]})
    assert (found["p"], found["low"], found["se"], found["smallest"]) == (None, None, None, None)
    assert found["verdict"] == "not distinguishable"


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=40))
def test_the_interval_never_collapses_and_holds_the_mean(d):
    _, low, high, _ = interval(d)
    mean = float(np.mean(d))
    assert -1 <= low <= mean + 1e-9
    assert mean - 1e-9 <= high <= 1
    if np.ptp(d) < 1e-12:
        assert high - low > 0.05


def test_clusters_count_once():
    """Ten copies of each of eight problems are eight problems, not eighty."""
    generator = np.random.default_rng(9)
    a8, b8 = (generator.integers(0, 2, (8, 1)).astype(float) for _ in range(2))
    plain = paired(*sides(a8, b8))
    a, b = sides(np.repeat(a8, 10, axis=0), np.repeat(b8, 10, axis=0))
    clustered = paired(a, b, {i: int(i) // 10 for i in a})
    assert clustered["se"] == pytest.approx(plain["se"])
    assert clustered["p"] == pytest.approx(plain["p"])
    assert paired(a, b)["se"] < plain["se"] / 2


def test_the_test_keeps_its_level_and_pairing_gains_power():
    """Published (n = 500, k = 4): rejection 0.05 at no gain; power 0.28 at 2 points, 0.56 at 3; unpaired 0.05, 0.20."""
    generator = np.random.default_rng(8)

    def share(gain, rounds=250):
        hits, unpaired = 0, 0
        for _ in range(rounds):
            p = generator.beta(0.5, 0.9, 500)
            q = np.clip(p + gain, 0, 1)
            a, b = ((generator.random((500, 4)) < r[:, None]).astype(float) for r in (p, q))
            hits += paired(*sides(a, b))["p"] < 0.05
            unpaired += stats.ttest_ind(a.mean(axis=1), b.mean(axis=1)).pvalue < 0.05
        return hits / rounds, unpaired / rounds

    level, _ = share(0.0)
    assert level == pytest.approx(0.05, abs=0.04)
    power, without = share(0.03)
    assert power > 0.4
    assert without < power - 0.2


def test_few_problems_keep_the_level_and_the_coverage():
    """n = 30: sign flips reject a model against its like in about 5 % of cases, and the t interval covers in about 95 %."""
    generator = np.random.default_rng(10)
    rejected = covered = 0
    rounds = 300
    for _ in range(rounds):
        p = generator.beta(0.5, 0.9, 30)
        a, b = (generator.binomial(2, p) / 2 for _ in range(2))
        d = b - a
        _, low, high, _ = interval(d)
        covered += low <= 0 <= high
        rejected += np.count_nonzero(d) <= 16 and sign_flip(d) < 0.05
    assert rejected / rounds <= 0.05 + 0.03
    assert covered / rounds >= 0.95 - 0.03


def test_the_least_visible_difference_is_seen_in_eight_of_ten():
    generator = np.random.default_rng(11)
    p = generator.beta(2, 2, (400, 200)) * 0.8
    hits = told = 0
    for row in p:
        a, b = (generator.binomial(4, r) / 4 for r in (row, row + 0.055))
        found = paired(*sides(a[:, None], b[:, None]))
        hits += found["p"] < 0.05
        told += found["smallest"]
    assert told / 400 == pytest.approx(0.055, rel=0.25)
    assert hits / 400 == pytest.approx(0.8, abs=0.15)
