"""The paired test: two models on the same problems.

Pairing by problem takes out what both find hard, which is most of the variance. The interval is over problems (clusters);
the test is McNemar's exact one where every problem has one 0/1 score a side, a sign-flip permutation where problems are
few, else the paired t test. "better" needs both: p below 0.05 and an interval without 0.

Formulas: Miller, arXiv 2411.00640 (paired errors); McNemar, Psychometrika 12 (1947).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from posttrain.evaluation.statistics.estimates import CONFIDENCE, cluster_sums, standard_error, wilson
from posttrain.evaluation.statistics.power import smallest_difference

FEW = 100
"""Below so many problems the permutation test is used, above the t test."""
FLIPS = 16
"""Up to so many problems that differ, all 2^n sign patterns are counted; above, DRAWS random ones."""
DRAWS = 100_000


UNCLEAR = "not distinguishable"


def verdict(p: float | None, low: float | None, high: float | None) -> str:
    """`better` or `worse` if p is below 0.05 and the interval of the difference has no 0 in it, else `not distinguishable`."""
    if p is None or low is None or high is None or p >= 1 - CONFIDENCE or low <= 0 <= high:
        return UNCLEAR
    return "better" if low > 0 else "worse"


def mcnemar(better: int, worse: int) -> float:
    """Exact two-sided p of `better` against `worse` discordant pairs: the binomial test with chance 1/2."""
    from scipy import stats

    n = better + worse
    return 1.0 if n == 0 else float(stats.binomtest(better, n, 0.5).pvalue)


def sign_flip(differences: ArrayLike, seed: int = 0) -> float:
    """Two-sided p of the mean of `differences` under independent sign flips (exact up to 16 that are not 0)."""
    d = np.asarray(differences, dtype=float)
    d = d[d != 0]
    if d.size == 0:
        return 1.0
    seen = abs(d.sum()) - 1e-9 * np.abs(d).sum()
    if d.size <= FLIPS:
        patterns = (np.arange(2**d.size)[:, None] >> np.arange(d.size)) & 1
        return float(np.mean(np.abs((2 * patterns - 1) @ d) >= seen))
    generator = np.random.default_rng(seed)
    hits = sum(
        int(np.sum(np.abs((2 * generator.integers(0, 2, (1000, d.size)) - 1) @ d) >= seen))
        for _ in range(DRAWS // 1000)
    )
    return (hits + 1) / (DRAWS + 1)


def interval(
    differences: ArrayLike, clusters: Sequence[Hashable] | None = None
) -> tuple[float | None, float | None, float | None, str]:
    """Standard error, low, high and method for the mean of differences in [-1, 1].

    Mean ± t standard errors. Where all differences are equal there is no spread to go by: then the interval says what
    at most a share u of unseen problems could do to the mean, u being Wilson's upper bound for 0 of n.
    """
    from scipy import stats

    d = np.asarray(differences, dtype=float)
    mean = float(d.mean())
    se, m = standard_error(d, clusters)
    if m < 2:
        return None, None, None, "unknown: one problem" if d.size == 1 else "unknown: one cluster"
    unit = "problems" if m == d.size else "clusters"
    if np.ptp(d) < 1e-12:
        unseen = wilson(0.0, m, float(stats.norm.ppf(0.5 + CONFIDENCE / 2)))[1]
        return (
            0.0,
            mean - unseen * (1 + mean),
            mean + unseen * (1 - mean),
            f"all {m} {unit} differ alike: Wilson bound",
        )
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, m - 1)) * se
    return se, max(-1.0, mean - half), min(1.0, mean + half), f"t over {m} {unit}"


def paired(
    a: Mapping[str, Sequence[float]], b: Mapping[str, Sequence[float]], clusters: Mapping[str, Hashable] | None = None
) -> dict[str, Any]:
    """The paired test of scores by item (the same items on both sides, any number of samples each).

    Returns the numbers of a `Comparison`, from `n` to `verdict`.
    """
    if a.keys() != b.keys() or not a:
        raise ValueError("both sides need the same items, at least one")
    items = sorted(a)
    mean_a = np.array([np.mean(a[i]) for i in items])
    mean_b = np.array([np.mean(b[i]) for i in items])
    d = mean_b - mean_a
    d[np.abs(d) < 1e-12] = 0.0
    names = [clusters[i] for i in items] if clusters else list(items)
    se, low, high, method = interval(d, names)
    m = len(set(names))
    better, worse = int(np.sum(d > 0)), int(np.sum(d < 0))
    single = all(len(s) == 1 and s[0] in (0, 1) for side in (a, b) for s in side.values())
    p: float | None
    if m < 2:
        p, test = None, "none: one problem"
    elif m == len(items) and single:
        p, test = mcnemar(better, worse), "McNemar, exact"
    elif m < FEW or se == 0:
        sums = cluster_sums(d, names)
        p = sign_flip(sums)
        exact = int(np.count_nonzero(sums)) <= FLIPS
        test = "sign flips, all" if exact else f"sign flips, {DRAWS} random"
    else:
        from scipy import stats

        assert se is not None
        p, test = float(2 * stats.t.sf(abs(float(d.mean())) / se, m - 1)), "paired t"
    k = max(len(s) for side in (a, b) for s in side.values())
    return {
        "n": len(items),
        "value_a": float(mean_a.mean()),
        "value_b": float(mean_b.mean()),
        "difference": float(d.mean()),
        "se": se,
        "low": low,
        "high": high,
        "p": p,
        "test": test,
        "method": method,
        "better": better,
        "worse": worse,
        "smallest": smallest_difference(se, m, k) if se is not None else None,
        "verdict": verdict(p, low, high),
        "k": k,
    }
