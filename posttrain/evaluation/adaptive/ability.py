"""The ability that answers to calibrated items speak for: maximum a posteriori under a normal prior, and its error.

theta = argmax sum_j k_j [ x_j ln s_j + (1 - x_j) ln(1 - s_j) ] - (theta - mean)² / (2 sd²), x_j the share of right among
the k_j samples of item j (binomial likelihood; k_j = 1: a right or wrong answer). The slope of this is strictly
decreasing in theta, so there is one root; Newton steps are kept inside a bracket that bisection shrinks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from posttrain.evaluation.adaptive.model import chance, information

BOUNDS = (-4.0, 4.0)
"""Abilities are looked for between these, in standard deviations of the calibration models."""
TOLERANCE = 1e-10
STEPS = 200


@dataclass(frozen=True, slots=True)
class Prior:
    """Normal prior of an ability."""

    mean: float = 0.0
    sd: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and math.isfinite(self.sd) and self.sd > 0):
            raise ValueError("a prior needs a finite mean and an sd above 0")


@dataclass(frozen=True, slots=True)
class Ability:
    """An ability and its standard error, 1 / sqrt(information of the asked items + 1/sd² of the prior)."""

    value: float
    se: float


def estimate(
    shares: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    samples: ArrayLike = 1,
    prior: Prior = Prior(),
    bounds: tuple[float, float] = BOUNDS,
    start: float | None = None,
) -> Ability:
    """Ability from answers to n items.

    Args:
        shares: share of right samples of each item, 0 to 1, (n,); n = 0 gives the prior.
        a, b: item parameters, (n,).
        samples: samples behind each share, (n,) or one number.
        start: where Newton's method begins; the answer does not depend on it.

    Raises:
        ValueError: shapes differ, or a share is not between 0 and 1.
    """
    x, slope, place = (np.atleast_1d(np.asarray(v, dtype=float)) for v in (shares, a, b))
    k = np.broadcast_to(np.asarray(samples, dtype=float), x.shape)
    if not x.shape == slope.shape == place.shape or x.ndim != 1:
        raise ValueError(f"shares, a and b should be of one length, not {x.shape}, {slope.shape}, {place.shape}")
    if not np.all((x >= 0) & (x <= 1)) or not np.all(k > 0):
        raise ValueError("shares should be between 0 and 1, samples above 0")

    def score(theta: float) -> float:
        pull = (prior.mean - theta) / prior.sd**2
        return pull + float(np.sum(k * slope * (x - chance(theta, slope, place))))

    def knowledge(theta: float) -> float:
        return 1 / prior.sd**2 + float(np.sum(information(theta, slope, place, k)))

    theta = _root(score, knowledge, bounds, prior.mean if start is None else start)
    return Ability(theta, 1 / math.sqrt(knowledge(theta)))


def _root(score, knowledge, bounds: tuple[float, float], start: float) -> float:  # type: ignore[no-untyped-def]
    """Where the decreasing `score` is 0 (or the end of `bounds` nearest to it); `-knowledge` is its slope."""
    low, high = bounds
    if score(low) <= 0:
        return low
    if score(high) >= 0:
        return high
    theta = min(max(start, low), high)
    for _ in range(STEPS):
        found = score(theta)
        if abs(found) < TOLERANCE:
            break
        low, high = (theta, high) if found > 0 else (low, theta)
        step = theta + found / knowledge(theta)
        theta = step if low < step < high else (low + high) / 2
        if high - low < 1e-14:
            break
    return theta
