"""Power, Holm and arms of several seeds: published figures, statsmodels, scipy, simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from posttrain.evaluation.statistics.paired import paired
from posttrain.evaluation.statistics.power import (
    detectable,
    holm,
    parts,
    power_of,
    problems_needed,
    smallest_difference,
)
from posttrain.evaluation.statistics.seeds import arm, arms, two_way


def test_problems_needed():
    """Published: 969 for 3 points without sampling noise, 3876 with one sample a problem."""
    assert problems_needed(0.03, 1 / 9) == 969
    assert problems_needed(0.03, 1 / 9, 1 / 6, 1 / 6) == 3876


def test_what_could_have_been_seen():
    """Published: 198 problems, one and ten samples: 13.3 and 7.6 points."""
    for k, points in ((1, 13.3), (10, 7.6)):
        found = detectable(198, 1 / 9, 1 / 6, 1 / 6, k)
        assert found * 100 == pytest.approx(points, abs=0.05)
        # with t quantiles a hair more
        assert smallest_difference(math.sqrt((1 / 9 + 1 / 3 / k) / 198), 198, k) == pytest.approx(found, rel=0.01)
    assert problems_needed(detectable(198, 1 / 9, 1 / 6, 1 / 6, 4, 8), 1 / 9, 1 / 6, 1 / 6, 4, 8) in (198, 199)


def test_what_could_have_been_seen_among_several_comparisons():
    """Each has its part of the 5 %; several training runs have their own degrees of freedom."""
    for tests, df in ((1, None), (3, None), (12, 4.5)):
        t = stats.t.ppf([1 - 0.025 / tests, 0.8], 199 if df is None else df).sum()
        assert smallest_difference(0.02, 200, 4, tests, df) == pytest.approx(0.02 * t)
    assert smallest_difference(0.02, 7, 1, 12) is None, "2/2^8 is not below 0.05/12"


def test_what_an_exact_test_could_have_seen_of_problems_with_several_samples():
    """Without noise only the sign test's six problems bind: with one sample of four changed on each, a mean of a quarter."""
    share = smallest_difference(0.0, 50)
    assert stats.binom.sf(5, 50, share) == pytest.approx(0.8)
    assert smallest_difference(0.0, 50, 4) == pytest.approx(share / 4)


def test_power_against_statsmodels():
    module = pytest.importorskip("statsmodels.stats.power", reason="statsmodels is not installed (dev extra)")
    for effect in (0.0, 0.1, 0.3):
        theirs = module.NormalIndPower(ddof=0).power(effect, 150, 0.05, ratio=0)
        assert power_of(effect, 1 / math.sqrt(150)) == pytest.approx(theirs)
    assert power_of(detectable(100, 0.2), math.sqrt(0.2 / 100)) == pytest.approx(0.8, abs=1e-4)


def test_power_by_simulation():
    """Published (n = 500, k = 4), paired and unpaired: rejection 0.051 and 0.003 at no gain, 0.28 and 0.05 at 2 points, 0.56
    and 0.20 at 3. The law of the chances is not told; of Beta(1.5, 1.5) noise and spread are about right."""
    generator = np.random.default_rng(1)
    p = generator.beta(1.5, 1.5, (2000, 500))
    a = generator.binomial(4, p) / 4
    for gain, with_pairs, without in ((0.0, 0.051, 0.003), (0.02, 0.28, 0.05), (0.03, 0.56, 0.20)):
        q = np.clip(p + gain, 0, 1)
        b = generator.binomial(4, q) / 4
        found = np.mean(stats.ttest_rel(b, a, axis=1).pvalue < 0.05)
        assert found == pytest.approx(with_pairs, abs=0.04)
        assert np.mean(stats.ttest_ind(b, a, axis=1).pvalue < 0.05) == pytest.approx(without, abs=0.04)
        noise = np.mean(p * (1 - p) + q * (1 - q)) / 4
        assert power_of(np.mean(q - p), math.sqrt((np.var(q - p) + noise) / 500)) == pytest.approx(found, abs=0.025)


def test_parts_of_the_variance():
    generator = np.random.default_rng(2)
    p = generator.beta(2, 2, 4000)
    q = np.clip(p + generator.normal(0, 0.1, 4000), 0, 1)
    a, b = ({str(i): (generator.random(k) < r).astype(float) for i, r in enumerate(rates)} for rates, k in ((p, 4), (q, 8)))  # fmt: skip
    found = parts(a, b)
    assert found.between == pytest.approx(np.var(q - p), rel=0.25)
    assert found.within_a == pytest.approx(np.mean(p * (1 - p)), rel=0.05)
    assert found.within_b == pytest.approx(np.mean(q * (1 - q)), rel=0.05)
    assert parts({"x": [1.0], "y": [0.0]}, {"x": [1.0], "y": [0.0]}) is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_against_statsmodels(p):
    multitest = pytest.importorskip("statsmodels.stats.multitest", reason="statsmodels is not installed (dev extra)")
    assert holm(p) == pytest.approx(list(multitest.multipletests(p, method="holm")[1]), abs=1e-12)


def test_holm_by_hand():
    found = holm([0.01, None, 0.04, 0.03])
    assert found[1] is None
    assert [found[0], found[2], found[3]] == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    assert holm([None]) == [None]


