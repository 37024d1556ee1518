"""Labelled examples: a response, a criterion, and whether it is truly met."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from posttrain.errors import Mistake
from rewards.criteria import checks, running
from rewards.criteria.item import Verdict
from rewards.judge import Question

SHIPPED = "posttrain's own examples"
KEYS = {"id", "prompt", "conversation", "response", "criterion", "points", "label", "check"}
TRUE = {Verdict.MET: True, Verdict.UNMET: False}


@dataclass(frozen=True, slots=True)
class Example:
    """One label. `cluster`: examples of one prompt are no independent questions."""

    name: str
    conversation: Any
    response: str
    criterion: str
    points: float
    label: bool
    check: checks.Check | None
    cluster: str

    def question(self, response: str | None = None) -> Question:
        """What the judge is asked, about another response if one is given."""
        return Question(
            self.conversation, self.response if response is None else response, self.criterion, self.points
        )

    @property
    def answer(self) -> tuple[str, str]:
        """Examples with the same one are criteria of one response."""
        return self.cluster, self.response


def load(path: str | None) -> list[Example]:
    """Examples of a JSONL file (None: those that come with the package), one a line: `prompt` (text, or messages; `conversation` is
    another name), `response`, `criterion`, `label` (true or false), and if wanted `points` (default 1), `id`, and a `check` as rubrics
    have it, which says the label where there is none, and must agree where there is one.

    Raises:
        Mistake: the file or a line cannot be used; one line that names it.
    """
    if path is None:
        text, where = (resources.files("posttrain.judging") / "examples.jsonl").read_text(encoding="utf-8"), SHIPPED
    else:
        file, where = Path(path).expanduser(), path
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            raise Mistake(f"{path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from error
    rows = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not rows:
        raise Mistake(f"{where}: no examples; one JSON object a line with prompt, response, criterion and label")
    drafts = [_row(line, f"{where}, line {number}") for number, line in rows]
    decided = by_code([(row["response"], row["check"]) for row in drafts])
    return [
        _example(row, found, number, f"{where}, line {number}")
        for (number, _), row, found in zip(rows, drafts, decided, strict=True)
    ]


def by_code(pairs: Sequence[tuple[str, checks.Check | None]]) -> list[bool | None]:
    """Whether code says that a response meets a check; None: there is none, or it does not end."""
    try:
        found = running.run([(text, [check] if check else []) for text, check in pairs])
    finally:
        running.close()
    return [TRUE.get(one[0][0]) if one else None for one in found]


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Mistake(f"{where}: not JSON: {error}") from error
    if not isinstance(row, dict):
        raise Mistake(f"{where}: should be an object, not {type(row).__name__}")
    if unknown := sorted(set(row) - KEYS):
        raise Mistake(f"{where}: unknown {', '.join(unknown)}; known are {', '.join(sorted(KEYS))}")
    talk = row.get("prompt", row.get("conversation"))
    messages = (
        isinstance(talk, list) and talk and all(isinstance(turn, Mapping) and "content" in turn for turn in talk)
    )
    if not messages and not (isinstance(talk, str) and talk):
        raise Mistake(f"{where}: prompt should be text, or a list of messages with role and content")
    for name in ("response", "criterion"):
        if not isinstance(row.get(name), str) or (name == "criterion" and not row[name].strip()):
            raise Mistake(f"{where}: {name} should be text")
    points = row.get("points", 1)
    if isinstance(points, bool) or not isinstance(points, (int, float)) or not math.isfinite(points) or points == 0:
        raise Mistake(f"{where}: points should be a number, and not 0")
    if row.get("label") is not None and not isinstance(row["label"], bool):
        raise Mistake(f"{where}: label should be true or false")
    try:
        check = None if row.get("check") is None else checks.read(row["check"], where)
    except ValueError as error:
        raise Mistake(str(error)) from error
    return {**row, "talk": talk, "points": float(points), "label": row.get("label"), "check": check}


def _example(row: dict[str, Any], found: bool | None, number: int, where: str) -> Example:
    label = row["label"]
    if label is None and found is None:
        why = "has none, nor a check that says it" if row["check"] is None else "is left to a check that does not end"
        raise Mistake(f"{where}: label {why}; write label: true or false")
    if label is not None and found is not None and label != found:
        raise Mistake(
            f"{where}: label is {json.dumps(label)}, but its check says {json.dumps(found)}; mend one of them"
        )
    cluster = json.dumps(row["talk"], sort_keys=True)
    return Example(
        str(row.get("id", number)),
        row["talk"],
        row["response"],
        row["criterion"],
        row["points"],
        bool(found if label is None else label),
        row["check"],
        cluster,
    )
