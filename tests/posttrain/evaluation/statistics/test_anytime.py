"""An interval that holds at every look: simulation, a capital process written out, and what peeking does to another."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from posttrain.evaluation.statistics.anytime import Anytime


def misses(streams, truths, **options):
    """Share of streams whose interval excludes the truth at any time at all."""
    missed = 0
    for values, truth in zip(streams, truths, strict=True):
        interval = Anytime(**options)
        for value in values:
            interval.add(value)
        # bounds only ever narrow, so the last ones have missed if any did
        missed += not interval.low <= truth <= interval.high
    return missed / len(streams)


@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (lambda g, n: g.binomial(1, 0.1, n), 0.1),
        (lambda g, n: g.binomial(1, 0.5, n), 0.5),
        (lambda g, n: g.binomial(4, g.beta(0.5, 0.9, n)) / 4, 0.5 / 1.4),
        (lambda g, n: g.beta(40, 2, n), 40 / 42),
    ],
)
def test_it_holds_at_all_times_at_once(draw, truth):
    generator = np.random.default_rng(1)
    streams = [draw(generator, 200) for _ in range(60)]
    for aim in (None, 0.05):
        assert misses(streams, [truth] * 60, confidence=0.9, aim=aim) <= 0.1 + 0.07


@pytest.mark.parametrize("share", [0.03, 0.4])
def test_it_holds_without_replacement(share):
    generator = np.random.default_rng(2)
    people = (np.arange(200) < 200 * share).astype(float)
    streams = [generator.permutation(people)[:190] for _ in range(80)]
    assert misses(streams, [share] * 80, confidence=0.9, population=200) <= 0.1 + 0.07


def test_a_t_interval_that_is_peeked_at_does_not_hold():
    """What `Anytime` is for: the nominal 95 % t interval, looked at after each of 250 values, misses three times of ten."""
    generator = np.random.default_rng(3)
    missed, ours, last = 0, [], 0
    for _ in range(200):
        values = generator.beta(2, 2, 250)
        n = np.arange(1, 251)
        mean = np.cumsum(values) / n
        with np.errstate(divide="ignore", invalid="ignore"):
            se = np.sqrt((np.cumsum(values**2) / n - mean**2) / (n - 1))
            out = np.abs(mean - 0.5) > stats.t.ppf(0.975, n - 1) * se
        missed += out[9:].any()  # from 10 on
        last += out[-1]
        ours.append(values)
    assert missed / 200 > 0.2
    assert last / 200 < 0.1, "at a time fixed before, it does hold"
    assert misses(ours[:50], [0.5] * 50) <= 0.05


@pytest.mark.parametrize(("population", "aim"), [(None, None), (120, None), (None, 0.05), (120, 0.05)])
def test_bounds_are_where_the_capital_reaches_its_limit(population, aim):
    """The gamblers written out for one mean, in plain arithmetic."""
    values = np.random.default_rng(4).binomial(2, 0.3, 100) / 2
    interval = Anytime(0.95, population, aim)
    for value in values:
        interval.add(value)
    lengths = (16, 64, 256, 1024, 4096) if population is None else (16, 64)
    gamblers = [aim] if aim else lengths

    def best(m, up):
        capital, most, total, spread = [1.0] * len(gamblers), 1.0, 0.0, 0.25
        for t, x in enumerate(values, 1):
            e = m if population is None else (population * m - total) / (population - t + 1)
            variance = spread / t
            for g, kind in enumerate(gamblers):
                stake = kind / variance if aim else math.sqrt(2 * math.log(40 * len(gamblers)) / (variance * kind))
                stake = min(stake, 0.5 / (e if up else 1 - e))
                capital[g] *= 1 + stake * ((x - e) if up else (e - x))
            most = max(most, sum(capital) / len(capital))
            total += x
            spread += (x - (0.5 + total) / (t + 1)) ** 2
        return most

    assert best(interval.low, True) >= 40 > best(interval.low + 0.00101, True)
    assert best(interval.high, False) >= 40 > best(interval.high - 0.00101, False)
    assert 0.1 < interval.low < interval.mean < interval.high < 0.5


@settings(max_examples=25)
@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=60))
def test_it_only_narrows_and_ends_at_the_mean_of_a_finite_set(values):
    interval = Anytime(population=len(values))
    before = (0.0, 1.0)
    assert interval.estimate().value is None
    for value in values:
        interval.add(value)
        assert before[0] <= interval.low <= interval.high <= before[1]
        before = interval.low, interval.high
        found = interval.estimate()
        assert found.low <= found.value <= found.high
    mean = sum(values) / len(values)
    assert interval.mean == pytest.approx(mean)
    if interval.low == interval.high:
        assert abs(interval.low - mean) < 0.25
    with pytest.raises(ValueError, match="more values"):
        interval.add(0.0)


def test_how_many_problems_it_takes():
    """Half-width of 4 points at 80 %: 384 problems if the number is fixed before; stopping when it is reached costs 2 to 3
    times that, an aim saves a quarter of it, and a finite set of a thousand is done far sooner."""
    values = np.random.default_rng(5).binomial(1, 0.8, 2000)

    def needed(**options):
        interval = Anytime(**options)
        for value in values:
            interval.add(float(value))
            if interval.half_width <= 0.04:
                break
        return interval.n

    fixed = 1.96**2 * 0.16 / 0.04**2
    open_end, aimed = needed(), needed(aim=0.04)
    assert 1.3 * fixed < aimed < 0.85 * open_end
    assert open_end < 3 * fixed
    assert needed(population=1000, aim=0.04) < 0.75 * aimed
    assert needed(population=1000) < 0.75 * open_end


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_values_outside_are_refused(value):
    with pytest.raises(ValueError, match="between 0 and 1"):
        Anytime().add(value)


@pytest.mark.parametrize("options", [{"confidence": 1.0}, {"confidence": 0.0}, {"population": 0}, {"aim": 2}])
def test_settings_that_make_no_sense(options):
    with pytest.raises(ValueError, match=r"confidence|population|aim"):
        Anytime(**options)
