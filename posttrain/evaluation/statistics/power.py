"""How many problems and samples a difference takes, what could have been seen, and what many tests may claim together.

The variance of a paired difference D over n problems has two parts: how much the true difference varies over problems, w^2,
and the noise of the samples, s_a^2/k_a + s_b^2/k_b. More samples shrink the second only.

    n = (z_.975 + z_.8)^2 (w^2 + s_a^2/k_a + s_b^2/k_b) / d^2

Source: Miller, arXiv 2411.00640, equations 9 and 10; Holm, Scandinavian Journal of Statistics 6 (1979).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from posttrain.evaluation.statistics.estimates import CONFIDENCE

POWER = 0.8


def problems_needed(
    difference: float,
    between: float,
    within_a: float = 0.0,
    within_b: float = 0.0,
    k: int = 1,
    k_b: int | None = None,
    power: float = POWER,
) -> int:
    """How many problems show `difference` (a share) with so much power at 5 %, two-sided.

    Args:
        between: w^2, the variance of the true difference over problems.
        within_a, within_b: mean variances of single samples, p (1 - p) for 0/1 scores.
        k, k_b: samples a problem (of B, if others).
    """
    return math.ceil(_z(power) ** 2 * _variance(between, within_a, within_b, k, k_b) / difference**2)


def detectable(
    n: int,
    between: float,
    within_a: float = 0.0,
    within_b: float = 0.0,
    k: int = 1,
    k_b: int | None = None,
    power: float = POWER,
) -> float:
    """The smallest true difference that n problems show with so much power at 5 %: the plan of an evaluation."""
    return _z(power) * math.sqrt(_variance(between, within_a, within_b, k, k_b) / n)


def power_of(difference: float, se: float) -> float:
    """Chance that a two-sided test at 5 % finds a true difference whose estimate has this standard error."""
    from scipy import stats

    z = float(stats.norm.ppf(0.5 + CONFIDENCE / 2))
    return float(stats.norm.cdf(difference / se - z) + stats.norm.cdf(-difference / se - z))


def smallest_difference(se: float, n: int, k: int = 1, tests: int = 1, df: float | None = None) -> float | None:
    """The difference that a comparison as it was would find with 80 % power at 5 %: (t_.975 + t_.8) standard errors.

    Never less than where an exact test finds enough: six problems that differ by one sample of k, all the same way (2/2^5 is
    not below 5 %), in 80 % of cases. That takes a share q of problems with P(Bin(n, q) >= 6) = 0.8, near 7.9/n.

    Args:
        tests: how many comparisons share the 5 %; each then has its part (Holm's correction asks no more of any).
        df: degrees of freedom of the standard error; absent = n - 1.

    Returns:
        None: with so few problems no difference could be found.
    """
    from scipy import stats

    level = (1 - CONFIDENCE) / tests
    least = math.floor(1 - math.log2(level)) + 1
    if n < least:
        return None
    t = stats.t.ppf([1 - level / 2, POWER], n - 1 if df is None else df).sum()
    return max(float(t) * se, float(stats.beta.ppf(POWER, least, n - least + 1)) / k)


@dataclass(frozen=True, slots=True)
class Parts:
    """Where the variance of a paired difference comes from; `between` is an estimate and never below 0."""

    between: float
    within_a: float
    within_b: float


def parts(a: Mapping[str, Sequence[float]], b: Mapping[str, Sequence[float]]) -> Parts | None:
    """The parts as an evaluation of both sides shows them; None if a problem has one sample (they cannot be told apart).

    w^2 = Var(d) - mean of s_a^2/k_a - mean of s_b^2/k_b, over problems.
    """
    items = sorted(a.keys() & b.keys())
    if len(items) < 2 or any(len(side[i]) < 2 for side in (a, b) for i in items):
        return None
    within = [[float(np.var(side[i], ddof=1)) for i in items] for side in (a, b)]
    noise = sum(
        v / len(side[i]) for side, vs in zip((a, b), within, strict=True) for i, v in zip(items, vs, strict=True)
    )
    d = [float(np.mean(b[i]) - np.mean(a[i])) for i in items]
    return Parts(
        max(0.0, float(np.var(d, ddof=1)) - noise / len(items)), float(np.mean(within[0])), float(np.mean(within[1]))
    )


def holm(p: Sequence[float | None]) -> list[float | None]:
    """p values of several tests, corrected so that the chance of any false claim among them stays what one test's is.

    The smallest is multiplied by their number, the next by one less, and so on, never below the one before. Needs no
    independence. None (no test was possible) stays None and does not count.
    """
    order = sorted((value, i) for i, value in enumerate(p) if value is not None)
    found: list[float | None] = [None] * len(p)
    least = 0.0
    for rank, (value, i) in enumerate(order):
        least = max(least, min(1.0, value * (len(order) - rank)))
        found[i] = least
    return found


def _z(power: float) -> float:
    from scipy import stats

    return float(stats.norm.ppf([0.5 + CONFIDENCE / 2, power]).sum())


def _variance(between: float, within_a: float, within_b: float, k: int, k_b: int | None) -> float:
    return between + within_a / k + within_b / (k if k_b is None else k_b)
