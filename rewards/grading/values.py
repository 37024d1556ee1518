"""Formulas as sympy expressions, read by latex2sympy2_extended with the case of letters kept. Whether two are the same function: `points`.

To be run under a deadline: sympy may take for ever.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any

from rewards.grading.normalise import LONGEST, plain_number
from rewards.grading.units import quantity

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
