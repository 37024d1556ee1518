"""Which of a problem's samples gave the same answer, by the grader's own notion of sameness."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rewards.grading import grade_many

RIGHT = "right"
"""Class of every answer that was judged right: all of them equal the gold, so they are one answer."""


@dataclass(frozen=True, slots=True)
class Vote:
    """One sample's answer: what was extracted (None = nothing) and whether it was judged right."""

    answer: str | None
    right: bool

    @property
    def text(self) -> str | None:
        return None if self.answer is None else " ".join(self.answer.split())


def classes(problems: Sequence[Sequence[Vote]]) -> list[list[str | None]]:
    """A class name for each sample of each problem; None = no answer.

    Wrong answers that differ as text are compared by the grader, in either direction, but only where that can change
    which class is the largest: where one leads by more than all others together could gather, texts stand as they are.
    """
    waiting = [_undecided(votes) for votes in problems]
    leader: list[dict[str, str]] = [{} for _ in problems]
    while any(waiting):
        pairs: list[tuple[str, str]] = []
        places: list[tuple[int, str, str]] = []
        for i, texts in enumerate(waiting):
            if not texts:
                continue
            first, *rest = texts
            waiting[i] = rest
            for other in rest:
                if not _plainly_different(first, other):
                    pairs += [(first, f"\\boxed{{{other}}}"), (other, f"\\boxed{{{first}}}")]
                    places.append((i, first, other))
        verdicts = grade_many(pairs) if pairs else []
        for (i, first, other), one, two in zip(places, verdicts[::2], verdicts[1::2], strict=True):
            if "RIGHT" in (one.verdict, two.verdict):
                leader[i][other] = first
                waiting[i].remove(other)
    return [[_name(vote, found) for vote in votes] for votes, found in zip(problems, leader, strict=True)]


def _name(vote: Vote, leader: dict[str, str]) -> str | None:
    if vote.right:
        return RIGHT
    text = vote.text
    return None if text is None else f"= {leader.get(text, text)}"


def _undecided(votes: Sequence[Vote]) -> list[str]:
    """The different wrong answers, most frequent first; empty if merging some cannot change the largest class."""
    wrong = Counter(vote.text for vote in votes if not vote.right and vote.text is not None)
    right = sum(vote.right for vote in votes)
    total = wrong.total()
    if len(wrong) < 2 or right > total:
        return []
    texts = [text for text, _ in wrong.most_common() if text is not None]
    most = wrong[texts[0]]
    return [] if most > right + (total - most) else texts


def _plainly_different(a: str, b: str) -> bool:
    """Two plain decimals that are not one number: no need to ask the grader."""
    plain = re.compile(r"[+-]?\d{1,15}(\.\d{1,15})?")
    if not plain.fullmatch(a) or not plain.fullmatch(b):
        return False
    x, y = float(a), float(b)
    return abs(x - y) > 1e-5 * max(abs(x), abs(y))
