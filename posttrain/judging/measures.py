"""What verdicts say about a judge, each figure with an interval over prompts: examples of one prompt are no independent questions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posttrain.evaluation.statistics.bootstrap import bootstrap
from posttrain.evaluation.statistics.estimates import Estimate, estimate

Votes = Sequence[bool | None]
"""Verdicts; None = failed."""
NONE = Estimate(None, None, None, None, "unknown: no examples")
RESAMPLES = 1000


def share(values: Sequence[float | bool | None], clusters: Sequence[str]) -> Estimate:
    """Mean of the values that are there, all from 0 to 1."""
    kept = [(float(value), cluster) for value, cluster in zip(values, clusters, strict=True) if value is not None]
    if not kept:
        return NONE
    names = [cluster for _, cluster in kept]
    return estimate([value for value, _ in kept], None if len(set(names)) == len(names) else names)


def kappa(table: NDArray[np.float64]) -> float:
    """Cohen's kappa (Educational and Psychological Measurement 20, 1960) of rows (label, verdict) of 0 and 1: agreement beyond that
    of two judges who each keep to their share of ones. 0 where there is nothing beyond: both always say the same one thing."""
    label, verdict = table[:, 0], table[:, 1]
    seen = float(np.mean(label == verdict))
    p, q = float(label.mean()), float(verdict.mean())
    chance = p * q + (1 - p) * (1 - q)
    return 0.0 if chance > 1 - 1e-12 else (seen - chance) / (1 - chance)


def slope(table: NDArray[np.float64]) -> float:
    """Least-squares slope of the second column over the first; 0 where the first does not vary."""
    x = table[:, 0] - table[:, 0].mean()
    spread = float(x @ x)
    return 0.0 if spread < 1e-12 else float(x @ table[:, 1]) / spread


def resampled(
    rows: Sequence[Sequence[float] | None], clusters: Sequence[str], statistic: Callable[[NDArray[np.float64]], float]
) -> Estimate:
    """A statistic of the rows that are there, with a bootstrap over prompts (BCa)."""
    kept = [(row, cluster) for row, cluster in zip(rows, clusters, strict=True) if row is not None]
    if not kept:
        return NONE
    table: ArrayLike = [row for row, _ in kept]
    return bootstrap(table, statistic, clusters=[cluster for _, cluster in kept], resamples=RESAMPLES)


def mean(rows: Sequence[float | None], clusters: Sequence[str]) -> Estimate:
    """Mean of differences, which may be below 0."""
    boxed = [None if value is None else (value,) for value in rows]
    return resampled(boxed, clusters, lambda table: float(table.mean()))


def agreement(labels: Sequence[bool], verdicts: Votes, clusters: Sequence[str]) -> dict[str, Estimate]:
    """Accuracy, kappa, precision and recall of "met", and the shares of met among verdicts and labels. Failed ones are left out."""
    pairs = list(zip(labels, verdicts, strict=True))
    known = [None if verdict is None else label for label, verdict in pairs]
    return {
        "accuracy": share([None if v is None else v == x for x, v in pairs], clusters),
        "kappa": resampled([None if v is None else (x, v) for x, v in pairs], clusters, kappa),
        "precision": share([x if v else None for x, v in pairs], clusters),
        "recall": share([v if x else None for x, v in pairs], clusters),
        "met": share(verdicts, clusters),
        "labelled_met": share(known, clusters),
    }


def by_length(
    lengths: Sequence[int], labels: Sequence[bool], verdicts: Votes, clusters: Sequence[str]
) -> dict[str, Estimate]:
    """`per_doubling`: by how much the share of met rises above the labels' with each doubling of the response's length (least squares
    on log2 of characters + 1); accuracy among the shorter and the longer half."""
    middle = float(np.median(lengths)) if lengths else 0.0
    halves = [n > middle for n in lengths]
    right = [None if v is None else v == x for x, v in zip(labels, verdicts, strict=True)]
    rows = [
        None if v is None else (math.log2(n + 1), float(v) - float(x))
        for n, x, v in zip(lengths, labels, verdicts, strict=True)
    ]
    return {
        "per_doubling": resampled(rows, clusters, slope),
        "accuracy_short": share([None if long else r for r, long in zip(right, halves, strict=True)], clusters),
        "accuracy_long": share([r if long else None for r, long in zip(right, halves, strict=True)], clusters),
    }


def alike(answers: Sequence[Votes]) -> list[float | None]:
    """Of each example's verdicts, the share of pairs that are the same; None with fewer than two that did not fail."""
    found: list[float | None] = []
    for votes in answers:
        met, unmet = sum(v is True for v in votes), sum(v is False for v in votes)
        n = met + unmet
        found.append((met * (met - 1) + unmet * (unmet - 1)) / (n * (n - 1)) if n > 1 else None)
    return found


def changed(before: Votes, after: Votes) -> list[float | None]:
    """After minus before, 1 for met; None where one of the two failed."""
    return [None if a is None or b is None else float(b) - float(a) for a, b in zip(before, after, strict=True)]
