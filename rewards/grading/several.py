"""Comparison of several answers: lists, sets, tuples, named values, and the entries of matrices."""

from __future__ import annotations

from typing import Any

from rewards.grading.points import equal_values
from rewards.grading.shape import read
from rewards.grading.shapes import Listing, Matrix, Relation, Same, Shape, Verdict
from rewards.grading.signs import is_name, name_key
from rewards.grading.units import Expression
from rewards.grading.values import value_of


def listings(gold: Listing, answer: Listing, same: Same) -> Verdict:
    """In order where an order is given, else in any; named values by their names."""
    named_gold, named_answer = _named(gold), _named(answer)
    if named_gold and named_answer:
        together = named_gold.keys() == named_answer.keys()
        return together and all(same(named_gold[k], named_answer[k])[0] for k in named_gold), "named values"
    if (named_gold or named_answer) and any(isinstance(i, Relation) for i in (answer if named_gold else gold).items):
        return False, "named values"
    if named_gold:
        gold = _in_order_of_names(named_gold)
    elif named_answer:
        answer = _in_order_of_names(named_answer)
    kinds = {gold.kind, answer.kind}
    if kinds in ({"set", "tuple"}, {"either", "tuple"}):
        return False, "ordered and unordered"
    dots = any(
        isinstance(i, Expression) and i.formula.strip() in (r"\ldots", "...") for i in (*gold.items, *answer.items)
    )
    if "tuple" in kinds or dots:
        alike = len(gold.items) == len(answer.items) and all(
            same(a, b)[0] for a, b in zip(gold.items, answer.items, strict=True)
        )
        return alike, "in order"
    ours, theirs = list(gold.items), list(answer.items)
    if "set" in kinds or all(isinstance(i, Listing) and i.kind == "tuple" for i in (*ours, *theirs)):
        ours, theirs = _distinct(ours, same), _distinct(theirs, same)
    if len(ours) != len(theirs):
        return False, "how many"
    for item in ours:
        match = next((k for k, other in enumerate(theirs) if same(item, other)[0]), None)
        if match is None:
            return False, "in any order"
        del theirs[match]
    return True, "in any order"


def _in_order_of_names(named: dict[str, Shape]) -> Listing:
    """`y=2, x=1` → (1,2): coordinates in their order, other names as they come."""
    names = sorted(named) if named.keys() <= {"x", "y", "z"} else list(named)
    return Listing(tuple(named[name] for name in names), "tuple")


def _distinct(items: list[Shape], same: Same) -> list[Shape]:
    kept: list[Shape] = []
    for item in items:
        if not any(same(k, item)[0] for k in kept):
            kept.append(item)
    return kept


def _named(listing: Listing) -> dict[str, Shape] | None:
    """`x=1, y=2` → {x: 1, y: 2}; None unless every item names another thing."""
    names: dict[str, Shape] = {}
    for item in listing.items:
        if not (isinstance(item, Relation) and item.is_equation and is_name(item.parts[0])):
            return None
        names[name_key(item.parts[0])] = read(item.parts[-1])
    return names if len(names) == len(listing.items) > 1 else None


def matrices(gold: Shape, answer: Shape, same: Same) -> Verdict:
    """Entry by entry."""
    if not (isinstance(gold, Matrix) and isinstance(answer, Matrix)):
        if isinstance(answer, Relation) and answer.is_equation and is_name(answer.parts[0]):
            return same(gold, read(answer.parts[-1]))
        if isinstance(gold, Relation) and gold.is_equation and is_name(gold.parts[0]):
            return same(read(gold.parts[-1]), answer)
        return False, "matrix"
    if [len(r) for r in gold.rows] != [len(r) for r in answer.rows]:
        return False, "matrix shape"

    def entries(matrix: Matrix) -> list[Any]:
        factor = value_of(matrix.factor) if matrix.factor else 1
        values = [value_of(entry) for row in matrix.rows for entry in row]
        return [None if v is None or factor is None else factor * v for v in values]

    pairs = zip(entries(gold), entries(answer), strict=True)
    return all(a is not None and b is not None and equal_values(a, b) for a, b in pairs), "matrix"
