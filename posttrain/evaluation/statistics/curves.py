"""What n samples are worth, for every n up to the number that were drawn: coverage, voting, picking by a score.

Each value is the mean over all subsets of n of the N samples of a problem, computed exactly, so a curve costs no further
samples and is no noisier at small n. Wang et al., arXiv 2203.11171 (voting); Chen et al., arXiv 2107.03374 (coverage).

coverage (`pass@n`) is what an oracle would pick, no deployable accuracy; voting (`maj@n`) and a scorer (`best-of-n`) are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posttrain.evaluation.statistics.estimates import estimate, majority, pass_at, powers

MOST = 1000
"""Samples a problem up to which binomial coefficients fit a float."""


def best_of_n(scores: Sequence[float], right: Sequence[float], n: int) -> float:
    """Chance that the best-scored of n samples is right, from N >= n samples of one problem; equal scores draw lots.

    sum over ranks j (from the best) of w_j right_j, w_j = C(N-j, n-1)/C(N, n): the chance that rank j is the best one of n.
    The ranks of equal scores share their weights. The weights of the first j ranks sum to pass@n of j right samples.

    Args:
        scores: what a scorer gave each sample, N numbers; higher is better.
        right: 1 or 0 (or a share) for each sample.

    Raises:
        ValueError: lengths differ, n > N, or a score is not a number.
    """
    values = np.asarray(scores, dtype=float)
    worth = np.asarray(right, dtype=float)
    if values.shape != worth.shape or values.ndim != 1:
        raise ValueError("scores and right need one number a sample each")
    if np.isnan(values).any():
        raise ValueError("a score is not a number")
    if not 1 <= n <= values.size:
        raise ValueError(f"best-of-{n} needs at least {n} samples a problem, and n >= 1")
    levels, group = np.unique(-values, return_inverse=True)
    sizes = np.bincount(group, minlength=levels.size)
    reached = pass_at(np.cumsum(sizes), values.size, n)  # the best of n is in this group or a better one
    chances = np.diff(reached, prepend=0.0)
    return float(chances @ (np.bincount(group, weights=worth, minlength=levels.size) / sizes))


def maj_at(classes: Sequence[Hashable | None], right: Sequence[float], n: int) -> float:
    """Chance that the answer most frequent among n samples is right, from N >= n samples of one problem; ties share.

    Exact: the mean of `estimates.majority` over all subsets of n.

    Args:
        classes: name of each sample's answer; None = no answer, which has no vote (no votes at all: 0).
        right: 1 or 0 for each sample; a class is worth the mean of its members.

    Raises:
        ValueError: lengths differ, n > N, or N > 1000.
    """
    if len(classes) != len(right):
        raise ValueError("classes and right need one entry a sample each")
    if not 1 <= n <= len(classes) <= MOST:
        raise ValueError(f"maj@{n} needs at least {n} samples a problem, at most {MOST}, and n >= 1")
    if n == len(classes):
        return majority(right, classes)
    counts = Counter(name for name in classes if name is not None)
    worth: Counter[Hashable] = Counter()
    for name, one in zip(classes, right, strict=True):
        if name is not None:
            worth[name] += one  # type: ignore[assignment]
    silent = len(classes) - counts.total()
    total = 0.0
    for name, count in counts.items():
        if worth[name]:
            others = tuple(sorted(c for other, c in counts.items() if other != name))
            total += worth[name] / count * _leads(count, others, silent, n)
    return min(1.0, total)


@lru_cache(maxsize=65536)
def _leads(own: int, others: tuple[int, ...], silent: int, n: int) -> float:
    """Chance that a class of `own` samples leads among n of all, where t others that tie leave it 1/(1 + t).

    Subsets are counted by a generating function: with `own` giving L, every other class gives fewer (or L, marked y) and
    the silent ones any number. 1/(1 + t) is the integral of y^t over [0, 1], for which Gauss's rule is exact.
    """
    total = math.comb(own + sum(others) + silent, n)
    found = 0.0
    for most in range(1, min(own, n) + 1):
        rest = n - most
        if most > max(others, default=0):  # no other class can reach as many, whatever the rest is
            found += math.comb(own, most) * math.comb(silent + sum(others), rest) / total
            continue
        able = sum(c >= most for c in others)
        ties = min(able, rest // most)
        ways = 0.0
        for y, weight in _rule(ties // 2 + 1):
            product = _choices(silent, silent, rest, 1.0)
            for size, times in Counter(others).items():
                product = _times(product, _choices(size, most, rest, y), times, rest)
            ways += weight * (product[rest] if product.size > rest else 0.0)
        found += math.comb(own, most) / total * ways
    return found


@lru_cache
def _rule(nodes: int) -> list[tuple[float, float]]:
    """Gauss's rule on [0, 1]: exact for polynomials up to degree 2 nodes - 1."""
    places, weights = np.polynomial.legendre.leggauss(nodes)
    return [(float(place + 1) / 2, float(weight) / 2) for place, weight in zip(places, weights, strict=True)]


