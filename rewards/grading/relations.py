"""Comparison of equations and inequalities, with each other and with values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rewards.grading.brackets import members
from rewards.grading.normalise import plain_number
from rewards.grading.points import proportional, same_zeros
from rewards.grading.regions import NOT_A_SET, same_region
from rewards.grading.shape import read
from rewards.grading.shapes import Conditions, Listing, Relation, Same, Shape, Verdict
from rewards.grading.signs import is_name, name_key
from rewards.grading.units import Expression
from rewards.grading.values import value_of


def relations(gold: Relation, answer: Relation, same: Same) -> Verdict:
    """Two equations or two inequalities."""
    if gold.is_equation and answer.is_equation:
        left, right = name_key(gold.parts[0]), name_key(answer.parts[0])
        if is_name(gold.parts[0]) and (left == right or _is_function_and_y(left, right)):
            return same(read(gold.parts[-1]), read(answer.parts[-1]))
        if (together := _pair_of_names(gold)) is not None:
            return same(together, answer)
        if (together := _pair_of_names(answer)) is not None:
            return same(gold, together)
        if len(gold.parts) == len(answer.parts) == 2:
            return same_zeros(_difference(gold.parts), _difference(answer.parts)), "equation"
        return False, "equation"
    if gold.is_equation or answer.is_equation:
        return False, "equation and inequality"
    verdict = same_region(gold, answer)
    if verdict[0] or verdict[1] != NOT_A_SET:
        return verdict
    return _inequalities(gold, answer), "inequality"


_FUNCTION = re.compile(r"([a-zA-Z])\([a-zA-Z]\)")


def _is_function_and_y(one: str, other: str) -> bool:
    """`f(x)` against `y`, or `y(t)` against `y`: two names of a value that depends on a letter."""
    for function, name in ((one, other), (other, one)):
        if (found := _FUNCTION.fullmatch(function)) and (name == found[1] or (name == "y" and function[2] == "x")):
            return True
    return False


def name_first(shape: Shape) -> Shape:
    """`4=x` → `x=4`."""
    if isinstance(shape, Relation) and len(shape.parts) == 2 and shape.is_equation:
        left, right = shape.parts
        if is_name(right) and not is_name(left) and plain_number(left) is not None:
            return Relation((right, left), shape.signs)
    return shape


def _pair_of_names(relation: Relation) -> Shape | None:
    """`(x,y)=(1,2)` → `x=1, y=2`."""
    if len(relation.parts) != 2:
        return None
    names, values = read(relation.parts[0]), read(relation.parts[1])
    if not (isinstance(names, Listing) and isinstance(values, Listing) and len(names.items) == len(values.items)):
        return None
    if values.kind != "tuple" or not all(isinstance(n, Expression) and is_name(n.formula) for n in names.items):
        return None
    texts = members(relation.parts[1])
    if len(texts) != len(names.items):
        return None
    return Listing(tuple(Relation((n.formula, t), ("=",)) for n, t in zip(names.items, texts, strict=True)), "bare")  # type: ignore[union-attr]


def relation_and_value(gold: Shape, answer: Shape, same: Same) -> Verdict:
    """`x=5` against `5`: a name before the sign may be left out."""
    relation, value = (gold, answer) if isinstance(gold, Relation) else (answer, gold)
    assert isinstance(relation, Relation)

    def against(text: str | Shape) -> Verdict:
        shape = read(text) if isinstance(text, str) else text
        return same(shape, value) if relation is gold else same(value, shape)

    if (named := _pair_of_names(relation)) is not None:
        return against(named)
    if is_name(relation.parts[0]):
        return against(relation.parts[-1])
    if isinstance(value, Listing):
        return False, "equation and value"
    return all(against(part)[0] for part in relation.parts), "equal parts"


def _difference(parts: Sequence[str]) -> Any:
    a, b = value_of(parts[0]), value_of(parts[1])
    return None if a is None or b is None else a - b


def is_inequality(shape: Shape) -> bool:
    """True for a relation with a sign that is not that of equality."""
    return isinstance(shape, Relation) and not shape.is_equation


def conditions(gold: Conditions, answer: Conditions, same: Same) -> bool:
    """Of several variables: the same inequalities in any order."""
    theirs = list(answer.items)
    if (gold.joined == "or") != (answer.joined == "or") or len(gold.items) != len(theirs):
        return False
    for ours in gold.items:
        match = next((k for k, other in enumerate(theirs) if relations(ours, other, same)[0]), None)
        if match is None:
            return False
        del theirs[match]
    return True


def _inequalities(gold: Relation, answer: Relation) -> bool:
    """Of several variables: each link `a < b` as `b - a > 0`, the same up to a positive factor."""

    def links(relation: Relation) -> list[tuple[bool, Any]]:
        found = []
        for k, sign in enumerate(relation.signs):
            difference = _difference(relation.parts[k : k + 2])
            if difference is not None and sign in ("<", "<="):
                difference = -difference
            found.append((sign in ("<=", ">="), difference))
        return found

    if "=" in gold.signs + answer.signs or "!=" in gold.signs + answer.signs:
        return False
    ours, theirs = links(gold), links(answer)
    if len(ours) != len(theirs):
        return False
    for with_equality, difference in ours:
        match = next(
            (
                k
                for k, (e, d) in enumerate(theirs)
                if e == with_equality and proportional(difference, d, any_sign=False)
            ),
            None,
        )
        if match is None:
            return False
        del theirs[match]
    return True
