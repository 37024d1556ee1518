"""Several training runs per arm: the noise of training beside that of problems.

An arm (a recipe, a method) that was trained with R seeds and asked n problems is a table of R rows and n columns. Both are
samples: of runs that could have been, and of problems. The variance of the arm's mean over both is

    T_A + T_B - T_C,   T_A = var(row means)/R,  T_B = var(column means)/n,  T_C = residual mean square/(R n),

for the noise of the cells is in T_A and in T_B, and must count once. With few seeds the t quantile matters more than all
else: 4.30 for R = 3, where 1.96 covers 81 % (Owen, Ann. Appl. Stat. 1 (2007), for the two-way table; Satterthwaite,
Biometrics 2 (1946), for the degrees of freedom of the difference of two arms).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posttrain.evaluation.statistics.estimates import CONFIDENCE, Estimate, standard_error


@dataclass(frozen=True, slots=True)
class TwoWay:
    """The parts of the variance of a table's mean (squared shares)."""

    seeds: float
    """T_A: 0 for one row, which says nothing about others."""
    problems: float
    """T_B, clustered where clusters are given."""
    both: float
    """T_C, counted in each of the others."""


def two_way(table: ArrayLike, clusters: Sequence[Hashable] | None = None) -> TwoWay:
    """The decomposition of R rows (seeds) by n columns (problems; means over samples).

    Raises:
        ValueError: no table, or fewer than two problems.
    """
    x = _table(table)
    r, n = x.shape
    rows, columns = x.mean(axis=1), x.mean(axis=0)
    problems = standard_error(columns, clusters)[0] ** 2
    if r < 2:
        return TwoWay(0.0, problems, 0.0)
    residual = x - rows[:, None] - columns + x.mean()
    square = float((residual**2).sum()) / ((r - 1) * (n - 1))
    return TwoWay(float(rows.var(ddof=1)) / r, problems, square / (r * n))


def arm(table: ArrayLike) -> Estimate:
    """Mean of an arm over its training runs, with a t interval over runs (R - 1 degrees of freedom): these problems, other seeds."""
    from scipy import stats

    x = _table(table)
    means = x.mean(axis=1)
    value = float(means.mean())
    if len(means) < 2:
        return Estimate(value, None, None, None, "unknown: one training run")
    se = float(means.std(ddof=1)) / len(means) ** 0.5
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(means) - 1)) * se
    return Estimate(value, max(0.0, value - half), min(1.0, value + half), se, f"t over {len(means)} training runs")


@dataclass(frozen=True, slots=True)
class Difference:
    """B against A, for other seeds and other problems of the same kinds."""

    value: float
    se: float
    df: float
    p: float
    low: float
    high: float


def arms(a: ArrayLike, b: ArrayLike, clusters: Sequence[Hashable] | None = None) -> Difference | None:
    """The difference of two arms' means, B - A, over seeds and problems at once.

    Args:
        a, b: tables of (R_a, n) and (R_b, n), the same problems in the same order; at least one has two rows.

    Returns:
        None where nothing varies at all, neither over problems nor over seeds.

    Raises:
        ValueError: tables of other problems, fewer than two problems, or one row each (that is `paired`'s case).
    """
    from scipy import stats

    x, y = _table(a), _table(b)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"the arms need the same problems: {x.shape[1]} and {y.shape[1]}")
    if len(x) < 2 and len(y) < 2:
        raise ValueError("one training run each: a paired comparison, not one of arms")
    over = [two_way(one) for one in (x, y)]
    d = y.mean(axis=0) - x.mean(axis=0)
    spread, m = standard_error(d, clusters)
    if m < 2:
        raise ValueError("one cluster of problems")
    # Each part with its degrees of freedom. An arm of one run is taken to vary as the other does: to leave its part out
    # would call every run the mean of its arm.
    parts = [(part.seeds, len(one) - 1) for part, one in zip(over, (x, y), strict=True) if len(one) > 1]
    if len(parts) == 1:
        known = max(len(x), len(y))
        parts = [(parts[0][0] * (1 + known), parts[0][1])]
    problems = spread**2
    seeds = sum(part for part, _ in parts)
    both = sum(part.both for part in over)
    variance = max(seeds + problems - both, seeds, problems)
    if variance < 1e-18:
        return None
    squares = sum(part**2 / df for part, df in parts if part > 0) + problems**2 / (m - 1)
    df = min(max((seeds + problems) ** 2 / squares, min(free for _, free in parts)), 1e6)
    value, se = float(d.mean()), variance**0.5
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, df)) * se
    p = float(2 * stats.t.sf(abs(value) / se, df))
    return Difference(value, se, df, p, max(-1.0, value - half), min(1.0, value + half))


def _table(table: ArrayLike) -> NDArray[np.float64]:
    x = np.asarray(table, dtype=float)
    if x.ndim != 2 or x.shape[0] < 1 or x.shape[1] < 2:
        raise ValueError("a table of training runs by problems: at least one row and two columns")
    return x
