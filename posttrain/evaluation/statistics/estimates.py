"""What the samples of one evaluation say about a model, with intervals over problems. numpy and scipy only.

A problem is one independent question; its k samples are not k questions. So every interval is over *problems* (or
clusters of problems that share a statement), and contains the noise of sampling too. `rerun_error` answers the other
question: how much the mean would move if the same problems were asked again.

Formulas: Miller, arXiv 2411.00640 (clustered errors); Chen et al., arXiv 2107.03374 (unbiased pass@k); Wilson, JASA 22
(1927); Korn and Graubard, Survey Methodology 24 (1998), for Wilson's interval on an effective number of problems.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over problems. All numbers are shares (0 to 1); None = it cannot be known from so few problems."""

    value: float | None
    low: float | None
    high: float | None
    se: float | None
    """Standard error of the mean over problems (clusters)."""
    method: str
    """How low and high were made."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def standard_error(values: ArrayLike, clusters: Sequence[Hashable] | None = None) -> tuple[float, int]:
    """Standard error of the mean of `values` (n problems), and the number of clusters it rests on.

    se^2 = m/(m-1) * sum over clusters of (sum of deviations in the cluster)^2 / n^2; with every problem its own cluster
    this is the sample variance over n. nan for fewer than two clusters.
    """
    x = np.asarray(values, dtype=float)
    sums = cluster_sums(x - x.mean(), clusters) if x.size else np.zeros(0)
    m = sums.size
    if m < 2:
        return math.nan, m
    return math.sqrt(m / (m - 1) * float(sums @ sums)) / x.size, m


def numbered(clusters: Sequence[Hashable] | None, n: int) -> NDArray[np.intp]:
    """The cluster of each of n problems as a number, 0 to m - 1; without clusters each problem is one.

    Raises:
        ValueError: not one name a problem.
    """
    if clusters is None:
        return np.arange(n)
    if len(clusters) != n:
        raise ValueError("clusters: one name a problem")
    return np.unique([str(name) for name in clusters], return_inverse=True)[1]


def cluster_sums(values: NDArray[np.float64], clusters: Sequence[Hashable] | None) -> NDArray[np.float64]:
    """The sum of the values of each cluster."""
    return np.bincount(numbered(clusters, values.size), weights=values)


def wilson(share: float, trials: float, quantile: float) -> tuple[float, float]:
    """Wilson's score interval of a proportion; `trials` may be an effective number."""
    z2 = quantile * quantile / trials
    centre = (share + z2 / 2) / (1 + z2)
    half = quantile / (1 + z2) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials))
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def estimate(
    values: ArrayLike, clusters: Sequence[Hashable] | None = None, confidence: float = CONFIDENCE
) -> Estimate:
    """Mean of one value in [0, 1] a problem, with an interval.

    - values all 0 or 1 and no clusters: Wilson's interval;
    - otherwise mean ± t standard errors (clusters - 1 degrees of freedom);
    - where that would leave [0, 1] or have no width: Wilson's interval with as many trials as the standard error is
      worth, never more than there are clusters (the values of one problem cannot vouch for problems not seen);
    - one problem or one cluster: no interval.
    """
    from scipy import stats

    x = np.asarray(values, dtype=float)
    if x.size == 0:
        return Estimate(None, None, None, None, "unknown: no problems")
    if not np.all((x >= 0) & (x <= 1)):
        raise ValueError("values must be between 0 and 1")
    mean = min(1.0, max(0.0, float(x.mean())))
    se, m = standard_error(x, clusters)
    if m < 2:
        return Estimate(mean, None, None, None, "unknown: one problem" if x.size == 1 else "unknown: one cluster")
    tail = 0.5 + confidence / 2
    if m == x.size and np.all((x == 0) | (x == 1)):
        low, high = wilson(mean, x.size, float(stats.norm.ppf(tail)))
        return Estimate(mean, low, high, se, f"Wilson over {m} problems")
    t = float(stats.t.ppf(tail, m - 1))
    unit = "problems" if m == x.size else "clusters"
    low, high = mean - t * se, mean + t * se
    if se > 1e-12 and low >= 0 and high <= 1:
        return Estimate(mean, low, high, se, f"t over {m} {unit}")
    worth = min(float(m), max(1.0, mean * (1 - mean) / se**2)) if se > 1e-12 and 0 < mean < 1 else float(m)
    low, high = wilson(mean, worth, t)
    return Estimate(mean, low, high, se, f"Wilson over {worth:.4g} effective {unit}")


