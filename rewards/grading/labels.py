"""Comparison of what is no formula: letters of a multiple choice, words, times of day, ratios."""

from __future__ import annotations

import re
from math import gcd

from rewards.grading.points import equal_values, is_zero
from rewards.grading.quantities import quantities
from rewards.grading.shape import read
from rewards.grading.shapes import Choice, Clock, Ratio, Relation, Same, Shape, Verdict, Word
from rewards.grading.signs import is_name
from rewards.grading.units import Expression
from rewards.grading.values import value_of


def choices(gold: Shape, answer: Shape, same: Same) -> Verdict:
    """Letters of a multiple choice; what stands behind a letter, against what is none."""
    if isinstance(gold, Choice) and isinstance(answer, Choice):
        return (gold.letter == answer.letter, "choice")
    if isinstance(answer, Choice) and answer.rest:
        return same(gold, read(answer.rest))
    if isinstance(gold, Choice) and gold.rest:
        return same(read(gold.rest), answer)
    letter, other = (gold, answer) if isinstance(gold, Choice) else (answer, gold)
    assert isinstance(letter, Choice)
    if isinstance(other, Word):
        return False, "choice"
    return same(Expression(letter.letter), other) if letter is gold else same(other, Expression(letter.letter))


def words(gold: Shape, answer: Shape) -> Verdict:
    """The same words, in whatever case."""

    def said(shape: Shape) -> str | None:
        if isinstance(shape, Word):
            return shape.text
        return shape.formula if isinstance(shape, Expression) and not shape.unit else None

    a, b = said(gold), said(answer)
    if a is None or b is None:
        return False, "word"
    return " ".join(a.casefold().split()) == " ".join(b.casefold().split()), "word"


_CLOCK = re.compile(r"\d{1,2}:[0-5]\d")


def _is_time(ratio: Ratio) -> bool:
    """True for what looks like a time and would be a poor ratio, because it is not in lowest terms."""
    return bool(_CLOCK.fullmatch(":".join(ratio.parts))) and gcd(*map(int, ratio.parts)) != 1


def times(gold: Shape, answer: Shape) -> bool:
    """A time with its half of the day against another, or one without (in 24 hours, or the half left out)."""
    if isinstance(gold, Clock) and isinstance(answer, Clock):
        return gold == answer
    clock, other = (gold, answer) if isinstance(gold, Clock) else (answer, gold)
    if not (isinstance(clock, Clock) and isinstance(other, Ratio) and _CLOCK.fullmatch(":".join(other.parts))):
        return False
    hour, minute = map(int, other.parts)
    if minute != clock.minute:
        return False
    return hour in (clock.hour, clock.hour % 12 + 12 * (clock.half == "p"))


def ratios(gold: Shape, answer: Shape, same: Same) -> Verdict:
    """Ratios up to a factor, two numbers as a fraction; times as they are."""
    if isinstance(gold, Ratio) and isinstance(answer, Ratio):
        if len(gold.parts) != len(answer.parts):
            return False, "ratio"
        if all(_CLOCK.fullmatch(":".join(r.parts)) for r in (gold, answer)) or _is_time(gold):
            return [p.lstrip("0") for p in gold.parts] == [p.lstrip("0") for p in answer.parts], "time"
        a, b = ([value_of(p) for p in r.parts] for r in (gold, answer))
        if None in a or None in b or any(is_zero(v) for v in [*a, *b]):
            return False, "ratio"
        return all(equal_values(x * b[0], y * a[0]) for x, y in zip(a[1:], b[1:], strict=True)), "ratio"
    ratio, other = (gold, answer) if isinstance(gold, Ratio) else (answer, gold)
    assert isinstance(ratio, Ratio)
    if isinstance(other, Relation) and other.is_equation and is_name(other.parts[0]):
        value = read(other.parts[-1])
        return same(ratio, value) if ratio is gold else same(value, ratio)
    if (
        len(ratio.parts) == 2
        and isinstance(other, Expression)
        and not other.unit
        and not _CLOCK.fullmatch(":".join(ratio.parts))
    ):
        fraction = Expression(f"\\frac{{{ratio.parts[0]}}}{{{ratio.parts[1]}}}")
        # In their places: a rule says which of the two could not be read.
        return quantities(fraction, other) if ratio is gold else quantities(other, fraction)
    return False, "ratio"
