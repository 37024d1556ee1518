"""Chunks: windows over a document's tokens, without gaps and without a tail that the window before already holds."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.errors import Mistake
from posttrain.evaluation.building.documents import Document

LENGTH = 2048
OVERLAP = 128
"""Tokens. (YourBench: 8192 and 512 of cl100k_base. Shorter ones keep a citation in sight of more of the text's facts.)"""

Spans = Callable[[str], Sequence[tuple[int, int]]]
"""A text → the places [start, end) of its tokens, in characters, from left to right."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a document: `document.text[start:end] == text`."""

    document: str
    index: int
    start: int
    end: int
    tokens: int
    text: str

    @property
    def id(self) -> str:
        return f"{self.document}#{self.index}"


def windows(n: int, length: int, overlap: int) -> list[tuple[int, int]]:
    """Windows [start, end) of `length` over `n` tokens, each beginning `overlap` tokens before the last one's end.

    The first window that reaches the end is the last: the plain loop over starts adds one more, inside the one before,
    whenever n mod (length - overlap) is in 1..overlap, and so counts the ends of documents twice.

    Raises:
        Mistake: a length below 1, or an overlap that is not in 0..length-1.
    """
    if length < 1:
        raise Mistake(f"chunk length: at least 1 token, not {length}")
    if not 0 <= overlap < length:
        raise Mistake(f"chunk overlap: 0 to {length - 1} tokens (less than the length), not {overlap}")
    found: list[tuple[int, int]] = []
    start = 0
    while n > 0:
        end = min(start + length, n)
        found.append((start, end))
        if end == n:
            break
        start += length - overlap
    return found


def word_spans(text: str) -> Sequence[tuple[int, int]]:
    """Words: runs of anything but white space. What counts as a token where no tokenizer is given."""
    ends = array("Q")
    for found in re.finditer(r"\S+", text):
        ends.extend(found.span())
    return _Places(ends)


class _Places(Sequence[tuple[int, int]]):
    """Pairs, held as bare numbers: a list of pairs takes 30 bytes for each byte of a text."""

    def __init__(self, ends: array[int]):
        self._ends = ends

    def __len__(self) -> int:
        return len(self._ends) // 2

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        place = range(len(self))[place]
        return self._ends[2 * place], self._ends[2 * place + 1]


def tokenizer_spans(tokenizer: Any) -> Spans:
    """Tokens of a fast Hugging Face tokenizer, or of the `tokenizers` package.

    Raises:
        Mistake: the tokenizer does not say where its tokens are (a slow one).
    """
    if hasattr(tokenizer, "encode_batch"):
        return lambda text: tokenizer.encode(text, add_special_tokens=False).offsets
    if not getattr(tokenizer, "is_fast", False):
        raise Mistake(f"{type(tokenizer).__name__}: does not say where its tokens are; chunks need a fast tokenizer")
    return lambda text: tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)[
        "offset_mapping"
    ]


def chunk(document: Document, length: int = LENGTH, overlap: int = OVERLAP, spans: Spans = word_spans) -> list[Chunk]:
    """The chunks of a document, in order.

    What stands between two tokens belongs to the first, so every character but white space at the edges is in some chunk.
    """
    text = document.text
    places = spans(text)
    found: list[Chunk] = []
    for first, last in windows(len(places), length, overlap):
        # (A character may be spelled in several tokens, which then share its place.)
        start = places[first][0] if first else 0
        end = places[last][0] if last < len(places) else len(text)
        part = text[start:end]
        start += len(part) - len(part.lstrip())
        part = part.strip()
        if part:
            found.append(Chunk(document.id, len(found), start, start + len(part), last - first, part))
    return found