@lru_cache(maxsize=4096)
def _binomials(size: int) -> NDArray[np.float64]:
    return np.array([float(math.comb(size, j)) for j in range(size + 1)])


def _choices(size: int, most: int, degree: int, y: float) -> NDArray[np.float64]:
    """Coefficients of sum over l <= most of C(size, l) x^l, the last one times y where l = most can be; up to `degree`."""
    made = _binomials(size)[: min(most, degree) + 1].copy()
    if y != 1.0 and most <= min(size, degree):
        made[most] *= y
    return made


def _times(product: NDArray[np.float64], factor: NDArray[np.float64], times: int, degree: int) -> NDArray[np.float64]:
    while times:  # by squaring
        if times % 2:
            product = np.convolve(product, factor)[: degree + 1]
        times //= 2
        factor = np.convolve(factor, factor)[: degree + 1] if times else factor
    return product


def weighted_vote(classes: Sequence[Hashable | None], right: Sequence[float], weights: Sequence[float]) -> float:
    """Score of the answer whose samples weigh most together (a scorer's value a sample); ties share.

    Raises:
        ValueError: lengths differ, or a weight is negative or not a number.
    """
    mass: dict[Hashable, float] = {}
    members: dict[Hashable, list[float]] = {}
    for name, one, weight in zip(classes, right, weights, strict=True):
        if not weight >= 0:
            raise ValueError(f"weights are numbers from 0 on, not {weight}")
        if name is not None:
            mass[name] = mass.get(name, 0.0) + weight
            members.setdefault(name, []).append(one)
    if not mass:
        return 0.0
    most = max(mass.values())
    leaders = [sum(m) / len(m) for name, m in members.items() if math.isclose(mass[name], most, rel_tol=1e-12)]
    return sum(leaders) / len(leaders)


def curves(
    right: Sequence[Sequence[float]],
    classes: Sequence[Sequence[Hashable | None]],
    scores: Sequence[Sequence[float]] | None = None,
    clusters: Sequence[Hashable] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """`pass`, `maj` and (with `scores`) `best_of` at n = 1, 2, 4 ... k, each with an interval over problems.

    Args:
        right: 0 or 1 for each of the k samples of each problem, (n, k).
        classes: their answers' names, (n, k).
        scores: a scorer's values, (n, k).
        clusters: one name a problem.

    Returns:
        For each curve, points {"n", "value", "low", "high"}.

    Raises:
        ValueError: problems with different numbers of samples, or none.
    """
    k = min((len(row) for row in right), default=0)
    if k == 0 or any(len(row) != k for row in right):
        raise ValueError("every problem needs the same number of samples, at least one")
    count = np.array([sum(map(bool, row)) for row in right])
    made: dict[str, list[dict[str, Any]]] = {"pass": [], "maj": []} | ({} if scores is None else {"best_of": []})
    for n in powers(k):
        values = {"pass": pass_at(count, k, n), "maj": [maj_at(c, r, n) for c, r in zip(classes, right, strict=True)]}
        if scores is not None:
            values["best_of"] = [best_of_n(s, r, n) for s, r in zip(scores, right, strict=True)]
        for name, one in values.items():
            found = estimate(np.clip(one, 0.0, 1.0), clusters)
            made[name].append({"n": n, "value": found.value, "low": found.low, "high": found.high})
    return made
