"""The lines that a build writes: a question with its proof, and a draft that was dropped with its reason."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from posttrain import terminal
from posttrain.evaluation.benchmarks.own import FORMAT, kind_of
from posttrain.evaluation.building.documents import Document
from posttrain.evaluation.building.gates import Passed
from posttrain.evaluation.building.groups import Group
from posttrain.evaluation.building.journal import Reply, Request
from posttrain.evaluation.building.questions import Draft
from posttrain.evaluation.building.wording import PROMPT


@dataclass(frozen=True, slots=True)
class Candidate:
    """A draft that passed the gates."""

    draft: Draft
    passed: Passed
    group: Group
    """The chunks that it was written from."""
    reply: Reply
    settings: Mapping[str, Any]
    """Its writer's."""

    @property
    def document(self) -> str:
        """Of the first citation."""
        return self.passed.places[0].document


def row_of(found: Candidate, weight: int, documents: Mapping[str, Document]) -> dict[str, Any]:
    """A line of the benchmark (`benchmarks/own.py` reads it).

    Its cluster is the document of its first citation: a question about two documents can be in one cluster only.
    """
    draft, scores, document = found.draft, found.passed.scores, documents[found.document]
    choices, right = mixed(draft)
    return {
        "format": FORMAT,
        "question": draft.question,
        "answer": draft.answer,
        "kind": kind_of(draft.answer, draft.choices),
        "choices": choices or None,
        "gold": None if right is None else [right],
        "scope": found.group.scope,
        "citations": [asdict(place) for place in found.passed.places],
        "scores": {name: round(value, 2) for name, value in asdict(scores).items()},
        "document": document.id,
        "document_digest": document.digest,
        "document_date": document.date,
        "documents": list(dict.fromkeys(place.document for place in found.passed.places)),
        "chunks": [{"id": chunk.id, "start": chunk.start, "end": chunk.end} for chunk in found.group.chunks],
        "cluster": document.id,
        "weight": weight,
        "question_type": draft.type,
        "difficulty": draft.difficulty,
        "generator": {**found.settings, "model": found.reply.model, "prompt": PROMPT},
        "raw_response": found.reply.text,
    }


_POINTING = re.compile(r"(?i:\b(?:above|below|all of|none of|both|neither)\b)|\b[A-Z]\b.*\b(?:and|or)\b.*\b[A-Z]\b")


def mixed(draft: Draft) -> tuple[list[str], int | None]:
    """The choices in an order drawn from the question itself, and where the right one went.

    Models put the right choice where they like (often at B), and a model that is judged may like the same place. Choices that
    speak of others ("all of the above", "both A and B") stay where they are.
    """
    choices = list(draft.choices)
    if draft.right is None or any(_POINTING.search(choice) for choice in choices):
        return choices, draft.right
    order = list(range(len(choices)))
    random.Random(draft.question).shuffle(order)
    return [choices[i] for i in order], order.index(draft.right)


def drop_of(reason: str, draft: Draft, asked: Request, writer: str, detail: str) -> dict[str, Any]:
    """A line about a draft that was dropped."""
    return {
        "reason": reason,
        "detail": detail,
        "question": draft.question,
        "answer": draft.answer,
        "citations": list(draft.citations),
        "chunk": asked.chunk,
        "kind": draft.kind,
        "writer": writer,
    }


def lines_of(rows: Sequence[dict[str, Any]]) -> str:
    """JSON lines that command no terminal."""
    return "".join(terminal.in_json(json.dumps(row, ensure_ascii=False, allow_nan=False)) + "\n" for row in rows)
