"""What is asked about the documents."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from posttrain.errors import Mistake
from posttrain.evaluation.building import chunks, gates, groups
from posttrain.evaluation.building.chunks import Spans, word_spans
from posttrain.evaluation.building.documents import Document
from posttrain.evaluation.building.groups import Group
from posttrain.evaluation.building.wording import CHOICE, OPEN, TYPES, Wishes

MOST_WISHES = 4000
"""Characters of additional instructions."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked about the documents.

    Raises:
        Mistake: settings that make no sense; which, and the mend.
    """

    kinds: tuple[str, ...] = (OPEN, CHOICE)
    questions: int = 5
    """Of each kind, a chunk or group of chunks."""
    length: int = chunks.LENGTH
    overlap: int = chunks.OVERLAP
    most: int | None = None
    """Ask about so many single chunks only, drawn by `seed`; 0 = none, where there are groups."""
    multi_hop: int = 0
    """Ask about so many groups of chunks of one document, at most."""
    cross_document: int = 0
    """Ask about so many groups of chunks of different documents, at most."""
    hops: tuple[int, int] = groups.HOPS
    """Chunks of a group, the fewest and the most."""
    types: tuple[str, ...] = ()
    """Keys of `questions.TYPES`; none = whatever the writer finds."""
    difficulty: tuple[int, int] | None = None
    """Estimated difficulties that are asked for, from and to (1..10). Nothing is dropped by it: it is the writer's opinion."""
    instructions: str = ""
    """Further wishes, in words; the gates stay as they are."""
    seed: int = 0
    cut: float = gates.CUT
    """A citation that is not word by word in its chunk needs this partial match."""

    def __post_init__(self) -> None:
        if not self.kinds or set(self.kinds) - {OPEN, CHOICE}:
            raise Mistake(f"kinds: {OPEN}, {CHOICE} or both, not {', '.join(self.kinds) or 'none'}")
        several = self.multi_hop > 0 or self.cross_document > 0
        for name, value, least in (
            ("questions", self.questions, 1),
            ("chunks", self.most, 0 if several else 1),
            ("multi-hop", self.multi_hop, 0),
            ("cross-document", self.cross_document, 0),
        ):
            if value is not None and value < least:
                raise Mistake(f"{name}: at least {least}, not {value}")
        low, high = self.hops
        if not 2 <= low <= high <= 10:
            raise Mistake(f"hops: from 2 to at most 10, rising, not {low}-{high}")
        if unknown := sorted(set(self.types) - set(TYPES)):
            raise Mistake(f"types: {', '.join(unknown)}: there are {', '.join(TYPES)}")
        if self.difficulty is not None and not 1 <= self.difficulty[0] <= self.difficulty[1] <= 10:
            raise Mistake(f"difficulty: from 1 to 10, rising, not {self.difficulty[0]}-{self.difficulty[1]}")
        if len(self.instructions) > MOST_WISHES:
            raise Mistake(f"instructions: {len(self.instructions)} characters; at most {MOST_WISHES}")
        chunks.windows(0, self.length, self.overlap)

    @property
    def wishes(self) -> Wishes:
        return Wishes(self.types, self.difficulty, self.instructions.strip())

    def groups(self, documents: Sequence[Document], spans: Spans = word_spans) -> list[Group]:
        """Single chunks, then groups of one document, then of several.

        Raises:
            Mistake: groups are asked for, and the documents have none.
        """
        every = [c for document in documents for c in chunks.chunk(document, self.length, self.overlap, spans)]
        single = every
        if self.most is not None and self.most < len(every):
            single = [every[i] for i in sorted(random.Random(self.seed).sample(range(len(every)), self.most))]
        found = [Group((chunk,)) for chunk in single]
        if self.multi_hop:
            made = groups.within(every, self.multi_hop, self.seed, self.hops)
            if not made:
                raise Mistake(
                    f"multi-hop: no document has {self.hops[0]} chunks of {self.length} tokens; make chunks shorter "
                    "(--chunk-tokens), or leave it out"
                )
            found += made
        if self.cross_document:
            made = groups.across(every, self.cross_document, self.seed, self.hops)
            if not made:
                raise Mistake(f"cross-document: takes {self.hops[0]} documents, and there are {len(documents)}")
            found += made
        return found
