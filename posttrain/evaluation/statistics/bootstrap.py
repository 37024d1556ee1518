"""The bootstrap over problems, for statistics that have no standard error of their own (medians, ratios, maj@k of a subset).

Problems (clusters) are drawn again with replacement; rows of samples never are pooled, for the samples of one problem are
not independent problems. Efron, JASA 82 (1987), for BCa.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posttrain.evaluation.statistics.estimates import CONFIDENCE, Estimate, numbered

RESAMPLES = 2000
Statistic = Callable[[NDArray[np.float64]], float]


def mean(values: NDArray[np.float64]) -> float:
    """Mean over problems of the means over their samples."""
    return float(values.mean())


def bootstrap(
    values: ArrayLike,
    statistic: Statistic = mean,
    *,
    method: str = "bca",
    inner: bool = False,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Estimate:
    """A statistic of the problems with a bootstrap interval.

    Args:
        values: one row a problem, (n,) or (n, k).
        statistic: of such an array with any number of rows.
        method: `percentile`, or `bca`: corrected for bias and skew.
        inner: draw each problem's samples again too. The means of k samples hold their noise already, so this counts it
            twice; it is for statistics that are not smooth in the samples (a share of problems solved always, say).
        clusters: one name a problem; whole clusters are drawn.

    Returns:
        `low` and `high` are None for fewer than two problems (clusters); `se` is the spread of the resamples.

    Raises:
        ValueError: no values, another method, or a statistic that is not a number.
    """
    x = np.asarray(values, dtype=float)
    if x.ndim not in (1, 2) or x.size == 0:
        raise ValueError("values: one row a problem, at least one")
    if method not in ("percentile", "bca"):
        raise ValueError(f"method: percentile or bca, not {method}")
    if inner and x.ndim == 1:
        raise ValueError("inner: a problem with one value has no samples to draw again")
    labels = numbered(clusters, len(x))
    groups = [np.flatnonzero(labels == g) for g in range(labels.max() + 1)]
    seen = _number(statistic(x))
    unit = "problems" if len(groups) == len(x) else "clusters"
    if len(groups) < 2:
        return Estimate(seen, None, None, None, f"unknown: one {unit[:-1]}")
    generator = np.random.default_rng(seed)
    found = np.array([_number(statistic(_again(x, groups, inner, generator))) for _ in range(resamples)])
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    if method == "bca":
        tails = _corrected(tails, found, seen, x, groups, statistic)
    low, high = np.quantile(found, tails)
    name = {"percentile": "percentile", "bca": "BCa"}[method]
    said = f"bootstrap ({name}, {resamples}) over {len(groups)} {unit}"
    return Estimate(seen, float(low), float(high), float(found.std(ddof=1)), said)


def _again(
    x: NDArray[np.float64], groups: Sequence[NDArray[np.intp]], inner: bool, generator: np.random.Generator
) -> NDArray[np.float64]:
    chosen = generator.integers(0, len(groups), len(groups))
    rows = x[chosen] if len(groups) == len(x) else x[np.concatenate([groups[g] for g in chosen])]
    if inner:
        rows = np.take_along_axis(rows, generator.integers(0, rows.shape[1], rows.shape), axis=1)
    return rows


def _corrected(
    tails: NDArray[np.float64],
    found: NDArray[np.float64],
    seen: float,
    x: NDArray[np.float64],
    groups: Sequence[NDArray[np.intp]],
    statistic: Statistic,
) -> NDArray[np.float64]:
    """BCa's tails: z0 from the share of resamples below what was seen (equal ones count half), a from leaving one out."""
    from scipy import stats

    if np.ptp(found) < 1e-12:
        return tails
    share = (np.mean(found < seen) + np.mean(found <= seen)) / 2
    z0 = float(stats.norm.ppf(np.clip(share, 1e-6, 1 - 1e-6)))
    without = np.array([statistic(np.delete(x, group, axis=0)) for group in groups])
    away = without.mean() - without
    scale = float((away**2).sum()) ** 1.5
    a = float((away**3).sum()) / (6 * scale) if scale > 1e-18 else 0.0
    z = z0 + stats.norm.ppf(tails)
    return np.asarray(stats.norm.cdf(z0 + z / (1 - a * z)))


def _number(value: float) -> float:
    if not np.isfinite(value):
        raise ValueError(f"the statistic of the problems, or of some drawn again, is {value}")
    return float(value)
