"""Sets of real numbers: intervals, unions, differences, set builders and the solutions of inequalities, as sympy sets."""

from __future__ import annotations

import re
from typing import Any

from rewards.grading.brackets import members
from rewards.grading.normalise import closed
from rewards.grading.points import equal_values
from rewards.grading.shape import read
from rewards.grading.shapes import Conditions, Listing, Region, Relation, Shape
from rewards.grading.signs import is_name
from rewards.grading.units import Expression
from rewards.grading.values import value_of

NOT_A_SET = "not a set"


class _NotASet(Exception):
    pass


def same_region(gold: Shape, answer: Shape) -> tuple[bool, str]:
    """Whether two shapes are the same set, and by which rule (`NOT_A_SET`: at least one is none)."""
    from sympy import S

    letters = [_letters(s) for s in (gold, answer)]
    if max(map(len, letters)) > 1:
        return False, NOT_A_SET
    if all(letters) and letters[0] != letters[1]:
        return False, "other variable"
    try:
        a, b = _set(gold), _set(answer)
    except _NotASet:
        return False, NOT_A_SET
    if a == b:
        return True, "set"
    try:
        return bool(_canonical(a) == _canonical(b) or a.symmetric_difference(b) == S.EmptySet), "set"
    except Exception:
        return False, "set"


def _letters(shape: Shape) -> set[str]:
    """The variables of a condition."""
    relations = shape.items if isinstance(shape, Conditions) else (shape,) if isinstance(shape, Relation) else ()
    values = [value_of(part) for relation in relations for part in relation.parts]
    return {str(letter) for value in values if value is not None for letter in value.free_symbols}


def _set(shape: Shape) -> Any:
    from sympy import FiniteSet, Intersection, Interval, Union

    if isinstance(shape, Region):
        return _set_of_text(shape.text)
    if isinstance(shape, Conditions):
        sets = [_set(item) for item in shape.items]
        both = Intersection(*sets)
        # A comma is read as "and" wherever something is left: `k<-1, k>3` are two rays.
        return Union(*sets) if shape.joined == "or" or (shape.joined == "," and both.is_empty) else both
    if isinstance(shape, Relation) and not shape.is_equation:
        return _solutions(shape)
    if isinstance(shape, Relation) and is_name(shape.parts[0]):
        return _set(read(shape.parts[-1]))
    if isinstance(shape, Listing):
        values = [value_of(i.formula) if isinstance(i, Expression) else None for i in shape.items]
        if None in values:
            raise _NotASet
        if shape.kind == "tuple":
            if len(values) != 2 or not _is_less(values[0], values[1]):
                raise _NotASet
            return Interval.open(*values)
        return FiniteSet(*values)
    raise _NotASet


def _is_less(a: Any, b: Any) -> bool:
    return (a < b) == True  # noqa: E712  (sympy's own truth values)


_NAMED_SET = re.compile(r"\\mathbb\s*\{?([RZNQC])\}?")


_HALF_LINE = re.compile(r"\\mathbb\s*\{?R\}?\s*[_^]\s*\{?\s*(\+|>\s*0|\\ge\s*0|>=\s*0)\s*\}?")


