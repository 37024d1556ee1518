"""The accuracy on the whole bank that an ability speaks for.

Answered items count as they were answered, the others with the model's chance (the p-IRT estimate of tinyBenchmarks,
arXiv 2402.14992). The interval joins the error of the ability, carried through that curve, and the chance of the
answers not given (Bernoulli, as if each were asked once: for more samples an item it is on the wide side). By itself it
believes the item model: it knows nothing of the error of the items' parameters or of a model that they do not fit. For that it
is widened by what was measured on the bank's own models (`heldout`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

from posttrain.evaluation.adaptive.ability import Ability
from posttrain.evaluation.adaptive.loop import Step
from posttrain.evaluation.adaptive.model import chance


def accuracy(
    ability: Ability, trace: Sequence[Step], a: ArrayLike, b: ArrayLike, confidence: float = 0.95, widen: float = 1.0
) -> tuple[float, float, float]:
    """Predicted accuracy over all items of a bank and its interval: value, low, high (shares).

    `widen`: factor of the interval's half-widths (`heldout.widening`).
    """
    value, below, above = sides(ability, trace, a, b, confidence)
    return value, max(0.0, value - widen * below), min(1.0, value + widen * above)


def sides(
    ability: Ability, trace: Sequence[Step], a: ArrayLike, b: ArrayLike, confidence: float
) -> tuple[float, float, float]:
    """Predicted accuracy, and how far the item model's own interval reaches below and above it."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    left = np.ones(a.size, dtype=bool)
    left[[step.item for step in trace]] = False
    right = sum(step.share for step in trace)
    z = float(norm.ppf(0.5 + confidence / 2))

    def at(theta: float) -> float:
        return float(right + chance(theta, a[left], b[left]).sum()) / a.size

    p = chance(ability.value, a[left], b[left])
    luck = z * math.sqrt(float(np.sum(p * (1 - p)))) / a.size
    value = at(ability.value)
    below = math.hypot(value - at(ability.value - z * ability.se), luck)
    above = math.hypot(at(ability.value + z * ability.se) - value, luck)
    return value, below, above
