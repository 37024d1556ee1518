"""Accuracy by what a benchmark of one's own knows of its questions: who wrote them, and how many near-duplicates each stands for.

A writer's questions may suit models of its family, so each writer's are looked at apart. The weight is how often writers came
upon the same question (YourBench's, 2504.01833: Σ w r / Σ w over the questions kept). It is reported beside accuracy and does
not make it: writers repeat what is easy to ask, and what stands in two overlapping chunks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from posttrain.evaluation.benchmarks.base import Problem
from posttrain.evaluation.statistics.estimates import CONFIDENCE, Estimate, cluster_sums, estimate


def parts(problems: Sequence[Problem], scores: Sequence[float]) -> dict[str, Any]:
    """`weighted`: an `Estimate`, if a question weighs more than another; `by_writer`, `by_scope`: name → `Estimate` and `n`, if
    there are several. Empty for benchmarks that know none of it. `scores`: one a problem, 0 to 1."""
    found: dict[str, Any] = {}
    clusters = [p.cluster for p in problems]
    weights = [weight_of(p) for p in problems]
    if len(set(weights)) > 1:
        found["weighted"] = weighted(scores, weights, clusters).to_json()
    names = {"by_writer": [writer_of(p) for p in problems], "by_scope": [scope_of(p) for p in problems]}
    for key, labels in names.items():
        counts = Counter(labels)
        if len(counts) > 1:
            found[key] = {
                label: {"n": counts[label]}
                | estimate(
                    [s for s, one in zip(scores, labels, strict=True) if one == label],
                    [c for c, one in zip(clusters, labels, strict=True) if one == label],
                ).to_json()
                for label in sorted(counts)
            }
    return found


def weighted(
    values: ArrayLike, weights: Sequence[float], clusters: Sequence[Hashable], confidence: float = CONFIDENCE
) -> Estimate:
    """Σ w r / Σ w, with the cluster-robust error of a ratio: se² = m/(m-1) · Σ_g (Σ_{i in g} w_i (r_i - mean))² / (Σ w)²."""
    from scipy import stats

    x, w = np.asarray(values, dtype=float), np.asarray(weights, dtype=float)
    mean = min(1.0, max(0.0, float(w @ x / w.sum())))
    sums = cluster_sums(w * (x - mean), clusters)
    m = sums.size
    if m < 2:
        return Estimate(mean, None, None, None, "unknown: one cluster")
    se = math.sqrt(m / (m - 1) * float(sums @ sums)) / float(w.sum())
    half = float(stats.t.ppf(0.5 + confidence / 2, m - 1)) * se
    if se < 1e-12:
        return Estimate(mean, None, None, se, "unknown: all clusters are alike")
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half), se, f"weighted, t over {m} clusters")


def weight_of(problem: Problem) -> float:
    """How many questions it stands for; 1 where that is not said."""
    said = problem.columns.get("weight")
    known = isinstance(said, int | float) and not isinstance(said, bool) and math.isfinite(said) and said > 0
    return float(said) if known else 1.0  # type: ignore[arg-type]


def writer_of(problem: Problem) -> str:
    """The model that wrote the question, by its own word; empty = not said."""
    said = problem.columns.get("generator")
    name = said.get("model") if isinstance(said, Mapping) else said
    return name if isinstance(name, str) else ""


def scope_of(problem: Problem) -> str:
    """`single_hop`, `multi_hop` or `cross_document`; empty = not said."""
    said = problem.columns.get("scope")
    return said if isinstance(said, str) else ""
