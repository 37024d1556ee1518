"""Comparison of values with their units and percent signs."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from rewards.grading.brackets import squeeze
from rewards.grading.normalise import closed, plain_number
from rewards.grading.plain import LEAST_DIGITS, Number, same_number
from rewards.grading.points import equal_values
from rewards.grading.shapes import Shape, Verdict
from rewards.grading.units import Expression, in_base_units, unit_of
from rewards.grading.values import value_of


def quantities(gold: Shape, answer: Shape) -> Verdict:
    """Two values: their units must agree, if both have one."""
    if not (isinstance(gold, Expression) and isinstance(answer, Expression)):
        return False, "different"
    gold, answer = _same_tail(gold, answer), _same_tail(answer, gold)
    if gold.unit and answer.unit and gold.unit != answer.unit:
        if {gold.unit, answer.unit} == {"deg^1", "rad^1"}:
            from sympy import pi

            return _scaled(gold.formula, answer.formula, gold.unit == "deg^1", 180 / pi), "degrees"
        ours, theirs = in_base_units(gold.unit), in_base_units(answer.unit)
        if ours is None or theirs is None or ours[1] != theirs[1]:
            return False, "other unit"
        return _scaled(gold.formula, answer.formula, False, _ratio(ours[0] / theirs[0])), "other unit"
    if (gold.percent and answer.unit) or (gold.unit and answer.percent):
        return False, "other unit"
    by = "unit omitted" if (gold.unit is None) != (answer.unit is None) else ""
    if "deg^1" in (gold.unit, answer.unit) and gold.unit != answer.unit:
        from sympy import pi

        other = answer if gold.unit == "deg^1" else gold
        if r"\pi" in other.formula:
            return _scaled(gold.formula, answer.formula, gold.unit == "deg^1", 180 / pi), "degrees"
    verdict = _formulas(gold.formula, answer.formula)
    if verdict[0] and answer.percent and not gold.percent and _is_share(gold.formula):
        return False, "percent"
    if verdict[0]:
        return True, by or verdict[1]
    if gold.percent != answer.percent:
        return _scaled(gold.formula, answer.formula, gold.percent, 100), "percent"
    return verdict


def _is_share(formula: str) -> bool:
    """A number below one is a share: with a percent sign behind it, it is another."""
    number = plain_number(formula)
    return number is not None and 0 < abs(number[0]) < number[1]


def _same_tail(one: Expression, other: Expression) -> Expression:
    """`10m` against `10\\text{ m}`: a letter that the other side writes as its unit is one here too."""
    if one.unit is not None or other.unit is None:
        return one
    tail = re.search(r"(?<=[\d)}])\s*([A-Za-z]{1,3}(?:(?:/|\s+)[A-Za-z]{1,3}|\^\s*\{?-?\d\}?){0,4})$", one.formula)
    if tail and (other.unit == f"{tail[1]}^1" or other.unit == unit_of(tail[1])):
        return Expression(closed(one.formula[: tail.start()]), other.unit, one.percent)
    return one


def _ratio(number: Fraction) -> Any:
    from sympy import Rational

    return Rational(number.numerator, number.denominator)


def _scaled(gold: str, answer: str, divide_gold: bool, by: Any) -> bool:
    a, b = value_of(gold), value_of(answer)
    if a is None or b is None:
        return False
    return equal_values(a / by, b) if divide_gold else equal_values(a, b / by)


def _formulas(gold: str, answer: str) -> Verdict:
    if squeeze(gold) == squeeze(answer):
        return True, "same text"
    x, y = plain_number(gold), plain_number(answer)
    if x is not None and y is not None:
        return same_number(x, y), "number"
    a = value_of(gold)
    if a is None:
        return False, "gold not read"
    b = value_of(answer)
    if b is None:
        return False, "answer not read"
    if equal_values(a, b):
        return True, "value"
    if (x is not None and x[2]) or (y is not None and y[2]):
        return _rounded(a, b, x, y), "decimal"
    if _renamed_parameter(a, b):
        return True, "renamed parameter"
    return False, "value"


def _rounded(a: Any, b: Any, x: Number | None, y: Number | None) -> bool:
    """A decimal against an exact number that is not written as a plain fraction."""
    if a.free_symbols or b.free_symbols or not (a.is_real and b.is_real):
        return False
    decimal, exact = (x, b) if x is not None and x[2] else (y, a)
    assert decimal is not None
    if exact.is_Rational:
        return same_number(decimal, (int(exact.p), int(exact.q), None))
    if len(str(abs(decimal[0]))) < LEAST_DIGITS:
        return False
    difference = abs((a - b).evalf(30))
    return bool(
        difference <= 10 ** (1 - LEAST_DIGITS) * abs(exact.evalf(30)) and difference <= 10 ** -float(decimal[2] or 0)
    )


def _renamed_parameter(a: Any, b: Any) -> bool:
    """Families such as pi/2 + k pi: the name of the free integer does not matter."""
    from sympy import pi

    if len(a.free_symbols) != 1 or len(b.free_symbols) != 1:
        return False
    (k,), (n,) = a.free_symbols, b.free_symbols
    if k == n or not {str(k), str(n)} <= set("klmnj"):
        return False
    slope = a.diff(k)
    if slope.free_symbols or not (slope / pi).is_rational:
        return False
    return equal_values(a, b.xreplace({n: k}))
