"""What a question must pass: a quotation that is really there, and figures that are really in it. No model is asked.

The cut is on each citation's own match, never on the total `citation_score`: that loses a verbatim citation whose right
answer is in other words (85.6 and 76 in YourBench's terms) and, of multiple choice, hangs 30 points on whether a letter
happens to occur.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from posttrain.evaluation.building.chunks import Chunk
from posttrain.evaluation.building.grounding import Place, Scores, locate, scores
from posttrain.evaluation.building.matching import plain, quoted
from posttrain.evaluation.building.numbers import in_order, numbers
from posttrain.evaluation.building.questions import Draft

CUT = 85.0
SHORTEST = 20
"""Characters of a citation in plain typography, the least: "the" is in every text."""
WORDS = 4
LONGEST = 1000
"""Characters of a question, an answer or a citation, the most: who quotes a page proves nothing, and a partial match takes the
square of its length."""

NO_CITATION = "no citation"
SHORT = "citation too short"
LONG = "question, answer or citation too long"
ABSENT = "citation not in the text"
FIGURES = "a number of the citation is not in the text"
CHANGED = "a word of the answer is in the citation and not in the text"
ANSWER = "a number of the answer is in no citation"
POINTS = "the question speaks of the text"
ONE_CHUNK = "one chunk alone holds all citations"

_POINTS = re.compile(
    r"\b(?:the|this|that|above|given|provided|following) (?:\w+ )?(?:text|passage|excerpt|chunk|snippet|document)\b"
)


@dataclass(frozen=True, slots=True)
class Passed:
    places: tuple[Place, ...]
    scores: Scores
    """Computed in plain typography."""


@dataclass(frozen=True, slots=True)
class Refused:
    reason: str
    """One of the constants above: counted by it."""
    detail: str = ""


def check(draft: Draft, chunks: Sequence[Chunk], cut: float = CUT, *, several: bool = False) -> Passed | Refused:
    """Hold a draft against the chunks that it was written from.

    Args:
        several: it must need at least two of them: no chunk holds all of its citations. (Counting the chunks in which they
            were found would take a sentence that stands in the overlap of two for a second hop.)
    """
    if not draft.citations:
        return Refused(NO_CITATION)
    if max(map(len, (draft.question, draft.answer, *draft.citations))) > LONGEST:
        return Refused(LONG)
    if found := _POINTS.search(plain(draft.question).text):
        return Refused(POINTS, found[0])
    places: list[Place] = []
    for citation in draft.citations:
        words = quoted(citation)
        if len(words) < SHORTEST or len(words.split()) < WORDS:
            return Refused(SHORT, citation)
        place = locate(citation, chunks)
        if place is None or not (place.verbatim or place.score >= cut):
            return Refused(ABSENT, f"{place.score if place else 0:g}: {citation}")
        # Its own passage, not the whole chunk: a changed figure often occurs elsewhere in the chunk.
        if not place.verbatim and not in_order(numbers(words), numbers(plain(place.text).text)):
            return Refused(FIGURES, citation)
        # "Bo Ray became its first director" is a match of 88 where the text has Ann Lee.
        if not place.verbatim and (lost := _words(draft.answer) & _words(citation) - _words(place.text)):
            return Refused(CHANGED, f"{min(lost)}: {citation}")
        places.append(place)
    if several and any(all(_held(place, chunk) for place in places) for chunk in chunks):
        return Refused(ONE_CHUNK)
    there = {n for c in draft.citations for n in numbers(quoted(c))}
    missing = [n for n in numbers(plain(draft.answer).text, one=False) if n not in there]
    if missing:
        return Refused(ANSWER, str(missing[0]))
    plain_chunks = [plain(chunk.text).text for chunk in chunks]
    return Passed(
        tuple(places),
        scores([quoted(c) for c in draft.citations], plain(draft.answer).text, plain_chunks),
    )


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", plain(text).text))


def _held(place: Place, chunk: Chunk) -> bool:
    """True if the citation is in this chunk as well as in the one where it was found."""
    there = locate(place.citation, [chunk])
    return there is not None and (there.verbatim, there.score) >= (place.verbatim, place.score)
