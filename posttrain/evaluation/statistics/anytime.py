"""An interval that may be looked at after every problem, and that may decide when to stop.

A fixed-n interval that is looked at again and again, until it is narrow or lucky, misses far more often than it says. This
one holds at all times at once: with probability `confidence` the true mean is inside it after *every* value.

How: a gambler who starts with 1 bets on each value against the claim "the mean is m", with stakes that depend on earlier
values only. If m is true the game is fair, and the capital ever reaches 1/a with probability a at most (Ville). Every m
whose gambler got rich is ruled out. Two gamblers, one betting that the mean is higher and one that it is lower, get half of
the error each. The best stake after t values is about sqrt(2 log(1/a) / (variance t)); as nobody knows how long it will
go on, the capital is split over stakes for several lengths. Who knows how narrow it should become can say so (`aim`):
then one stake, half-width / variance, is the best, and about three quarters of the problems will do. Over a finite population without replacement the claim is about what is left: (N m - sum so far) / (N - t).

Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024, arXiv 2010.09686
(hedged capital with predictable plug-in stakes; without replacement in their section 5).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from posttrain.evaluation.statistics.estimates import CONFIDENCE, Estimate

STEPS = 1000
"""Means that are tried: 0, 1/STEPS, ... 1. Bounds are rounded outward to them, so never too narrow."""
HORIZONS = (16, 64, 256, 1024, 4096)
"""Numbers of values that the stakes are best for. One that is off by a factor of 2 costs 6 % of width."""
SHARE = 0.5
"""The largest part of the capital that one value can cost."""


class Anytime:
    """A confidence sequence for the mean over problems of values in [0, 1].

    The values must come in random order (shuffle the problems first), one value an independent problem or cluster: the
    mean of its samples, say. `low` never falls and `high` never rises.

    Args:
        confidence: of the whole sequence.
        population: how many problems there are in all, if each is drawn once. Then the mean is that over just those, as
            the whole evaluation would have found it, and after the last one the interval is a point. None: problems are a
            sample of all that could be asked.
        aim: the half-width (as a share) at which sampling will stop. It makes the interval narrow soonest there; it
            holds whether or not that is reached.

    Raises:
        ValueError: confidence or aim not between 0 and 1, population below 1.
    """

    def __init__(self, confidence: float = CONFIDENCE, population: int | None = None, aim: float | None = None):
        if not 0 < confidence < 1:
            raise ValueError(f"confidence: between 0 and 1, not {confidence}")
        if population is not None and population < 1:
            raise ValueError(f"population: at least 1, not {population}")
        if aim is not None and not 0 < aim < 1:
            raise ValueError(f"aim: between 0 and 1, not {aim}")
        self.confidence = confidence
        self.aim = aim
        self.population = population
        self.n = 0
        self.low = 0.0
        self.high = 1.0
        self._rich = math.log(2 / (1 - confidence))
        self._sum = 0.0
        self._spread = 0.25
        """1/4 plus the squared distances of the values from their means so far: what stakes are by, over t."""
        lengths = [h for h in HORIZONS if population is None or h < 2 * population] or [HORIZONS[0]]
        self._lengths = np.array(lengths, dtype=float)[:, None] if aim is None else None
        gamblers = len(lengths) if aim is None else 1
        self._means = np.linspace(0.0, 1.0, STEPS + 1)
        self._higher = np.zeros((gamblers, STEPS + 1))
        """Log capital of those who bet that the mean is higher than m, and of ..."""
        self._lower = np.zeros((gamblers, STEPS + 1))

    @property
    def mean(self) -> float | None:
        return self._sum / self.n if self.n else None

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    def add(self, value: float) -> None:
        """Take the next problem's value.

        Raises:
            ValueError: not between 0 and 1, or more values than there are problems.
        """
        if not 0 <= value <= 1:
            raise ValueError(f"values must be between 0 and 1, not {value}")
        left = None if self.population is None else self.population - self.n
        if left == 0:
            raise ValueError(f"more values than the population of {self.population}")
        # What the next value's mean would be if m were true; outside [0, 1] m is ruled out by arithmetic alone (below).
        expected = (
            self._means if left is None else np.clip((self.population * self._means - self._sum) / left, 0.0, 1.0)
        )
        t = self.n + 1
        stake = self._stake(self._spread / t)
        with np.errstate(divide="ignore"):
            self._higher += np.log1p(np.minimum(stake, SHARE / expected) * (value - expected))
            self._lower += np.log1p(np.minimum(stake, SHARE / (1 - expected)) * (expected - value))
        self.n = t
        self._sum += value
        self._spread += (value - (0.5 + self._sum) / (t + 1)) ** 2
        self._narrow()

    def _stake(self, variance: float) -> NDArray[np.float64]:
        if self._lengths is None:
            return np.array([[self.aim / variance]])
        return np.sqrt(2 * (self._rich + math.log(len(self._lengths))) / (variance * self._lengths))

    def _narrow(self) -> None:
        """Capital falls (rises) with m, so what is ruled out from below (above) is everything up to (from) one m."""
        rich = self._rich + math.log(len(self._higher))  # the mean over gamblers against 2/a
        too_low = np.flatnonzero(np.logaddexp.reduce(self._higher, axis=0) >= rich)
        too_high = np.flatnonzero(np.logaddexp.reduce(self._lower, axis=0) >= rich)
        low = self._means[too_low[-1]] if too_low.size else 0.0
        high = self._means[too_high[0]] if too_high.size else 1.0
        if self.population is not None:
            low = max(low, self._sum / self.population)
            high = min(high, (self._sum + self.population - self.n) / self.population)
        self.low, self.high = max(self.low, float(low)), min(self.high, float(high))
        if (
            self.low > self.high
        ):  # at most as often as the interval may miss at all, and where rounding makes a point of two
            self.low = self.high = (self.low + self.high) / 2

    def estimate(self) -> Estimate:
        """Mean so far and the interval, as other estimates are given."""
        if self.mean is None:
            return Estimate(None, None, None, None, "unknown: no problems")
        of = "" if self.population is None else f" of {self.population}"
        low, high = min(self.low, self.mean), max(self.high, self.mean)
        return Estimate(self.mean, low, high, None, f"anytime-valid, by betting, {self.n}{of} problems")
