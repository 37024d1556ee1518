"""Intervals for a share of few problems, one 0/1 score each. `estimates.estimate` chooses for itself; these are for the rest.

Normal ("CLT") intervals miss far too often below a few hundred problems: Bowyer et al., arXiv 2503.01747. Brown, Cai and
DasGupta, Statistical Science 16 (2001), compare those below.
"""

from __future__ import annotations

from posttrain.evaluation.statistics.estimates import CONFIDENCE, wilson


def clopper_pearson(right: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Covers at least as often as it says, for every true share; wider than need be."""
    from scipy import stats

    _check(right, n)
    tail = (1 - confidence) / 2
    low = float(stats.beta.ppf(tail, right, n - right + 1)) if right else 0.0
    return low, float(stats.beta.ppf(1 - tail, right + 1, n - right)) if right < n else 1.0


def jeffreys(right: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The middle of the posterior Beta(right + 1/2, n - right + 1/2); an end where there is nothing beyond is 0 or 1."""
    from scipy import stats

    _check(right, n)
    tail = (1 - confidence) / 2
    low, high = stats.beta.ppf([tail, 1 - tail], right + 0.5, n - right + 0.5)
    return float(low) if right else 0.0, float(high) if right < n else 1.0


def score(right: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's."""
    from scipy import stats

    _check(right, n)
    return wilson(right / n, n, float(stats.norm.ppf(0.5 + confidence / 2)))


def _check(right: int, n: int) -> None:
    if not 0 <= right <= n or n < 1:
        raise ValueError(f"{right} right of {n}: that cannot be")
