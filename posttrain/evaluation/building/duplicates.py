"""Near-duplicates, within and across documents: one stands for all, with their number as its weight.

Measured by rapidfuzz's token *sort* ratio of the questions. Its token *set* ratio gives 100 where one question holds the
words of another ("Who led the survey?", "Who led the survey of 1962?"), which are two questions. MinHash on shingles pays
above some hundred thousand questions, and only estimates. Neither sees what an embedding would (other words, same sense);
what it merges, a reader would merge.

Words alone do not make a duplicate: a question about 2021 is not the one about 2022, nor is "who founded A" "who founded B".
So two questions are one only if their numbers are the same and so are their answers.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from posttrain.evaluation.building.matching import plain
from posttrain.evaluation.building.numbers import numbers

CUT = 90.0
ANSWERS = 85.0
"""How alike two answers of near-duplicates are, at least (0..100)."""
BLOCK = 1024
"""Questions compared at once with all the others."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is compared of a question."""

    question: str
    answer: str
    worth: float = 0.0
    """Of a cluster the one with the highest stays; the first of equals."""


@dataclass(frozen=True, slots=True)
class Merged:
    kept: list[int]
    """Indices that stay, ascending."""
    weights: list[int]
    """Of each: how many questions it stands for, itself included."""
    stands_for: dict[int, int]
    """Dropped near-duplicate → the one that stays."""
    contradictions: list[int]
    """Questions word for word the same with different answers: no one can say which is meant, so all of them go."""


def fold(rows: Sequence[Asked], cut: float = CUT) -> Merged:
    """Single linkage: whatever is joined by a chain of near-duplicates is one cluster."""
    texts = [_words(row.question) for row in rows]
    answers = [_words(row.answer) for row in rows]
    contradictions = _contradictions(texts, answers)
    left = [i for i in range(len(rows)) if i not in contradictions]
    roots = {i: i for i in left}

    def root(i: int) -> int:
        while roots[i] != i:
            roots[i] = roots[roots[i]]
            i = roots[i]
        return i

    figures: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for i in left:
        figures[tuple(sorted(Counter(numbers(texts[i])).items()))].append(i)
    for group in figures.values():
        for a, b in _near([texts[i] for i in group], cut):
            i, j = group[a], group[b]
            if _same_answer(answers[i], answers[j]):
                roots[root(j)] = root(i)
    clusters: dict[int, list[int]] = defaultdict(list)
    for i in left:
        clusters[root(i)].append(i)
    chosen = {max(members, key=lambda i: (rows[i].worth, -i)): members for members in clusters.values()}
    kept = sorted(chosen)
    return Merged(
        kept,
        [len(chosen[i]) for i in kept],
        {j: i for i in kept for j in chosen[i] if j != i},
        sorted(contradictions),
    )


def _words(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-.,%" else " " for c in plain(text).text).strip(" .,")


def _contradictions(texts: Sequence[str], answers: Sequence[str]) -> set[int]:
    same: dict[str, list[int]] = defaultdict(list)
    for i, text in enumerate(texts):
        same[" ".join(text.split())].append(i)
    return {
        i
        for group in same.values()
        if any(not _same_answer(answers[group[0]], answers[j]) for j in group[1:])
        for i in group
    }


def _same_answer(a: str, b: str) -> bool:
    from rapidfuzz import fuzz

    if Counter(numbers(a)) != Counter(numbers(b)):
        return False
    return fuzz.token_sort_ratio(a, b) >= ANSWERS or _inside(a, b) or _inside(b, a)


def _inside(a: str, b: str) -> bool:
    """`Paris` and `in Paris, France`: the words of one are among the other's."""
    few, many = set(a.replace(",", " ").split()), set(b.replace(",", " ").split())
    return bool(few) and few <= many


def _near(texts: Sequence[str], cut: float) -> list[tuple[int, int]]:
    """Pairs a < b whose token sort ratio is at least `cut`."""
    from rapidfuzz import fuzz, process

    tokens = [" ".join(sorted(text.split())) for text in texts]
    found: list[tuple[int, int]] = []
    for start in range(0, len(tokens), BLOCK):
        part = tokens[start : start + BLOCK]
        table = process.cdist(part, tokens[start:], scorer=fuzz.ratio, score_cutoff=cut, workers=1)
        rows, columns = table.nonzero()
        found += [(start + int(a), start + int(b)) for a, b in zip(rows, columns, strict=True) if a < b]
    return found
