"""One criterion of a rubric, and what may be said of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rewards.criteria.checks import Check


class Verdict(StrEnum):
    """What became of a criterion. Of an undesirable one (negative points) MET means that the undesirable thing is there."""

    MET = "met"
    UNMET = "unmet"
    FAILED = "failed"
    """Nobody could say: the judge did not answer, or the check did not end. Never the same as UNMET."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """One criterion; `rewards.criteria.reading` makes and checks them."""

    text: str
    points: float
    """Finite, never 0; below 0: undesirable."""
    tags: tuple[str, ...] = ()
    check: Check | None = None
    """Code that decides it; None = a judge does."""