def test_an_arm_of_three():
    """4.30 for three seeds: scipy's t interval of the runs' means."""
    means = np.array([0.4, 0.5, 0.6])
    found = arm(np.repeat(means[:, None], 5, axis=1))
    low, high = stats.t.interval(0.95, 2, 0.5, stats.sem(means))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert (found.high - found.value) / found.se == pytest.approx(4.303, abs=1e-3)
    assert arm([[0.1, 0.2]]).low is None
    draws = np.random.default_rng(4).normal(size=(40_000, 3))
    assert np.mean(np.abs(draws.mean(1)) <= 1.96 * stats.sem(draws, axis=1)) == pytest.approx(0.81, abs=0.01)


def test_the_two_way_table_against_statsmodels():
    linear = pytest.importorskip("statsmodels.formula.api", reason="statsmodels is not installed (dev extra)")
    anova = pytest.importorskip("statsmodels.stats.anova")
    import pandas

    x = np.random.default_rng(5).random((4, 9))
    rows, columns = np.indices(x.shape)
    frame = pandas.DataFrame({"x": x.ravel(), "r": rows.ravel(), "c": columns.ravel()})
    table = anova.anova_lm(linear.ols("x ~ C(r) + C(c)", frame).fit())
    found = two_way(x)
    assert found.both == pytest.approx(table["mean_sq"]["Residual"] / 36)
    assert found.seeds == pytest.approx(table["mean_sq"]["C(r)"] / 36)
    assert found.problems == pytest.approx(table["mean_sq"]["C(c)"] / 36)


def test_the_variance_of_a_table_is_that_of_its_mean():
    generator = np.random.default_rng(6)

    def draw():
        runs, items = generator.normal(0, 0.04, (4, 1)), generator.normal(0, 0.2, (1, 50))
        return 0.5 + runs + items + generator.normal(0, 0.15, (4, 50))

    tables = [draw() for _ in range(3000)]
    seen = np.var([t.mean() for t in tables])
    found = [two_way(t) for t in tables]
    assert np.mean([f.seeds + f.problems - f.both for f in found]) == pytest.approx(seen, rel=0.08)
    assert seen == pytest.approx(0.04**2 / 4 + 0.2**2 / 50 + 0.15**2 / 200, rel=0.08)


@pytest.mark.parametrize(("runs", "training"), [((3, 3), 0.04), ((3, 3), 0.0), ((5, 2), 0.02), ((1, 4), 0.04)])
def test_arms_keep_their_level_where_pairing_one_run_does_not(runs, training):
    """Two arms of the same recipe: seeds differ by `training`, problems are asked four times."""
    generator = np.random.default_rng(7)
    rejected = single = covered = 0
    rounds = 400
    for round in range(rounds):
        p = generator.beta(2, 2, 80)
        shift = [generator.normal(0, training, r) for r in runs]
        a, b = (generator.binomial(4, np.clip(p + s[:, None], 0, 1)) / 4 for s in shift)
        found = arms(a, b)
        rejected += found.p < 0.05
        covered += found.low <= 0 <= found.high
        sides = ({str(i): [v] for i, v in enumerate(x[0])} for x in (a, b))
        if training == 0.04 and round < 100:
            single += paired(*sides)["p"] < 0.05
    assert rejected / rounds <= 0.05 + 0.03
    assert covered == rounds - rejected
    if training == 0.04:
        assert single / 100 > 0.12


def test_the_error_of_two_arms_is_the_spread_of_their_difference():
    """Runs, problems and what is left: of the last, each of the first two has a part, and it counts once."""
    generator = np.random.default_rng(9)

    def draw(items):
        return 0.5 + generator.normal(0, 0.04, (3, 1)) + items + generator.normal(0, 0.2, (3, 30))

    found = [arms(draw(items), draw(items)) for items in generator.normal(0, 0.2, (2500, 1, 30))]
    seen = np.var([one.value for one in found])
    assert seen == pytest.approx(2 * 0.04**2 / 3 + 2 * 0.2**2 / 90, rel=0.08)
    assert np.mean([one.se**2 for one in found]) == pytest.approx(seen, rel=0.1)


def test_arms_find_what_is_there():
    generator = np.random.default_rng(8)
    hits = 0
    for _ in range(100):
        p = generator.beta(2, 2, 200)
        a, b = (
            generator.binomial(4, np.clip(p + s + generator.normal(0, 0.01, (3, 1)), 0, 1)) / 4 for s in (0.0, 0.08)
        )
        hits += arms(a, b).p < 0.05
    assert hits > 85


def test_arms_that_cannot_be_compared():
    with pytest.raises(ValueError, match="same problems"):
        arms([[0.1, 0.2]] * 2, [[0.1, 0.2, 0.3]] * 2)
    with pytest.raises(ValueError, match="paired"):
        arms([[0.1, 0.2]], [[0.1, 0.2]])
    with pytest.raises(ValueError, match="two columns"):
        arms([[0.1]], [[0.1]])
    with pytest.raises(ValueError, match="one cluster"):
        arms([[0.1, 0.2]] * 2, [[0.1, 0.2]] * 2, ["a", "a"])
    assert arms([[0.5, 0.5]] * 2, [[0.5, 0.5]] * 2) is None
