"""The two-parameter logistic item model (2PL): P(right) = s(a (ability - b)), s(z) = 1 / (1 + exp(-z)).

a > 0 is an item's discrimination, b its difficulty, on the scale of abilities (mean 0, standard deviation 1 over the
models that the items were calibrated with). arXiv 2509.11106, section 3; Birnbaum (1968).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

Floats = NDArray[np.float64]


def chance(ability: ArrayLike, a: ArrayLike, b: ArrayLike) -> Floats:
    """Chance of a right answer, by broadcasting: abilities (m, 1) and items (n,) give (m, n)."""
    return np.asarray(expit(np.asarray(a) * (np.asarray(ability) - np.asarray(b))), dtype=float)


def information(ability: ArrayLike, a: ArrayLike, b: ArrayLike, samples: ArrayLike = 1) -> Floats:
    """Fisher information of an item about the ability, in 1/ability²: samples · a² s (1 - s); its peak a²/4 is at b."""
    s = chance(ability, a, b)
    return np.asarray(samples) * np.square(a) * s * (1 - s)
