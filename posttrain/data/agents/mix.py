"""How often each trajectory of each source is drawn: multipliers, and a cap on any one source's share."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping

from posttrain.errors import Mistake


def draw(sizes: Mapping[str, int], weights: Mapping[str, float], cap: float | None, seed: int) -> dict[str, list[int]]:
    """Indices drawn from each source: ceil(w n) of them, with replacement where w > 1 (Song et al. 2025, Appendix C).

    Args:
        sizes: trajectories a source (n).
        weights: multiplier a source (w); 1 where absent.
        cap: largest share of the whole that one source may have; sources above it are drawn less often.

    Raises:
        Mistake: a weight that is no positive number, or a cap that the number of sources cannot keep.
    """
    counts = {}
    for name, size in sizes.items():
        weight = weights.get(name, 1.0)
        if not (math.isfinite(weight) and weight > 0):
            raise Mistake(f"sources: the weight of {name} is {weight}; it must be above 0")
        # The product of a float may lie a hair above the whole number that is meant.
        counts[name] = math.ceil(round(weight * size, 9))
    allowed = capped(counts, cap) if cap is not None else counts
    out = {}
    for name, size in sizes.items():
        rng = random.Random(f"{seed}/{name}")
        over = weights.get(name, 1.0) > 1
        out[name] = (
            [rng.randrange(size) for _ in range(allowed[name])]
            if over
            else sorted(rng.sample(range(size), allowed[name]))
        )
    return out


def capped(counts: Mapping[str, int], cap: float) -> dict[str, int]:
    """The counts, the largest of them lowered until none is more than `cap` of their sum.

    Raises:
        Mistake: with so few sources one of them always is.
    """
    if not 0 < cap <= 1:
        raise Mistake(f"cap: {cap} is no share; give a number above 0 and at most 1")
    if cap * len(counts) < 1 - 1e-9:
        raise Mistake(
            f"cap: with {len(counts)} sources one has at least {1 / len(counts):.0%} of the rows; the cap is {cap:.0%}"
        )
    out = dict(counts)
    # Lower the largest until it fits; each round ends with a smaller sum, so it ends.
    while out and max(out.values()) > cap * sum(out.values()) + 1e-9:
        name = max(out, key=lambda n: out[n])
        rest = sum(out.values()) - out[name]
        most = math.floor(cap * rest / (1 - cap) + 1e-9) if cap < 1 else out[name]
        out[name] = min(out[name] - 1, max(most, 0))
    if not sum(out.values()):
        raise Mistake(f"cap: at {cap:.0%} nothing is left of {dict(counts)}")
    return out
