"""Are two answers the same? Shapes are compared as shapes, down to formulas (`points`) and sets of numbers (`regions`).

Runs in a worker process with a deadline, because sympy may take for ever. Bent towards rejecting: a formula that cannot
be read equals nothing but its own text.
"""

from __future__ import annotations

import re

from rewards.grading.labels import choices, ratios, times, words
from rewards.grading.normalise import normal, plain_number
from rewards.grading.plain import equal_text
from rewards.grading.quantities import quantities
from rewards.grading.regions import NOT_A_SET, same_region
from rewards.grading.relations import conditions, is_inequality, name_first, relation_and_value, relations
from rewards.grading.several import listings, matrices
from rewards.grading.shape import read
from rewards.grading.shapes import (
    Based,
    Choice,
    Clock,
    Conditions,
    Listing,
    Matrix,
    Ratio,
    Region,
    Relation,
    Shape,
    Verdict,
    Word,
)
from rewards.grading.units import Expression


def equal(gold: str, answer: str) -> Verdict:
    """Whether `answer` says what `gold` says, and by which rule. Both as written."""
    gold, answer = normal(gold), normal(answer)
    found = equal_text(gold, answer)
    if found is not None:
        return found
    one, other = read(gold), read(answer)
    for text, shape in ((gold, other), (answer, one)):
        if isinstance(shape, Listing) and shape.kind == "tuple" and plain_number(text) is not None:
            return False, "number and tuple"  # `24,500` is no pair
    one, other = _like(one, answer_of=other), _like(other, answer_of=one)
    if isinstance(one, Listing) != isinstance(other, Listing):
        one, other = _number_if_it_is_one(gold, one), _number_if_it_is_one(answer, other)
    if isinstance(one, _SETS) or isinstance(other, _SETS):
        return same(one, other)
    return same(_only(one), _only(other))


_SETS = (Region, Conditions)
_LETTERS = re.compile(r"[A-J]{2,6}")
_POINT = re.compile(r"(?:(?:the )?point )?[A-Z]?\s*(\(.*\))")


def _like(shape: Shape, answer_of: Shape) -> Shape:
    """What only the other side tells: `AC` beside choices are two letters, `P(1,2)` beside a pair is a point."""
    if not isinstance(answer_of, Listing):
        return shape
    text = shape.formula if isinstance(shape, Expression) and shape.unit is None else getattr(shape, "text", "")
    if answer_of.kind == "tuple" and isinstance(shape, Expression) and (point := _POINT.fullmatch(text)):
        inner = read(point[1])
        return inner if isinstance(inner, Listing) and inner.kind == "tuple" else shape
    if answer_of.loose and all(isinstance(i, Choice) for i in answer_of.items) and _LETTERS.fullmatch(text):
        return Listing(tuple(Choice(letter) for letter in text), "bare")
    return shape


def _number_if_it_is_one(text: str, shape: Shape) -> Shape:
    """`1,000` is a list beside a list, and a number beside anything else."""
    return Expression(text.replace(",", "")) if plain_number(text) is not None else shape


def _only(shape: Shape) -> Shape:
    """`\\{4\\}` → `4`: braces around a whole answer may be left out."""
    if isinstance(shape, Listing) and shape.kind == "set" and len(shape.items) == 1:
        only = shape.items[0]
        return shape if isinstance(only, Region) or (isinstance(only, Listing) and only.kind != "tuple") else only
    return shape


def same(gold: Shape, answer: Shape) -> Verdict:
    """The kind of the rarer shape decides which comparison is asked."""
    if isinstance(gold, Choice) or isinstance(answer, Choice):
        return choices(gold, answer, same)
    if isinstance(gold, Word) or isinstance(answer, Word):
        return words(gold, answer)
    if isinstance(gold, Based) or isinstance(answer, Based):
        return (gold == answer, "base")
    if isinstance(gold, Clock) or isinstance(answer, Clock):
        return times(gold, answer), "time"
    if isinstance(gold, Ratio) or isinstance(answer, Ratio):
        return ratios(gold, answer, same)
    if isinstance(gold, Matrix) or isinstance(answer, Matrix):
        return matrices(gold, answer, same)
    if isinstance(gold, Listing) and isinstance(answer, Listing):
        return listings(gold, answer, same)
    gold, answer = name_first(gold), name_first(answer)
    if isinstance(gold, Relation) and isinstance(answer, Relation):
        return relations(gold, answer, same)
    if (
        isinstance(gold, (Region, Conditions))
        or isinstance(answer, (Region, Conditions))
        or is_inequality(gold)
        or is_inequality(answer)
    ):
        verdict = same_region(gold, answer)
        if verdict[1] == NOT_A_SET and isinstance(gold, Conditions) and isinstance(answer, Conditions):
            return conditions(gold, answer, same), "inequalities"
        return verdict
    if isinstance(gold, Relation) or isinstance(answer, Relation):
        return relation_and_value(gold, answer, same)
    if isinstance(answer, Listing) and answer.loose:
        return all(same(gold, item)[0] for item in answer.items), "one of several"
    if isinstance(gold, Listing) or isinstance(answer, Listing):
        return False, "one of several"
    return quantities(gold, answer)
