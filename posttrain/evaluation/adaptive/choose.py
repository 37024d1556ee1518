"""Which items to ask next: those that say most about the ability as it is estimated now."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import ArrayLike

from posttrain.evaluation.adaptive.model import information


def most_informative(ability: float, a: ArrayLike, b: ArrayLike, used: Collection[int], count: int) -> list[int]:
    """Indices of the `count` items (fewer if fewer are left) with the largest Fisher information at `ability`.

    Best first; of equal ones the first. `used` are not chosen. Several at once cost little against one at a time, and
    fill an engine's batch.
    """
    value = information(ability, a, b)
    value[list(used)] = -np.inf
    left = value.size - len(set(used))
    return [int(j) for j in np.argsort(-value, kind="stable")[: max(0, min(count, left))]]
