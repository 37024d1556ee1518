"""The lines that a build writes: a question with its proof, and a draft that was dropped with its reason."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from posttrain import terminal
from posttrain.evaluation.benchmarks.own import FORMAT, kind_of
from posttrain.evaluation.building.chunks import Chunk
from posttrain.evaluation.building.documents import Document
from posttrain.evaluation.building.gates import Passed
from posttrain.evaluation.building.journal import Reply
from posttrain.evaluation.building.questions import PROMPT, Draft


@dataclass(frozen=True, slots=True)
class Candidate:
    """A draft that passed the gates."""

    draft: Draft
    passed: Passed
    chunk: Chunk
    reply: Reply


def row_of(found: Candidate, weight: int, document: Document, settings: dict[str, Any]) -> dict[str, Any]:
    """A line of the benchmark (`benchmarks/own.py` reads it)."""
    draft, scores = found.draft, found.passed.scores
    choices, right = mixed(draft)
    return {
        "format": FORMAT,
        "question": draft.question,
        "answer": draft.answer,
        "kind": kind_of(draft.answer, draft.choices),
        "choices": choices or None,
        "gold": None if right is None else [right],
        "citations": [asdict(place) for place in found.passed.places],
        "scores": {name: round(value, 2) for name, value in asdict(scores).items()},
        "document": document.id,
        "document_digest": document.digest,
        "document_date": document.date,
        "chunk": {"id": found.chunk.id, "start": found.chunk.start, "end": found.chunk.end},
        "cluster": document.id,
        "weight": weight,
        "difficulty": draft.difficulty,
        "generator": {**settings, "model": found.reply.model, "prompt": PROMPT},
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


def drop_of(reason: str, draft: Draft, chunk: Chunk, detail: str) -> dict[str, Any]:
    """A line about a draft that was dropped."""
    return {
        "reason": reason,
        "detail": detail,
        "question": draft.question,
        "answer": draft.answer,
        "citations": list(draft.citations),
        "chunk": chunk.id,
        "kind": draft.kind,
    }


def lines_of(rows: Sequence[dict[str, Any]]) -> str:
    """JSON lines that command no terminal."""
    return "".join(terminal.in_json(json.dumps(row, ensure_ascii=False, allow_nan=False)) + "\n" for row in rows)
