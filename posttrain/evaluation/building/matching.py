"""Where a quotation stands in a text: typography made equal, and every place led back to the text as it is."""

from __future__ import annotations

import unicodedata
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

_ALIKE = {
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u00b4\u0060", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"'),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe63\uff0d", "-"),
    **dict.fromkeys("\u00ad\u200b\u200c\u200d\u2060\ufeff", ""),
    "\u2026": "...",
    "\ufb00": "ff",
    "\ufb01": "fi",
    "\ufb02": "fl",
    "\ufb03": "ffi",
    "\ufb04": "ffl",
}
"""Not Unicode's compatibility forms: those make 10\u00b2 a 102."""


@dataclass(frozen=True, slots=True)
class Plain:
    """A text in plain typography (case folded, marks apart from letters, runs of white space as one blank)."""

    text: str
    places: Sequence[int]
    """Of each character of `text`: which character of the original it comes from."""

    def span(self, start: int, end: int) -> tuple[int, int]:
        """[start, end) of the original for a non-empty [start, end) of `text`."""
        return self.places[start], self.places[end - 1] + 1


@lru_cache(maxsize=64)
def plain(text: str) -> Plain:
    """`text` in plain typography."""
    out: list[str] = []
    places = array("L")
    for place, character in enumerate(text):
        if character.isspace():
            letters = " " if out and out[-1] != " " else ""
        elif character in _ALIKE:
            letters = _ALIKE[character]
        else:
            letters = unicodedata.normalize("NFD", character.casefold())
        out.extend(letters)
        places.extend([place] * len(letters))
    if out and out[-1] == " ":
        out.pop()
        places.pop()
    return Plain("".join(out), places)


def quoted(citation: str) -> str:
    """A citation in plain typography, without quotation marks around it and dots that stand for what was left out."""
    text = plain(citation).text
    while True:
        bare = text.strip(" \"'")
        bare = bare.removeprefix("...").removesuffix("...").removeprefix("[").removesuffix("]")
        if bare == text:
            return text
        text = bare
