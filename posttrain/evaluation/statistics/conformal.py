"""How unusual a score is among stored ones, without any claim about their distribution."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike


def conformal_pvalue(score: float, pool: ArrayLike) -> float:
    """(number of stored scores ≤ `score`, plus 1) / (stored scores + 1), in (0, 1].

    If `score` is exchangeable with those in `pool` (higher = more reliable), it is at most a with probability a at most, for
    every a. Without the two ones (as in released code that compares a share of the pool with a threshold) it is not. With n
    stored scores it has steps of 1/(n+1): a pool of 16 cannot tell 5 % from 6 %.

    Source: Xiong et al., arXiv 2509.15148; Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World" (2005).

    Raises:
        ValueError: a score is not a number.
    """
    stored = np.asarray(pool, dtype=float).ravel()
    if np.isnan(score) or np.isnan(stored).any():
        raise ValueError("a score is not a number")
    return (int(np.sum(stored <= score)) + 1) / (stored.size + 1)


def conformal_quantile(scores: ArrayLike, confidence: float) -> float:
    """The bound that a further score stays under (≤) with at least this chance: the ⌈(n + 1) · confidence⌉-th smallest of n.

    Right for every distribution, if the further score is exchangeable with the stored ones. Infinite if there are too few:
    19 scores are needed for 0.95.

    Source: Lei, G'Sell, Rinaldo, Tibshirani and Wasserman, arXiv 1604.04173, algorithm 2.

    Raises:
        ValueError: no scores, one that is not a number, or a confidence outside (0, 1).
    """
    stored = np.sort(np.asarray(scores, dtype=float).ravel())
    if not stored.size or np.isnan(stored).any():
        raise ValueError("scores should be numbers, one at least")
    if not 0 < confidence < 1:
        raise ValueError("confidence should be between 0 and 1")
    # As written, not as the nearest binary number: 20 · 0.95 is 19, and no hair above it.
    place = math.ceil((stored.size + 1) * Fraction(str(confidence)))
    return float(stored[place - 1]) if place <= stored.size else math.inf
