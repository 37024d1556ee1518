"""What shapes an answer can have: each a frozen record of texts, told apart by `shape.read`, compared by `equal`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rewards.grading.units import Expression


@dataclass(frozen=True, slots=True)
class Word:
    """Ordinary language: `east`."""

    text: str


@dataclass(frozen=True, slots=True)
class Choice:
    """A letter of a multiple choice, and what was written behind it."""

    letter: str
    rest: str = ""


@dataclass(frozen=True, slots=True)
class Based:
    """A number in a base that is not ten: `101_2`."""

    digits: str
    base: str


@dataclass(frozen=True, slots=True)
class Ratio:
    """`2:3`."""

    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Clock:
    """A time of day that says which half of it is meant: `9:45 a.m.`, `5 PM`."""

    hour: int
    minute: int
    half: str
    """a or p"""


@dataclass(frozen=True, slots=True)
class Listing:
    """Several answers. `kind`: bare (a comma list), either (joined by "or", or by a double sign), set (braces), tuple
    (parentheses or brackets)."""

    items: tuple[Shape, ...]
    kind: str

    @property
    def loose(self) -> bool:
        """True without any brackets."""
        return self.kind in ("bare", "either")


@dataclass(frozen=True, slots=True)
class Region:
    """A set of numbers that is not a plain list: intervals, unions, named sets, set builder. As text."""

    text: str


@dataclass(frozen=True, slots=True)
class Relation:
    """A chain `parts[0] signs[0] parts[1] ...` of equations or inequalities."""

    parts: tuple[str, ...]
    signs: tuple[str, ...]

    @property
    def is_equation(self) -> bool:
        return all(sign == "=" for sign in self.signs)


@dataclass(frozen=True, slots=True)
class Conditions:
    """Several inequalities: `or` (any), `and` (all) or `,` (all, or any where all together cannot be)."""

    items: tuple[Relation, ...]
    joined: str


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows of entries, all times `factor`."""

    rows: tuple[tuple[str, ...], ...]
    factor: str = ""


Shape = Expression | Word | Choice | Based | Ratio | Clock | Listing | Region | Relation | Conditions | Matrix

Verdict = tuple[bool, str]
"""Whether two answers are the same, and the rule that says so."""
Same = Callable[[Shape, Shape], Verdict]
"""The comparison of any two shapes: what compares shapes made of others asks it for their parts."""