def _set_of_text(text: str) -> Any:
    from sympy import Complement, Interval, S, Union

    text = re.sub(r"(\\mathbb\s*\{?R\}?)\s*-\s*(?=\\\{)", r"\1\\setminus ", closed(text))
    for command, build in ((r"\\cup", Union), (r"\\setminus", None), (r"\\cap", None)):
        parts = _top_level(text, command)
        if len(parts) > 1:
            sets = [_set_of_text(part) for part in parts]
            if build is not None:
                return Union(*sets)
            result = sets[0]
            for other in sets[1:]:
                result = Complement(result, other) if command == r"\\setminus" else result.intersect(other)
            return result
    if text == r"\emptyset":
        return S.EmptySet
    if half := _HALF_LINE.fullmatch(text):
        return Interval.open(0, S.Infinity) if half[1] == "+" or ">" in half[1] else Interval(0, S.Infinity)
    if named := _NAMED_SET.fullmatch(text):
        return {"R": S.Reals, "Z": S.Integers, "N": S.Naturals, "Q": S.Rationals, "C": S.Complexes}[named[1]]
    if text.startswith(r"\{"):
        inner = closed(text[2:-2])
        builder = re.fullmatch(r"([a-zA-Z])(?:\s*\\in\s*\\mathbb\s*\{?R\}?)?\s*[|:]\s*(.+)", inner)
        if builder:
            condition = read(builder[2])
            if isinstance(condition, Relation) and condition.is_equation and len(condition.parts) == 2:
                return _roots(condition, builder[1])
            return _set(condition)
        listed = read(text)
        if isinstance(listed, Listing):
            return _set(listed)
        raise _NotASet
    if text[:1] in "([" and text[-1:] in ")]":
        parts = members(text)
        if len(parts) == 1 and text[0] == "(" and text[-1] == ")":
            return _set_of_text(parts[0])
        values = [value_of(p) for p in parts]
        if len(values) != 2 or None in values:
            raise _NotASet
        low, high = values
        if not _is_less(low, high) and not (text[0] == "[" and text[-1] == "]" and equal_values(low, high)):
            raise _NotASet
        if (text[0] == "[" and low.is_infinite) or (text[-1] == "]" and high.is_infinite):
            raise _NotASet  # infinity belongs to no interval
        return Interval(low, high, text[0] == "(", text[-1] == ")")
    raise _NotASet


def _top_level(text: str, command: str) -> list[str]:
    parts, depth, start, place = [], 0, 0, 0
    pattern = re.compile(command + r"(?![a-zA-Z])")
    while place < len(text):
        if depth == 0 and (mark := pattern.match(text, place)):
            parts.append(text[start:place])
            start = place = mark.end()
            continue
        if text[place] == "\\":
            depth += {"{": 1, "}": -1}.get(text[place + 1 : place + 2], 0)
            place += 2
            continue
        depth += (text[place] in "([{") - (text[place] in ")]}")
        place += 1
    return [closed(p) for p in [*parts, text[start:]]]


def _solutions(relation: Relation) -> Any:
    """Real solutions of a chain of inequalities in one variable."""
    import sympy

    if "=" in relation.signs:
        raise _NotASet
    values = [value_of(part) for part in relation.parts]
    if None in values:
        raise _NotASet
    symbols = set().union(*(v.free_symbols for v in values))
    if len(symbols) != 1:
        raise _NotASet
    kinds = {"<": sympy.Lt, "<=": sympy.Le, ">": sympy.Gt, ">=": sympy.Ge, "!=": sympy.Ne}
    found: Any = sympy.S.Reals
    for k, sign in enumerate(relation.signs):
        link = kinds[sign](values[k], values[k + 1])
        if link in (True, False):
            found = found if link == True else sympy.S.EmptySet  # noqa: E712
            continue
        try:
            found = found.intersect(link.as_set())
        except Exception:
            raise _NotASet from None
    return found


def _roots(equation: Relation, letter: str) -> Any:
    """What solves a polynomial equation in `letter`, if all of it is real."""
    import sympy

    a, b = value_of(equation.parts[0]), value_of(equation.parts[1])
    if a is None or b is None or {str(s) for s in (a - b).free_symbols} != {letter}:
        raise _NotASet
    (symbol,) = (a - b).free_symbols
    try:
        polynomial = sympy.Poly(a - b, symbol, domain="QQ")
    except sympy.PolynomialError:
        raise _NotASet from None
    roots = sympy.real_roots(polynomial)
    if len(roots) != polynomial.degree():
        raise _NotASet
    return sympy.FiniteSet(*roots)


def _canonical(region: Any) -> list[tuple[Any, ...]]:
    """Pieces in order, with end points as numbers to 30 digits."""
    from sympy import FiniteSet, Interval, N, Union

    parts = region.args if isinstance(region, Union) else (region,)
    pieces: list[tuple[Any, ...]] = []
    for part in parts:
        if isinstance(part, Interval):
            pieces.append((str(N(part.start, 30)), str(N(part.end, 30)), bool(part.left_open), bool(part.right_open)))
        elif isinstance(part, FiniteSet):
            pieces += [(str(N(point, 30)),) for point in part]
        else:
            raise _NotASet
    return sorted(pieces)
