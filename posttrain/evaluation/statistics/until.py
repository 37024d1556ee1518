"""Very small chances of success: sample each problem until it is solved r times, and count the samples that took.

A score of 0 of 16 hides whether a problem is solved once in a hundred or once in a million; the number of samples until
success does not. Hu et al., arXiv 2310.03262 (PassUntil), whose estimate r/K is biased upward by about r/(r-1).

K, the samples until the r-th success, is negative binomial with mean r/p. A cap M that ends sampling early leaves s < r
successes of M; the estimates below are exact for that design too.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from posttrain.evaluation.statistics.estimates import CONFIDENCE, Estimate, estimate
from posttrain.evaluation.statistics.intervals import clopper_pearson


@dataclass(frozen=True, slots=True)
class Until:
    """One problem, sampled until `wanted` successes or until a cap."""

    wanted: int
    """r, the successes at which sampling stops."""
    successes: int
    """r, or fewer if the cap came first."""
    samples: int
    """K, or the cap M."""

    def __post_init__(self) -> None:
        if not (self.wanted >= 1 and 0 <= self.successes <= self.wanted and self.samples >= max(1, self.successes)):
            raise ValueError(f"{self.successes} of {self.wanted} successes in {self.samples} samples: that cannot be")

    @property
    def capped(self) -> bool:
        return self.successes < self.wanted

    def likeliest(self) -> float:
        """r/K, the maximum-likelihood estimate that PassUntil uses: too high, the more so the smaller r."""
        return self.successes / self.samples

    def unbiased(self) -> float:
        """(r-1)/(K-1); s/M where the cap came first. Unbiased together (Girshick, Mosteller and Savage 1946).

        Raises:
            ValueError: r = 1, for which the only unbiased estimate is 1 if the first sample succeeds and else 0.
        """
        if self.capped:
            return self.successes / self.samples
        if self.wanted < 2:
            raise ValueError("one success is not enough for an unbiased estimate; sample until two or more")
        return (self.wanted - 1) / (self.samples - 1)

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Exact two-sided interval for the chance (beta quantiles; for small chances 2 p K is chi-squared with 2 r df).

        "K or fewer" is "r or more successes in K samples", so both bounds invert binomial tails.
        """
        from scipy import stats

        tail = (1 - confidence) / 2
        s, n = self.successes, self.samples
        if self.capped:
            return clopper_pearson(s, n, confidence)
        low = float(stats.beta.ppf(tail, s, n - s + 1))
        return low, float(stats.beta.ppf(1 - tail, s, n - s)) if n > s else 1.0


def at_most(successes: int, samples: int, confidence: float = CONFIDENCE) -> float:
    """One-sided upper bound for the chance, `successes` of a fixed number of samples: about 3/samples for none."""
    return clopper_pearson(successes, samples, 2 * confidence - 1)[1]


def pass_until(problems: Sequence[Until], clusters: Sequence[Hashable] | None = None) -> Estimate:
    """Mean chance over problems (unbiased, r >= 2), with an interval over problems."""
    return estimate([one.unbiased() for one in problems], clusters)
