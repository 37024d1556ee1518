"""Accuracy by what a benchmark of one's own knows of its questions (`parts` of a result): who wrote them, what they ask, their weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.report.run import Evaluation
from posttrain.report.values import as_dict, clip, number

MAX_LABELS = 40
"""Writers or scopes of one table."""
HEADS = (("by_writer", "written by", "writer not said"), ("by_scope", "scope", "scope not said"))


@dataclass
class Part:
    """A line: what it is about, questions, and (value, interval) in percent at each moment."""

    label: str
    n: str
    cells: list[tuple[str, str]]


@dataclass
class Table:
    head: str
    rows: list[Part]
    more: int = 0
    """Labels that are not shown."""


def tables(pair: Sequence[Evaluation]) -> list[Table]:
    """Tables of the first and the last evaluation of a benchmark; empty where it knows nothing of its questions."""
    sides = [as_dict(e.result.get("parts")) for e in pair]
    found = []
    if any("weighted" in side for side in sides):
        cells = [_cell(side.get("weighted")) for side in sides]
        label = "each question as often as writers came upon it"
        found.append(Table("weighted", [Part(label, "", cells)]))
    for key, head, nameless in HEADS:
        by_side = [as_dict(side.get(key)) for side in sides]
        labels = list(dict.fromkeys(label for side in by_side for label in side))
        rows = [
            Part(
                clip(label, 200) or nameless,
                next((f"{n:,.0f}" for side in reversed(by_side) if (n := number(as_dict(side.get(label)).get("n"))) is not None), "–"),
                [_cell(side.get(label)) for side in by_side],
            )
            for label in labels[:MAX_LABELS]
        ]  # fmt: skip
        if rows:
            found.append(Table(head, rows, max(0, len(labels) - MAX_LABELS)))
    return found


def _cell(entry: Any) -> tuple[str, str]:
    entry = as_dict(entry)
    value, low, high = (number(entry.get(key)) for key in ("value", "low", "high"))
    if value is None:
        return "–", ""
    known = low is not None and high is not None
    return f"{100 * value:.1f}", f"[{100 * low:.1f}, {100 * high:.1f}]" if known else "no interval"
