"""Formulas as sympy expressions, and whether two of them are the same function: compared at many points, to 50 digits.

Formulas are read by latex2sympy2_extended with the case of letters kept; what points cannot decide is left to Math-Verify.
To be run under a deadline: sympy may take for ever.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from rewards.grading.normalise import LONGEST, plain_number
from rewards.grading.units import quantity


def is_zero(value: Any) -> bool:
    """True only where sympy knows it."""
    return value.is_zero is True


_LETTER_I = re.compile(r"\\[a-zA-Z]+|_\s*\{[^{}]*\}|_\s*\w|\{\\text[^{}]*\}|\\text\s*\{[^{}]*\}|[iI]")
_UNSAFE = re.compile(
    r"\d\s+\d|\d_|\d\s*'|!\s*!|\\pmod|[?\"@#]|\\(?:ldots|cup|cap|in|notin|subset|mathbb|iff|Rightarrow|to|rightarrow)(?![a-zA-Z])"
)
_LIMIT = re.compile(r"(\\lim\s*_\s*\{[^{}]{1,20})\\(?:to|rightarrow)(?![a-zA-Z])([^{}]{1,20}\})")
_DECIMAL = re.compile(r"(?<![\w.^])(\d{1,40})\.(\d{1,40})(?![\d.!])")
_REPEATING = re.compile(r"(\d{1,40})\.(\d{0,40})\\(?:overline|bar|dot)\s*\{?\s*(\d{1,40})\s*\}?")
_PERIOD_WITHIN = re.compile(r"\\overline\s*\{\s*\d+\s*\}\s*\d")
"""`0.8\\overline{3}1` is no number: after what is repeated for ever comes nothing."""
_CACHED = 4096


_DOTTED = re.compile(r"(\d{1,40})\.(\d{0,40})\\dot\s*\{?(\d)\}?(\d{0,20})\\dot\s*\{?(\d)\}?")
_GOES_ON = re.compile(r"(?<![\d.])(\d{1,40})\.(\d{2,60})\s*\\ldots\s*$")
_PERIOD = re.compile(r"(\d*?)(?:(\d)\2{2,}|(\d{2,20})\3+)")


def _going_on(found: re.Match[str]) -> str:
    """`0.2333\\ldots` → `0.2\\overline{3}`, if the digits show a period: thrice for one digit, twice for more."""
    whole = _PERIOD.fullmatch(found[2])
    return f"{found[1]}.{whole[1]}\\overline{{{whole[2] or whole[3]}}}" if whole else found[0]


_DOUBLE_FACTORIAL = re.compile(r"(?<![\w.}])(\d{1,3})!!(?!!)")
_CHOOSE = re.compile(r"\{([^{}\\]{1,20})\\choose\s*([^{}\\]{1,20})\}|^([^{}\\]{1,20})\\choose\s*([^{}\\]{1,20})$")
_CHOSEN = re.compile(
    r"(?:\{\s*\})?[_^]\s*\{?(\w{1,4})\}?\s*([CP])\s*_\s*(?:\{(\w{1,4})\}|(\w))|(?<![\w\\])([CP])\((\d{1,4}),\s*(\d{1,4})\)"
)


def _counted(found: re.Match[str]) -> str:
    """`{}_{10}C_3`, `C(10,3)` → a binomial coefficient; with P the number of arrangements."""
    n, kind, k = found[1] or found[6], found[2] or found[5], found[3] or found[4] or found[7]
    return f"\\binom{{{n}}}{{{k}}}" + (f"\\cdot {k}!" if kind == "P" else "")


_DETERMINANT = re.compile(
    r"(?:(?:\\begin\{vmatrix\}|\\det\s*\(?\s*\\begin\{[pb]matrix\}|\|\s*\\begin\{(?:matrix|array)\}(?:\{[lcr| ]+\})?)"
    r"(?P<body>(?:(?!\\begin).)*?)(?:\\end\{vmatrix\}|\\end\{[pb]matrix\}\s*\)?|\\end\{(?:matrix|array)\}\s*\|))",
    re.DOTALL,
)


def _determinant(text: str) -> Any:
    """The value of a determinant that is the whole text; None if it is none."""
    import sympy

    found = _DETERMINANT.fullmatch(text)
    if found is None:
        return None
    rows = [row.split("&") for row in re.split(r"\\\\", found["body"]) if row.strip()]
    if not rows or len(rows) > 6 or any(len(row) != len(rows) for row in rows):
        return None
    entries = [[value_of(entry.strip()) for entry in row] for row in rows]
    return None if any(e is None for row in entries for e in row) else sympy.Matrix(entries).det()


def _double_factorial(found: re.Match[str]) -> str:
    n = int(found[1])
    return str(math.prod(range(n, 0, -2)))


def _repeating(found: re.Match[str]) -> str:
    """`0.1\\overline{6}` → `\\frac{15}{90}`."""
    fixed, period = found[1] + found[2], found[3]
    bottom = (10 ** len(period) - 1) * 10 ** len(found[2])
    return f"\\frac{{{int(fixed + period) - int(fixed)}}}{{{bottom}}}"


@lru_cache(maxsize=_CACHED)
def value_of(text: str) -> Any:
    """A formula as a sympy expression: decimals exact, i the imaginary unit. None if it cannot be read."""
    import sympy

    shape = quantity(text)
    text = shape.formula
    scale = sympy.Rational(1, 100) if shape.percent else 1
    plain = plain_number(text)
    if plain is not None:
        return sympy.Rational(plain[0], plain[1]) * scale
    if "matrix" in text or "array" in text:
        return None if (found := _determinant(text)) is None else found * scale
    text = _DOUBLE_FACTORIAL.sub(
        _double_factorial,
        _CHOSEN.sub(_counted, _CHOOSE.sub(lambda m: f"\\binom{{{m[1] or m[3]}}}{{{m[2] or m[4]}}}", text)),
    )
    text = _DOTTED.sub(r"\1.\2\\overline{\3\4\5}", _GOES_ON.sub(_going_on, text))
    if _PERIOD_WITHIN.search(text):
        return None
    text = re.sub(r"(\\pi)\s*(?=\()", r"\1\\cdot ", text)  # not a function of what follows
    text = _REPEATING.sub(_repeating, re.sub(r"_\s*(\w)(?!\w)", r"_{\1}", text))
    if _UNSAFE.search(_LIMIT.sub("", text)) or len(text) > LONGEST or not text:
        return None
    if re.fullmatch(r"[+-]?\s*\\infty", text):
        return -sympy.oo if text.startswith("-") else sympy.oo
    text = re.sub(r"(?<=[a-zA-Z}])'+", lambda m: r"^{\prime" + r"\prime" * (len(m[0]) - 1) + "}", text)
    text = re.sub(r"_\{\s*\\([a-zA-Z]+)\s*\}", r"_{\1}", text)
    # A power T is a transpose to the grammar, which it then leaves out.
    text = re.sub(r"\^\s*(?:T(?![a-zA-Z_])|\{\s*T\s*\})", r"^{\\mathcal{T}}", text)
    # The grammar knows no subscript on e and E.
    text = re.sub(r"(?<![a-zA-Z\\])([eE])(?=\s*_)", r"\\mathcal{\1}", text)
    if not re.search(r"\\(?:sum|prod)", text):
        text = _LETTER_I.sub(lambda m: {"i": r"\iota ", "I": r"\mathcal{I}"}.get(m[0], m[0]), text)
    # As floats they would be worked out to 15 digits: `\ln 2.5`.
    text = _DECIMAL.sub(lambda m: f"\\frac{{{int(m[1] + m[2])}}}{{{10 ** len(m[2])}}}", text)
    try:
        found = _parse(text)
    except Exception:
        return None
    if not isinstance(found, sympy.Expr):
        return None
    # The parser loses the power of its own I (`I^2` becomes `I`), hence a letter that stands for it until here.
    found = found.xreplace({sympy.Symbol("iota", real=True): sympy.I})
    found = found.replace(lambda e: isinstance(e, sympy.Derivative), lambda e: sympy.Symbol(str(e), real=True))
    found = found.xreplace({f: sympy.Rational(str(f)) for f in found.atoms(sympy.Float)})
    calls = found.atoms(sympy.core.function.AppliedUndef)
    if calls:
        found = found.xreplace({call: sympy.Symbol(str(call), real=True) for call in calls})
    try:
        found = found.doit()
    except RecursionError:
        return None
    except (ValueError, TypeError, ZeroDivisionError, NotImplementedError, AttributeError):
        return None
    if r"\sqrt[" in text and not found.has(sympy.I):
        found = found.replace(_is_odd_root, lambda power: sympy.real_root(power.base, power.exp.q) ** power.exp.p)
    if not isinstance(found, sympy.Expr) or found.has(sympy.nan, sympy.zoo):
        return None
    if found in (sympy.oo, -sympy.oo):
        return None  # `\infty-1` says something else
    return found * scale


def _is_odd_root(power: Any) -> bool:
    """`\\sqrt[3]{-8}`: -2 is meant, not the first of the complex roots."""
    return bool(
        power.is_Pow and power.base.is_Rational and power.base < 0 and power.exp.is_Rational and power.exp.q % 2
    )


def _parse(text: str) -> Any:
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy

    return latex2sympy(
        text,
        is_real=True,
        convert_degrees=True,
        normalization_config=None,
        conversion_config=ConversionConfig(lowercase_symbols=False),
    )


DIGITS = 50
HUGE = 1e10
"""Beyond this a difference that matters may be small beside the numbers."""
POINTS = 8


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
