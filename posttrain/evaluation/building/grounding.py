"""Grounding: how much of a question's citations is in the text, by fuzzy partial match; and where it stands there.

The scores are YourBench's (2504.01833; its citation_score_filtering stage). They only score: what is dropped, and why a
cut belongs on `chunk_score` and not on the total, is in `gates`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from posttrain.evaluation.building.chunks import Chunk
from posttrain.evaluation.building.matching import plain, quoted

ALPHA, BETA = 0.7, 0.3


@dataclass(frozen=True, slots=True)
class Scores:
    """All from 0 to 100."""

    chunk: float
    """(1/m) Σ_i max_k pr(c_i, k): are the citations in the chunks?"""
    answer: float
    """(1/m) Σ_i pr(c_i, answer): is the answer in the citations' words? Low for a right answer in other words."""
    citation: float
    """ALPHA · chunk + BETA · answer."""


def partial_ratio(a: str, b: str) -> float:
    """0..100: 100 · 2L/(|x|+|y|), L the longest common subsequence of the shorter text x and the window y of the longer
    one, no longer than x, that fits it best. 100 for two empty texts, 0 if one is empty."""
    from rapidfuzz import fuzz

    return float(fuzz.partial_ratio(a, b))


def scores(citations: Sequence[str], answer: str, chunks: Sequence[str]) -> Scores:
    """The three scores of one question; all 0 without citations. The texts are compared as they are."""
    if not citations or not chunks:
        return Scores(0.0, 0.0, 0.0)
    m = len(citations)
    of_chunk = sum(max(partial_ratio(c, k) for k in chunks) for c in citations) / m
    of_answer = sum(partial_ratio(c, answer) for c in citations) / m
    return Scores(of_chunk, of_answer, ALPHA * of_chunk + BETA * of_answer)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a citation stands in its document."""

    citation: str
    """As the model gave it."""
    chunk: str
    """Id of the chunk."""
    document: str
    start: int
    end: int
    """Characters [start, end) of the document (of the chunk, where only that is known)."""
    text: str
    """What stands there."""
    score: float
    """Partial match in plain typography, 0..100."""
    verbatim: bool
    """True if it is there word by word, whatever the typography."""


def locate(citation: str, chunks: Sequence[Chunk]) -> Place | None:
    """The best place of a citation in these chunks: word by word if it is there at all, else the best partial match.

    None for a citation without a character, or longer than every chunk: against a shorter text the partial match asks
    the other way round, and is 100 for any chunk that the citation holds.
    """
    from rapidfuzz import fuzz

    wanted = quoted(citation)
    best: Place | None = None
    for chunk in chunks:
        text = plain(chunk.text)
        if not wanted or len(text.text) < len(wanted):
            continue
        start = _find_words(text.text, wanted)
        if start >= 0:
            return _place(citation, chunk, start, start + len(wanted), 100.0, True)
        found = fuzz.partial_ratio_alignment(wanted, text.text)
        if found is not None and (best is None or found.score > best.score) and found.dest_start < found.dest_end:
            start, end = _whole_words(text.text, found.dest_start, found.dest_end)
            best = _place(citation, chunk, start, end, float(found.score), False)
    return best


def _find_words(text: str, wanted: str) -> int:
    """Where `wanted` stands in `text` without cutting a word or number ("12 boats" is not in "412 boats"); -1 = nowhere."""
    start = text.find(wanted)
    while start >= 0:
        end = start + len(wanted)
        cut = wanted[0].isalnum() and start > 0 and text[start - 1].isalnum()
        if not cut and not (wanted[-1].isalnum() and end < len(text) and text[end].isalnum()):
            return start
        start = text.find(wanted, start + 1)
    return -1


def _whole_words(text: str, start: int, end: int) -> tuple[int, int]:
    """The same place, without words cut at its edges."""
    while start > 0 and not text[start - 1].isspace() and not text[start].isspace():
        start -= 1
    while end < len(text) and not text[end].isspace() and not text[end - 1].isspace():
        end += 1
    return start, end


def _place(citation: str, chunk: Chunk, start: int, end: int, score: float, verbatim: bool) -> Place:
    first, last = plain(chunk.text).span(start, end)
    return Place(
        citation,
        chunk.id,
        chunk.document,
        chunk.start + first,
        chunk.start + last,
        chunk.text[first:last],
        round(score, 2),
        verbatim,
    )
