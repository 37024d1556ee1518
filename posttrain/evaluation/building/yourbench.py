"""YourBench's evaluation table (its stage `prepare_lighteval`; jsonl, json or parquet), through our gates.

Its own citation scores are not trusted, and its filtering stage filters nothing: every row is held against the chunks that
it carries. Offsets are places in those chunks; where the chunk stands in its document the table does not say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from posttrain.evaluation.building.chunks import Chunk
from posttrain.evaluation.building.duplicates import Asked, fold
from posttrain.evaluation.building.gates import Passed, Refused, check
from posttrain.evaluation.building.questions import LETTERS, Draft, draft
from posttrain.evaluation.building.wording import CHOICE, OPEN
from posttrain.evaluation.rows import Fields, read_file


class Table:
    """Rows of the table as rows of our own format, and what became of the others."""

    def __init__(self, file: Path):
        self.file = file
        self.dropped: Counter[str] = Counter()
        """How many rows were left out, by reason."""
        self.read = 0

    def rows(self) -> Iterator[dict[str, Any]]:
        yield from self._kept

    @cached_property
    def _kept(self) -> list[dict[str, Any]]:
        from posttrain.evaluation.benchmarks.own import FORMAT, kind_of

        passed: list[tuple[Draft, Passed, Fields]] = []
        for row in read_file(self.file):
            self.read += 1
            made = as_draft(row)
            if isinstance(made, str):
                self.dropped[made] += 1
                continue
            found = check(made, chunks_of(row))
            if isinstance(found, Refused):
                self.dropped[found.reason] += 1
            else:
                passed.append((made, found, row))
        merged = fold([Asked(d.question, d.answer, p.scores.citation) for d, p, _ in passed])
        self.dropped["near-duplicate"] += len(merged.stands_for)
        self.dropped["same question, other answer"] += len(merged.contradictions)
        rows = []
        for i, weight in zip(merged.kept, merged.weights, strict=True):
            one, found, row = passed[i]
            rows.append(
                {
                    "format": FORMAT,
                    "question": one.question,
                    "answer": one.answer,
                    "kind": kind_of(one.answer, one.choices),
                    "choices": list(one.choices) or None,
                    "gold": None if one.right is None else [one.right],
                    "citations": [asdict(place) for place in found.places],
                    "scope": row.get("kind") if isinstance(row.get("kind"), str) else None,
                    "document": _documents(row),
                    "cluster": _documents(row),
                    "difficulty": one.difficulty,
                    "weight": weight,
                    "generator": {"model": row.get("question_generating_model") or row.get("generating_model")},
                }
            )
        return rows

    def notes(self) -> list[str]:
        """How many rows of the table are not asked, and why."""
        self._kept  # noqa: B018  (reads the table, if nothing has)
        lost = +self.dropped
        if not lost:
            return []
        reasons = "; ".join(f"{reason}: {count}" for reason, count in lost.most_common())
        return [f"{lost.total()} of the {self.read} rows of {self.file.name} are left out ({reasons})"]


def as_draft(row: Fields) -> Draft | str:
    """A row as a draft, or why it is none. The gold of multiple choice is a list of indices, of open questions [0] or (in
    older tables) the answer."""
    choices = row.get("choices")
    several = isinstance(choices, Sequence) and not isinstance(choices, str) and len(choices) > 1
    given: dict[str, Any] = {
        "question": row["question"],
        "answer": row["ground_truth_answer"],
        "citations": list(row["citations"]) if row["citations"] is not None else [],
        "estimated_difficulty": row.get("estimated_difficulty"),
    }
    if several:
        gold = row.get("gold")
        if isinstance(gold, list) and len(gold) == 1 and type(gold[0]) is int and 0 <= gold[0] < len(choices):
            letter = LETTERS[gold[0]] if gold[0] < len(LETTERS) else ""
            said = str(row["ground_truth_answer"]).strip()
            if len(said) == 1 and said.upper() != letter:
                return "gold and answer differ"
            given["answer"] = letter
        given["choices"] = list(choices)
    return draft(given, CHOICE if several else OPEN)


def chunks_of(row: Fields) -> list[Chunk]:
    """The chunks that a row carries, with the ids and documents that it names."""
    texts = row["chunks"]
    texts = [texts] if isinstance(texts, str) else list(texts) if isinstance(texts, list | tuple) else None
    if not texts or not all(isinstance(text, str) for text in texts):
        raise row.wrong(("chunks",), row["chunks"], "a list of texts")
    sources = [one for one in row.get("sources") or [] if isinstance(one, Mapping)]
    found = []
    for place, text in enumerate(texts):
        source = sources[place] if place < len(sources) else {}
        found.append(Chunk(str(source.get("document_id") or _documents(row)), place, 0, len(text), 0, text))
    return found


def _documents(row: Mapping[str, Any]) -> str:
    """The cluster: the document, or all documents of a question that needs several."""
    several = row.get("document_ids")
    if isinstance(several, list) and several:
        return "+".join(sorted({str(one) for one in several}))
    one = row.get("document_id") or row.get("document") or ""
    return str(one)[:200]
