"""Whether two sympy expressions are the same function: compared at many points, to 50 digits.

What points cannot decide is left to Math-Verify. To be run under a deadline: sympy may take for ever.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

DIGITS = 50
HUGE = 1e10
"""Beyond this a difference that matters may be small beside the numbers."""
POINTS = 8


def is_zero(value: Any) -> bool:
    """True only where sympy knows it."""
    return value.is_zero is True


def equal_values(a: Any, b: Any) -> bool:
    """Equal as functions wherever both are real (or, if they never are, as complex functions)."""
    import sympy

    if a == b:
        return True
    difference = a - b
    if difference.is_Rational and difference != 0:
        return False
    symbols = sorted(a.free_symbols | b.free_symbols, key=str)
    if not symbols:
        return _equal_constants(a, b)
    within = _within(a, b)
    found = points(a, b, symbols, lambda x, y: not _close(x, y, within))
    if len(found) == 1:
        return False
    if found:
        if not all(_close(x, y, within) for x, y in found):
            return False
        return max(abs(x) for x, _ in found) < HUGE or _cancels(difference, dict.fromkeys(symbols, sympy.Integer(7)))
    if {str(s) for s in a.free_symbols} != {str(s) for s in b.free_symbols}:
        return False
    from math_verify import verify

    return bool(isinstance(a, sympy.Expr) and verify(a, b, float_rounding=12, timeout_seconds=None))


def _equal_constants(a: Any, b: Any) -> bool:
    import sympy

    if a.has(sympy.oo, -sympy.oo) or b.has(sympy.oo, -sympy.oo):
        return False
    x, y = _number(a), _number(b)
    if x is None or y is None:
        return False
    if x == 0 or y == 0 or max(abs(x), abs(y)) < 1e-45:
        if max(abs(x), abs(y)) > 1e-40:
            return False
        difference = sympy.simplify(a - b)
        return bool(difference == 0)
    if not _close(x, y, _within(a, b)):
        return False
    return max(abs(x), abs(y)) < HUGE or _cancels(a - b, {})


SAME = 1e-40
"""Relative difference of two numbers, worked out to `DIGITS` digits, that are one ..."""
ROUGH = 1e-25
"""... and of two that hold a sum, product or integral without end, which are worked out less exactly."""


def _close(x: Any, y: Any, within: float = SAME) -> bool:
    largest = max(abs(x), abs(y))
    if x == 0 or y == 0:
        return bool(largest < 1e-40)
    return bool(abs(x - y) <= within * largest)


def _cancels(difference: Any, point: dict[Any, Any]) -> bool:
    """Whether a difference of huge numbers is nothing beside the terms that are left in it: `(h + x) - h` is x."""
    import mpmath
    import sympy

    terms = [_number(_at(term, point)) for term in sympy.Add.make_args(difference)]
    if None in terms:
        return False
    with mpmath.workdps(DIGITS + 10):
        return bool(abs(sum(terms)) <= ROUGH * max(abs(term) for term in terms))


def _within(*values: Any) -> float:
    import sympy

    return ROUGH if any(v.has(sympy.Sum, sympy.Product, sympy.Integral, sympy.Limit) for v in values) else SAME


def _number(value: Any) -> Any:
    """An mpmath number to 50 digits, or None."""
    import mpmath
    import sympy

    try:
        found = sympy.N(value, DIGITS)
        if not found.is_number or found.has(sympy.nan, sympy.zoo, sympy.oo):
            return None
        real, imaginary = found.as_real_imag()
        if not (real.is_Float or real.is_Integer or real.is_Rational) or not imaginary.is_number:
            return None
        with mpmath.workdps(DIGITS + 10):
            return mpmath.mpc(sympy.N(real, DIGITS)._to_mpmath(200), sympy.N(imaginary, DIGITS)._to_mpmath(200))
    except (ValueError, TypeError, AttributeError, NotImplementedError, ZeroDivisionError, OverflowError):
        return None


_COUNTS = frozenset("ijklmnpqKLMN")
"""Letters taken for whole numbers where both formulas round."""


def points(
    a: Any, b: Any, symbols: Sequence[Any], differ: Callable[[Any, Any], bool] | None = None
) -> list[tuple[Any, Any]]:
    """Values of both at up to `POINTS` points where both exist: real ones first, whole numbers where rounding or
    factorials are at work, complex values only if there are no others (or i occurs). At least 4, or none.

    With `differ`, the first two values that do are all that comes back.
    """
    import sympy

    whole = any(e.has(sympy.factorial, sympy.binomial, sympy.Sum, sympy.Product, sympy.Mod) for e in (a, b))
    if all(e.has(sympy.floor, sympy.ceiling) for e in (a, b)):
        whole = whole or {str(s) for s in symbols} <= _COUNTS
    bends = any(e.has(sympy.Abs, sympy.Max, sympy.Min, sympy.sign, sympy.floor, sympy.ceiling) for e in (a, b))
    # Where a formula bends at numbers that may be large, points on both sides are wanted.
    scales = (1, 40, 1, 1000) if bends and not any(e.has(sympy.factorial, sympy.binomial) for e in (a, b)) else (1,)
    complex_ones = a.has(sympy.I) or b.has(sympy.I)
    # Of real numbers, `\sqrt{a}\sqrt{b}` exists only where each of its roots does.
    under = [] if complex_ones else _under_roots(a, b)
    draw = random.Random(20_260_101)
    kinds: list[Callable[[int], Any]] = [
        lambda k: sympy.Rational(k * draw.randint(-3_000, 3_000), 997),
        lambda k: sympy.Rational(k * draw.randint(1, 4_000), 991),
        lambda k: sympy.Integer(draw.randint(1, 40 * k)),
    ]
    only_complex: list[tuple[Any, Any]] = []
    for kind in kinds[2:] if whole else kinds:
        found: list[tuple[Any, Any]] = []
        for k in range(3 * POINTS):
            point = {s: kind(scales[k % len(scales)]) for s in symbols}
            x, y = (_number(_at(e, point)) for e in (a, b))
            if x is None or y is None:
                continue
            imaginary = abs(x.imag) > 1e-30 * abs(x) or abs(y.imag) > 1e-30 * abs(y)
            if not complex_ones and (imaginary or any(_at(e, point).is_negative for e in under)):
                only_complex.append((x, y))
                continue
            if differ is not None and differ(x, y):
                return [(x, y)]
            found.append((x, y))
            if len(found) == POINTS:
                return found
        if len(found) >= 4:
            return found
    return only_complex[:POINTS] if len(only_complex) >= 4 else []


def _under_roots(*values: Any) -> list[Any]:
    """What stands under the even roots."""
    import sympy

    powers = set().union(*(v.atoms(sympy.Pow) for v in values))
    found = {p.base for p in powers if p.exp.is_Rational and p.exp.q % 2 == 0 and p.base.free_symbols}
    return sorted(found, key=str)


def _at(expression: Any, point: dict[Any, Any]) -> Any:
    try:
        return expression.xreplace(point).doit()
    except (ValueError, TypeError, ZeroDivisionError, RecursionError):
        from sympy import nan

        return nan


def proportional(a: Any, b: Any, *, any_sign: bool) -> bool:
    """Whether a = c b with a constant c that is not 0 (and, unless `any_sign`, positive)."""
    if a is None or b is None:
        return False
    symbols = sorted(a.free_symbols | b.free_symbols, key=str)
    if not symbols or a.free_symbols != b.free_symbols:
        return False
    ratios = []
    for x, y in points(a, b, symbols):
        if abs(y) < 1e-20 or abs(x) < 1e-20:
            continue
        ratios.append(x / y)
    if len(ratios) < 4:
        return False
    first = ratios[0]
    if not any_sign and not (abs(first.imag) < 1e-20 and first.real > 0):
        return False
    return all(abs(r - first) <= 1e-25 * abs(first) for r in ratios)


def same_zeros(a: Any, b: Any) -> bool:
    """Whether `a = 0` and `b = 0` are one equation: up to a factor, and written with or without denominators (`y=1/x`, `xy=1`)."""
    import sympy

    if a is None or b is None:
        return False
    if proportional(a, b, any_sign=True):
        return True
    symbols = sorted(a.free_symbols, key=str)
    if not symbols or a.free_symbols != b.free_symbols:
        return False
    (top, under), (other, below) = (sympy.fraction(sympy.together(e)) for e in (a, b))
    if not (under.free_symbols or below.free_symbols) or not all(
        e.is_polynomial(*symbols) for e in (top, under, other, below)
    ):
        return False
    if not proportional(top, other, any_sign=True):
        return False
    # A zero of the numerator where the denominator has one too would be lost.
    return all(bottom.is_number or sympy.groebner([top, bottom], *symbols).exprs == [1] for bottom in (under, below))
