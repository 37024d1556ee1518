"""Answers whose worth is known before any reward is asked: the gold one in the forms in use, and some that are not right.

Which column holds the golds: a reward *verifies* if it reads a column with a name that golds go by (`answer`, `solution`,
`ground_truth`, ...): as a parameter of its own, by an argument such as `answer_column`, or among its `**columns` (then by
trial: another value there gives another score).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.imports import Use
from rewards.grading import gold_text

GOLDS = (
    *("answer", "gold", "gold_answer", "golden_answer", "ground_truth", "reference", "reference_answer", "target"),
    *("solution", "expected", "expected_answer", "expected_output", "final_answer", "correct_answer", "label"),
    *("answers", "golds", "targets", "solutions", "references", "labels"),
)
"""Names under which data sets keep the right answer."""

FORMS: tuple[tuple[str, str | None], ...] = (
    ("in a box", r"\boxed{%s}"),
    ("behind ####", "#### %s"),
    ("in answer tags", "<answer>%s</answer>"),
    ("thought, in a box", "<think>\nLet me see.\n</think>\n" + r"\boxed{%s}"),
    ("thought, in answer tags", "<think>\nLet me see.\n</think>\n<answer>%s</answer>"),
    ("in a sentence", "The answer is %s."),
    ("alone", "%s"),
    ("as the data has it", None),
)
"""How answers are given; the form in which a reward finds the golds is the one it is then tried with."""

DEEP = 200
"""Brackets in brackets."""


@dataclass(frozen=True)
class Target:
    """The function behind a guard, and what a recipe bound to it."""

    function: Callable[..., Any]
    arguments: Mapping[str, Any]
    use: Use | None

    @classmethod
    def of(cls, make: Callable[..., Any]) -> Target:
        owner = getattr(make, "__self__", None)
        if isinstance(owner, Use):
            return cls(owner.load(), owner.arguments, owner)
        return cls(make, {}, None)

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        call = self.function.__call__ if isinstance(self.function, type) else self.function
        try:
            return dict(inspect.signature(call).parameters)
        except (TypeError, ValueError):
            return {}

    @property
    def takes_any(self) -> bool:
        return any(p.kind is p.VAR_KEYWORD for p in self.parameters.values())

    @property
    def own_deadline(self) -> str | None:
        """The argument with which a grader of ours is told its time limit."""
        return "grader_timeout" if "grader_timeout" in self.parameters else None


def named_column(target: Target, columns: Collection[str]) -> str | None:
    """The column of golds that a reward names, in an argument or as a parameter; None = it names none."""
    every = dict(target.arguments)
    if isinstance(target.function, type):
        built = inspect.signature(target.function).parameters
        every = {**{n: p.default for n, p in built.items() if p.default is not p.empty}, **every}
    every = {**{n: p.default for n, p in target.parameters.items() if p.default is not p.empty}, **every}
    for name, value in every.items():
        if name.endswith("column") and isinstance(value, str) and value in columns:
            return value
    return next((name for name in GOLDS if name in target.parameters and name in columns), None)


def gold_columns(columns: Collection[str]) -> list[str]:
    """Columns that may hold golds, by their names."""
    return [name for name in GOLDS if name in columns]


_LETTER = re.compile(r"[A-Z]")
_OPPOSITE = {"yes": "no", "true": "false", "right": "wrong"}
_OPPOSITE |= {v: k for k, v in _OPPOSITE.items()}


@dataclass(frozen=True)
class Case:
    """A row whose right answer is known."""

    row: Mapping[str, Any]
    gold: str
    """The answer itself."""
    raw: str
    """What the column holds: often a whole solution."""

    def text(self, form: str | None, answer: str) -> str:
        """A completion that gives `answer` in one of `FORMS`."""
        if form is not None:
            return form % answer
        if self.gold in self.raw:
            return self.raw.replace(self.gold, answer)
        return self.raw if answer == self.gold else answer

    @property
    def name(self) -> str:
        return str(self.row.get("row_id"))


def cases(rows: Sequence[Mapping[str, Any]], column: str) -> list[Case]:
    """The rows whose `column` holds an answer that can be read."""
    read = [(row, gold_text(row.get(column))) for row in rows]
    return [Case(row, gold, str(row[column])) for row, gold in read if gold is not None]


def wrong(gold: str, others: Sequence[str] = ()) -> str:
    """An answer that is not `gold`, of the same kind: the next number or letter, the opposite word; else one of `others`
    (golds of other rows) that neither holds it nor is held by it, else `gold + 1`."""
    digits = gold.replace(",", "")
    if re.fullmatch(r"-?\d{1,300}", digits):
        return str(int(digits) + 1)
    if _LETTER.fullmatch(gold):
        return chr((ord(gold) - ord("A") + 1) % 26 + ord("A"))
    opposite = _OPPOSITE.get(gold.lower())
    if opposite is not None:
        return opposite.capitalize() if gold[0].isupper() else opposite
    low = gold.lower()
    return next((other for other in others if low not in other.lower() and other.lower() not in low), f"{gold} + 1")


def pathological(gold: str) -> dict[str, str]:
    """Answers that break what parses or evaluates them without a limit. None of them is `gold`."""
    return {
        "deep brackets": "(" * DEEP + wrong(gold) + ")" * DEEP,
        "a tower of powers": "9^{9^{9^{9^{9}}}}",
    }
