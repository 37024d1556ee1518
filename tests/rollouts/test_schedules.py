"""The ratio tables, ties and edge cases of RuscaRL, as printed in shared/methods/ruscarl.md, and what holds of every schedule."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollouts.strategies.schedules import (
    INTER,
    by_pass_rate,
    count,
    elapsed,
    in_group,
    over_time,
    prefix,
    subset,
)

OVER_TIME = tuple(k for k in INTER if k != "adaptive")


def lam(s: int, steps: int = 350, alpha: float = 125.0, t0: float = 0.2) -> float:
    return over_time("sigmoid", elapsed(s, steps), alpha=alpha, t0=t0)


def shown(over: float, items: int, group: int = 8) -> list[int]:
    return [count(over * in_group("linear", i, group), items) for i in range(group)]


@pytest.mark.parametrize(
    ("s", "t", "over", "ratios", "eleven"),
    [
        (1, 0, 1.0, [1.0, 0.8571, 0.7143, 0.5714, 0.4286, 0.2857, 0.1429, 0], [11, 9, 8, 6, 5, 3, 2, 0]),
        (64, 0.180516, 0.919497, [0.9195, 0.7881, 0.6568, 0.5254, 0.3941, 0.2627, 0.1314, 0], [10, 9, 7, 6, 4, 3, 1, 0]),
        (68, 0.191977, 0.731622, [0.7316, 0.6271, 0.5226, 0.4181, 0.3136, 0.2090, 0.1045, 0], [8, 7, 6, 5, 3, 2, 1, 0]),
        (70, 0.197708, 0.571147, [0.5711, 0.4896, 0.4080, 0.3264, 0.2448, 0.1632, 0.0816, 0], [6, 5, 4, 4, 3, 2, 1, 0]),
        (71, 0.200573, 0.482099, [0.4821, 0.4132, 0.3444, 0.2755, 0.2066, 0.1377, 0.0689, 0], [5, 5, 4, 3, 2, 2, 1, 0]),
        (74, 0.209169, 0.241196, [0.2412, 0.2067, 0.1723, 0.1378, 0.1034, 0.0689, 0.0345, 0], [3, 2, 2, 2, 1, 1, 0, 0]),
        (78, 0.220630, 0.070516, [0.0705, 0.0604, 0.0504, 0.0403, 0.0302, 0.0201, 0.0101, 0], [1, 1, 1, 0, 0, 0, 0, 0]),
        (88, 0.249284, 0.002107, [0.0021, 0.0018, 0.0015, 0.0012, 0.0009, 0.0006, 0.0003, 0], [0] * 8),
        (350, 1, 3.7e-44, [0] * 8, [0] * 8),
    ],
)  # fmt: skip
def test_the_table_of_the_paper_s_schedule(s, t, over, ratios, eleven):
    assert elapsed(s, 350) == pytest.approx(t, abs=5e-7)
    assert lam(s) == pytest.approx(over, abs=5e-7, rel=0.01)
    assert [lam(s) * in_group("linear", i, 8) for i in range(8)] == pytest.approx(ratios, abs=5.1e-5)
    assert shown(lam(s), 11) == eleven


@pytest.mark.parametrize(("items", "first_less", "last_some"), [(11, 63, 79), (5, 65, 76), (33, 60, 82)])
def test_when_the_scaffold_begins_to_shrink_and_when_it_is_gone(items, first_less, last_some):
    first = [shown(lam(s), items)[0] for s in range(1, 351)]
    assert next(s for s, n in enumerate(first, 1) if n < items) == first_less
    assert max(s for s, n in enumerate(first, 1) if n >= 1) == last_some


@pytest.mark.parametrize(
    ("s", "over"),
    [(1, 0.997527), (11, 0.982014), (21, 0.880797), (26, 0.731059), (31, 0.5), (36, 0.268941), (41, 0.119203), (51, 0.017986)],
)  # fmt: skip
def test_the_second_set(s, over):
    assert lam(s, 101, alpha=20.0, t0=0.3) == pytest.approx(over, abs=5e-7)


@pytest.mark.parametrize(
    ("over", "items", "expected"),
    [
        (0.5, 11, [6, 5, 4, 3, 2, 2, 1, 0]),
        (0.5, 7, [4, 3, 2, 2, 2, 1, 0, 0]),
        (0.5, 3, [2, 1, 1, 1, 1, 0, 0, 0]),
        (0.5, 1, [0] * 8),
        (1.0, 1, [1, 1, 1, 1, 0, 0, 0, 0]),
        (1.0, 2, [2, 2, 1, 1, 1, 1, 0, 0]),
        (1.0, 3, [3, 3, 2, 2, 1, 1, 0, 0]),
        (1.0, 5, [5, 4, 4, 3, 2, 1, 1, 0]),
    ],
)
def test_short_rubrics(over, items, expected):
    assert shown(over, items) == expected


@pytest.mark.parametrize(("items", "ratio", "n"), [(5, 0.5, 2), (7, 0.5, 4), (6, 0.25, 2), (2, 0.25, 0), (1, 0.5, 0)])
def test_ties_go_to_the_even_number(items, ratio, n):
    assert count(ratio, items) == n
    assert len(subset(items, ratio, 0)) == n


@pytest.mark.parametrize(("s", "over"), [(1, 0.5), (2, 0.411404), (10, 0.038291)])
def test_a_midpoint_at_the_start(s, over):
    assert lam(s, t0=0.0) == pytest.approx(over, abs=5e-7)


@pytest.mark.parametrize(
    ("kind", "power", "over"),
    [("linear", 2, 0.75), ("power", 2, 0.5625), ("power", 3, 0.421875), ("power", 5, 0.237305)],
)
def test_the_other_schedules_at_a_quarter(kind, power, over):
    assert over_time(kind, 0.25, power=power) == pytest.approx(over, abs=5e-7)
    assert over_time("constant", 0.25) == 1.0
    assert (over_time("step", 0.2, t0=0.25), over_time("step", 0.25, t0=0.25)) == (1.0, 0.0)


def test_the_share_of_rollouts_that_see_anything_in_the_paper_s_run():
    """The card: 19% of the rollouts, N = 11, G = 8, S = 350; the sigmoid's mean ratio .201, that of power 5 .168 and 33%."""
    runs = {
        kind: [over_time(kind, elapsed(s, 350), power=5.0) for s in range(1, 351)] for kind in ("sigmoid", "power")
    }
    seen = {k: sum(n > 0 for over in v for n in shown(over, 11)) / (8 * 350) for k, v in runs.items()}
    assert (seen["sigmoid"], seen["power"]) == (pytest.approx(0.19, abs=0.01), pytest.approx(0.33, abs=0.01))
    assert sum(runs["sigmoid"]) / 350 == pytest.approx(0.201, abs=5e-4)
    assert sum(runs["power"]) / 350 == pytest.approx(0.168, abs=5e-4)


