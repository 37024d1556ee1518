"""Groups of chunks for questions that need several of them: of one document (multi-hop), or one each of several documents.

Sizes are drawn first, each as likely as another, then the chunks: drawn from all groups at once, nearly all would be of the
largest size. (YourBench, whose sizes are 2 to 5 too, 2504.01833.)
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, product

from posttrain.evaluation.building.chunks import Chunk

SINGLE, MULTI, CROSS = "single_hop", "multi_hop", "cross_document"
"""YourBench's names of the three kinds."""
HOPS = (2, 5)
"""Chunks of a group, the fewest and the most."""
TRIES = 50
"""Draws for each group that is wanted; where nearly all groups are wanted, some may be missing after them."""


@dataclass(frozen=True, slots=True)
class Group:
    """Chunks that are shown together, in the order of the documents."""

    chunks: tuple[Chunk, ...]
    scope: str = SINGLE

    @property
    def id(self) -> str:
        return " + ".join(chunk.id for chunk in self.chunks)


def within(chunks: Sequence[Chunk], most: int, seed: int, hops: tuple[int, int] = HOPS) -> list[Group]:
    """At most `most` different groups of chunks of one document, each with `hops` chunks (from, to)."""
    places = _by_document(chunks)
    documents = [found for found in places.values() if len(found) >= hops[0]]
    counts = [sum(math.comb(len(d), h) for h in _sizes(len(d), hops)) for d in documents]
    if sum(counts) <= most:
        every = [g for d in documents for h in _sizes(len(d), hops) for g in combinations(d, h)]
        return _made(every, chunks, MULTI)
    chances = [len(d) for d in documents]

    def draw(rng: random.Random) -> tuple[int, ...]:
        (document,) = rng.choices(documents, chances)
        return tuple(sorted(rng.sample(document, rng.choice(_sizes(len(document), hops)))))

    return _made(_different(draw, most, random.Random(f"{seed}/{MULTI}")), chunks, MULTI)


def across(chunks: Sequence[Chunk], most: int, seed: int, hops: tuple[int, int] = HOPS) -> list[Group]:
    """At most `most` different groups of one chunk each of `hops` documents (from, to)."""
    documents = list(_by_document(chunks).values())
    sizes = _sizes(len(documents), hops)
    if not sizes:
        return []
    if len(documents) <= 12:  # few enough to be counted one by one
        sets = [some for h in sizes for some in combinations(documents, h)]
        if sum(math.prod(map(len, some)) for some in sets) <= most:
            return _made([g for some in sets for g in product(*some)], chunks, CROSS)

    def draw(rng: random.Random) -> tuple[int, ...]:
        return tuple(sorted(rng.choice(d) for d in rng.sample(documents, rng.choice(sizes))))

    return _made(_different(draw, most, random.Random(f"{seed}/{CROSS}")), chunks, CROSS)


def _sizes(there: int, hops: tuple[int, int]) -> range:
    return range(hops[0], min(hops[1], there) + 1)


def _by_document(chunks: Sequence[Chunk]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for place, chunk in enumerate(chunks):
        found.setdefault(chunk.document, []).append(place)
    return found


def _different(
    draw: Callable[[random.Random], tuple[int, ...]], most: int, rng: random.Random
) -> list[tuple[int, ...]]:
    found: set[tuple[int, ...]] = set()
    for _ in range(TRIES * most):
        if len(found) == most:
            break
        found.add(draw(rng))
    return list(found)


def _made(places: Sequence[Sequence[int]], chunks: Sequence[Chunk], scope: str) -> list[Group]:
    return [Group(tuple(chunks[i] for i in group), scope) for group in sorted(map(tuple, places))]
