"""Which of a problem's samples gave the same answer, by the grader's own notion of sameness."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rewards.grading import Judgement, grade_many

RIGHT = "right"
"""Class of every answer that was judged right: all of them equal the gold, so they are one answer."""
STRIKES = 2
"""An answer on which the grader ran out of time so often is compared no more: it may be a bomb, and each try costs a deadline."""
_PLAIN = re.compile(r"[+-]?\d{1,15}(\.\d{1,15})?")


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

    Wrong answers that differ as text are one class where the grader takes either for the other, or both for a third. The
    classes do not depend on how often each was given, so they serve a vote among any n of the samples (`curves.maj_at`) as
    well as one among all. A problem without a right answer is left unsorted: it scores 0 however its wrong ones are classed.
    """
    ballots = [_Ballot(votes) for votes in problems]
    for apart in range(1, max((len(one.texts) for one in ballots), default=0)):
        pairs = [(one, a, b) for one in ballots for a, b in one.unknown(apart)]
        _compare(_compare(pairs), swapped=True)
    return [[one.name(vote) for vote in votes] for votes, one in zip(problems, ballots, strict=True)]


def by_text(problems: Sequence[Sequence[Vote]]) -> list[list[str | None]]:
    """The same where answers are one only if their texts are: compositions, which the grader would take for formulas."""
    return [
        [RIGHT if vote.right else None if vote.text is None else f"= {vote.text}" for vote in votes]
        for votes in problems
    ]


class _Ballot:
    """The different wrong answers of a problem, and which of them are known to be one (a forest of parents)."""

    def __init__(self, votes: Sequence[Vote]):
        right = any(vote.right for vote in votes)
        wrong = dict.fromkeys(vote.text for vote in votes if not vote.right and vote.text is not None)
        self.texts = [text for text in wrong if text is not None] if right else []
        self._parent = {text: text for text in self.texts}
        self.strikes: Counter[str] = Counter()

    def unknown(self, apart: int) -> Iterator[tuple[str, str]]:
        """Each text with the one so many places on, where it takes the grader to tell them apart."""
        for a, b in zip(self.texts, self.texts[apart:], strict=False):
            joined = self.root(a) == self.root(b)
            if not joined and max(self.strikes[a], self.strikes[b]) < STRIKES and not _plainly_different(a, b):
                yield a, b

    def root(self, text: str) -> str:
        while self._parent[text] != text:
            self._parent[text] = text = self._parent[self._parent[text]]
        return text

    def join(self, a: str, b: str) -> None:
        self._parent[self.root(b)] = self.root(a)

    def name(self, vote: Vote) -> str | None:
        if vote.right:
            return RIGHT
        text = vote.text
        return None if text is None else f"= {self.root(text) if text in self._parent else text}"


def _compare(pairs: Sequence[tuple[_Ballot, str, str]], swapped: bool = False) -> list[tuple[_Ballot, str, str]]:
    """Join those that the grader takes for one answer, the first as gold (or the second); what it finds different is left."""
    verdicts = grade_many((b, f"\\boxed{{{a}}}") if swapped else (a, f"\\boxed{{{b}}}") for _, a, b in pairs)
    different = []
    for (ballot, a, b), found in zip(pairs, verdicts, strict=True):
        if found.right:
            ballot.join(a, b)
        elif found.verdict is Judgement.TIMEOUT:
            ballot.strikes.update((a, b))
        else:
            different.append((ballot, a, b))
    return different


def _plainly_different(a: str, b: str) -> bool:
    """Two plain decimals that are not one number: no need to ask the grader."""
    if not _PLAIN.fullmatch(a) or not _PLAIN.fullmatch(b):
        return False
    x, y = float(a), float(b)
    return abs(x - y) > 1e-5 * max(abs(x), abs(y))