@pytest.mark.parametrize(("m", "expected"), [(0, [0] * 8), (4, [1] * 4 + [0] * 4), (8, [1] * 8)])
def test_binary_within_a_group(m, expected):
    assert [in_group("binary", i, 8, m) for i in range(8)] == expected


def test_a_group_of_one_sees_everything():
    assert in_group("linear", 0, 1) == 1.0
    assert in_group("all", 3, 8) == 1.0


def test_a_run_of_one_iteration_is_at_its_start():
    assert elapsed(1, 1) == 0.0
    assert elapsed(400, 350) == 1.0, "a run that goes on for longer stays at the end of its schedule"


def test_the_ratio_of_a_row_falls_with_its_own_pass_rate():
    assert [by_pass_rate(rate, 0.5) for rate in (None, 0.0, 0.125, 0.5, 1.0)] == [1.0, 1.0, 0.75, 0.0, 0.0]


@given(st.sampled_from(OVER_TIME), st.floats(0, 1), st.floats(0, 1), st.floats(1, 1e6), st.floats(0, 1))
def test_every_schedule_falls_from_at_most_one_to_at_least_nothing(kind, a, b, alpha, t0):
    early, late = (over_time(kind, t, alpha=alpha, t0=t0) for t in sorted((a, b)))
    assert 0.0 <= late <= early <= 1.0


@given(st.integers(1, 64), st.floats(0, 1))
def test_a_group_is_ordered_from_the_most_to_nothing(group, over):
    ratios = [over * in_group("linear", i, group) for i in range(group)]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[0] == over
    assert group == 1 or ratios[-1] == 0.0


@given(st.integers(0, 40), st.fractions(0, 1, max_denominator=1000))
def test_the_count_is_the_nearest_number_and_even_in_between(items, ratio):
    exact = ratio * items
    n = count(float(ratio), items)
    assert 0 <= n <= items
    assert abs(n - exact) <= Fraction(1, 2) + Fraction(1, 10**9)


@given(st.integers(0, 40), st.floats(0, 1), st.integers(0, 2**53 - 1))
def test_a_subset_has_its_size_and_nothing_twice(items, ratio, seed):
    drawn = subset(items, ratio, seed)
    assert len(drawn) == (items if ratio >= 1 else count(ratio, items))
    assert len(set(drawn)) == len(drawn)
    assert set(drawn) <= set(range(items))
    assert drawn == subset(items, ratio, seed)


def test_in_order_at_ratio_one_and_shuffled_below_it():
    assert subset(11, 1.0, 7) == list(range(11))
    below = [subset(11, 1.0 - 1e-11, seed) for seed in range(50)]
    assert all(sorted(one) == list(range(11)) for one in below), "complete"
    assert sum(one == list(range(11)) for one in below) <= 1, "and shuffled"


def test_every_item_is_drawn_alike():
    """5 of 11, 11,000 times: each about 5,000 times (five standard deviations of a binomial)."""
    drawn = Counter(i for seed in range(11_000) for i in subset(11, 5 / 11, seed))
    assert all(abs(drawn[i] - 5000) < 5 * math.sqrt(11_000 * 5 / 11 * 6 / 11) for i in range(11))


def test_another_process_draws_the_same():
    code = "from rollouts.strategies.schedules import subset; print([subset(11, .6, s) for s in range(20)])"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert there == str([subset(11, 0.6, s) for s in range(20)])


def test_hints_are_nested_and_the_answer_comes_at_ratio_one_alone():
    ratios = [1.0, 0.99, 0.75, 0.5, 0.25, 0.1, 0.0]
    parts = [prefix(4, ratio, [4]) for ratio in ratios]
    assert parts == [[0, 1, 2, 3, 4], [0, 1, 2, 3], [0, 1, 2], [0, 1], [0], [], []]
    for longer, shorter in itertools.pairwise(parts):
        assert longer[: len(shorter)] == shorter
    assert prefix(1, 1.0, [1]) == [0, 1], "one step is no special case"
    assert prefix(0, 1.0) == []


def test_a_schedule_that_is_none():
    with pytest.raises(ValueError, match="no schedule over time"):
        over_time("adaptive", 0.5)
    with pytest.raises(ValueError, match="no schedule within a group"):
        in_group("cubic", 0, 8)
