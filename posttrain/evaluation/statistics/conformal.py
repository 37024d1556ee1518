"""How unusual a score is among stored ones, without any claim about their distribution."""

from __future__ import annotations

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