def unbounded(
    values: ArrayLike, clusters: Sequence[Hashable] | None = None, confidence: float = CONFIDENCE
) -> Estimate:
    """Mean of one number a problem that has no bounds (points by a rubric): mean ± t standard errors. No interval where nothing
    varies: without bounds, nothing can be said of problems not seen.
    """
    from scipy import stats

    x = np.asarray(values, dtype=float)
    if x.size == 0:
        return Estimate(None, None, None, None, "unknown: no problems")
    mean = float(x.mean())
    se, m = standard_error(x, clusters)
    if m < 2 or se < 1e-12:
        why = "all are alike" if m > 1 else "one problem" if x.size == 1 else "one cluster"
        return Estimate(mean, None, None, 0.0 if m > 1 else None, f"unknown: {why}")
    half = float(stats.t.ppf(0.5 + confidence / 2, m - 1)) * se
    unit = "problems" if m == x.size else "clusters"
    return Estimate(mean, mean - half, mean + half, se, f"t over {m} {unit}")


def rerun_error(scores: Sequence[ArrayLike]) -> float | None:
    """Standard error of the mean if the *same* problems were asked again: sqrt(sum_i var_i / k_i) / n.

    `scores[i]` are the k_i scores of problem i. None if a problem has a single sample.
    """
    parts = [np.asarray(s, dtype=float) for s in scores]
    if not parts or any(p.size < 2 for p in parts):
        return None
    return math.sqrt(sum(float(p.var(ddof=1)) / p.size for p in parts)) / len(parts)


def pass_at(right: ArrayLike, samples: ArrayLike, k: int) -> NDArray[np.float64]:
    """Unbiased chance that at least one of k samples is right: 1 - C(n-c, k)/C(n, k) for each problem.

    `right` = c and `samples` = n a problem, n >= k (for larger k there is no unbiased estimator).
    """
    c, n = (np.atleast_1d(np.asarray(a)) for a in np.broadcast_arrays(right, samples))
    if k < 1 or np.any(n < k) or np.any(c < 0) or np.any(c > n):
        raise ValueError(f"pass@{k} needs at least {k} samples a problem, and 0 <= right <= samples")
    miss = np.ones(c.shape)
    for i in range(k):  # C(n-c, k)/C(n, k) = prod (n-c-i)/(n-i); a factor <= 0 means that no k wrong samples exist
        miss *= np.maximum(n - c - i, 0) / (n - i)
    return 1.0 - miss


def majority(scores: Sequence[float], classes: Sequence[Hashable | None]) -> float:
    """Score of the answer given most often among the samples of one problem; ties share the point.

    `classes[j]` names the answer of sample j (equal answers, equal names); None = no answer, which has no vote. The
    score of a class is the mean of its members. No answer at all scores 0.
    """
    members: dict[Hashable, list[float]] = {}
    for score, name in zip(scores, classes, strict=True):
        if name is not None:
            members.setdefault(name, []).append(score)
    if not members:
        return 0.0
    most = max(map(len, members.values()))
    leaders = [sum(m) / len(m) for m in members.values() if len(m) == most]
    return sum(leaders) / len(leaders)


def powers(k: int) -> list[int]:
    """1, 2, 4, ... below k, and k: the sizes for which pass@ is shown."""
    return [*(2**i for i in range(k.bit_length()) if 2**i < k), k]


def metrics(
    scores: Sequence[Sequence[float]],
    votes: Sequence[Sequence[Hashable | None]],
    clusters: Sequence[Hashable] | None = None,
) -> dict[str, dict[str, Any]]:
    """`accuracy`, `avg@k`, `pass@1 ... pass@k`, `maj@k` of an evaluation with k samples a problem.

    Args:
        scores: 0 or 1 for each sample of each problem, (n, k).
        votes: answer class of each sample, None = no answer, (n, k); see `majority`.
        clusters: one name a problem.
    """
    k = min((len(s) for s in scores), default=0)
    if any(len(s) != k for s in scores) or k == 0:
        raise ValueError("every problem needs the same number of samples, at least one")
    right = np.array([int(sum(s)) for s in scores])
    average = estimate([sum(s) / k for s in scores], clusters).to_json()
    average["se_rerun"] = rerun_error(scores)
    found = {"accuracy": average, f"avg@{k}": average}
    for size in powers(k):
        found[f"pass@{size}"] = estimate(pass_at(right, k, size), clusters).to_json()
    found[f"maj@{k}"] = estimate([majority(s, v) for s, v in zip(scores, votes, strict=True)], clusters).to_json()
    return found
