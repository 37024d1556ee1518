"""Are two answers the same? Shapes are compared as shapes, formulas as functions: at many points, to 50 digits.

Runs in a worker process with a deadline, because sympy may take for ever. Formulas are read by latex2sympy2_extended
with the case of letters kept, and what points cannot decide is left to Math-Verify. Bent towards rejecting: a
formula that cannot be read equals nothing but its own text.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from rewards.grading.normalise import LONGEST, normal, plain_number
from rewards.grading.shape import (
    Based,
    Choice,
    Conditions,
    Expression,
    Listing,
    Matrix,
    Ratio,
    Region,
    Relation,
    Shape,
    Word,
    closed,
    is_name,
    name_key,
    quantity,
    read,
    squeeze,
)

TOLERANCE = 1e-6
"""Largest relative difference between a decimal and the exact number it stands for; and never more than one unit of its last place."""

Verdict = tuple[bool, str]
WRONG: Verdict = (False, "different")


def equal_text(gold: str, answer: str) -> Verdict | None:
    """What needs no sympy: the same normal form, or two plain numbers. None = not decided."""
    if squeeze(gold) == squeeze(answer):
        return True, "same text"
    a, b = plain_number(gold), plain_number(answer)
    if a is None or b is None:
        return None
    return _numbers(a, b), "number"


def _numbers(a: tuple[int, int, int | None], b: tuple[int, int, int | None]) -> bool:
    difference = abs(a[0] * b[1] - b[0] * a[1])  # times both denominators
    if difference == 0:
        return True
    decimals = [n for n in (a[2], b[2]) if n is not None]
    if not decimals or not (a[0] and b[0]):
        return False
    exact = b if a[2] is not None else a
    scale = a[1] * b[1]
    small = difference * 10**6 * exact[1] <= abs(exact[0]) * scale
    return small and difference * 10 ** min(decimals) <= scale


def equal(gold: str, answer: str) -> Verdict:
    """Whether `answer` says what `gold` says, and by which rule. Both as written."""
    gold, answer = normal(gold), normal(answer)
    found = equal_text(gold, answer)
    if found is not None:
        return found
    return _same(read(gold), read(answer))


def _same(gold: Shape, answer: Shape) -> Verdict:
    if isinstance(gold, Choice) or isinstance(answer, Choice):
        return _choices(gold, answer)
    if isinstance(gold, Word) or isinstance(answer, Word):
        return _words(gold, answer)
    if isinstance(gold, Based) or isinstance(answer, Based):
        return (gold == answer, "base")
    if isinstance(gold, Ratio) or isinstance(answer, Ratio):
        return _ratios(gold, answer)
    if isinstance(gold, Matrix) or isinstance(answer, Matrix):
        return _matrices(gold, answer)
    if isinstance(gold, Listing) and isinstance(answer, Listing):
        return _listings(gold, answer)
    if isinstance(gold, Relation) and isinstance(answer, Relation):
        return _relations(gold, answer)
    if (
        isinstance(gold, (Region, Conditions))
        or isinstance(answer, (Region, Conditions))
        or _inequality(gold)
        or _inequality(answer)
    ):
        return _regions(gold, answer)
    if isinstance(gold, Relation) or isinstance(answer, Relation):
        return _relation_and_value(gold, answer)
    if isinstance(answer, Listing) and answer.kind == "bare":
        return all(_same(gold, item)[0] for item in answer.items), "one of several"
    if isinstance(gold, Listing) or isinstance(answer, Listing):
        return False, "one of several"
    return _quantities(gold, answer)


def _inequality(shape: Shape) -> bool:
    return isinstance(shape, Relation) and not shape.is_equation


def _choices(gold: Shape, answer: Shape) -> Verdict:
    if isinstance(gold, Choice) and isinstance(answer, Choice):
        return (gold.letter == answer.letter, "choice")
    if isinstance(answer, Choice) and answer.rest:
        return _same(gold, read(answer.rest))
    if isinstance(gold, Choice) and gold.rest:
        return _same(read(gold.rest), answer)
    letter, other = (gold, answer) if isinstance(gold, Choice) else (answer, gold)
    assert isinstance(letter, Choice)
    if isinstance(other, Word):
        return False, "choice"
    return _same(Expression(letter.letter), other) if letter is gold else _same(other, Expression(letter.letter))


def _words(gold: Shape, answer: Shape) -> Verdict:
    def said(shape: Shape) -> str | None:
        if isinstance(shape, Word):
            return shape.text
        return shape.formula if isinstance(shape, Expression) and not shape.unit else None

    a, b = said(gold), said(answer)
    if a is None or b is None:
        return False, "word"
    return " ".join(a.casefold().split()) == " ".join(b.casefold().split()), "word"


_CLOCK = re.compile(r"\d{1,2}:[0-5]\d")


def _ratios(gold: Shape, answer: Shape) -> Verdict:
    if isinstance(gold, Ratio) and isinstance(answer, Ratio):
        if len(gold.parts) != len(answer.parts):
            return False, "ratio"
        if all(_CLOCK.fullmatch(":".join(r.parts)) for r in (gold, answer)):
            return [p.lstrip("0") for p in gold.parts] == [p.lstrip("0") for p in answer.parts], "time"
        a, b = ([_value(p) for p in r.parts] for r in (gold, answer))
        if None in a or None in b or any(_is_zero(v) for v in [*a, *b]):
            return False, "ratio"
        return all(_equal_values(x * b[0], y * a[0]) for x, y in zip(a[1:], b[1:], strict=True)), "ratio"
    ratio, other = (gold, answer) if isinstance(gold, Ratio) else (answer, gold)
    assert isinstance(ratio, Ratio)
    if (
        len(ratio.parts) == 2
        and isinstance(other, Expression)
        and not other.unit
        and not _CLOCK.fullmatch(":".join(ratio.parts))
    ):
        return _quantities(Expression(f"\\frac{{{ratio.parts[0]}}}{{{ratio.parts[1]}}}"), other)
    return False, "ratio"


def _matrices(gold: Shape, answer: Shape) -> Verdict:
    if not (isinstance(gold, Matrix) and isinstance(answer, Matrix)):
        if isinstance(answer, Relation) and answer.is_equation and is_name(answer.parts[0]):
            return _same(gold, read(answer.parts[-1]))
        if isinstance(gold, Relation) and gold.is_equation and is_name(gold.parts[0]):
            return _same(read(gold.parts[-1]), answer)
        return False, "matrix"
    if [len(r) for r in gold.rows] != [len(r) for r in answer.rows]:
        return False, "matrix shape"

    def entries(matrix: Matrix) -> list[Any]:
        factor = _value(matrix.factor) if matrix.factor else 1
        values = [_value(entry) for row in matrix.rows for entry in row]
        return [None if v is None or factor is None else factor * v for v in values]

    pairs = zip(entries(gold), entries(answer), strict=True)
    return all(a is not None and b is not None and _equal_values(a, b) for a, b in pairs), "matrix"


# ---- several answers


def _listings(gold: Listing, answer: Listing) -> Verdict:
    named_gold, named_answer = _named(gold), _named(answer)
    if named_gold and named_answer:
        together = named_gold.keys() == named_answer.keys()
        return together and all(_same(named_gold[k], named_answer[k])[0] for k in named_gold), "named values"
    if named_gold:
        gold = Listing(tuple(named_gold.values()), "tuple")
    elif named_answer:
        answer = Listing(tuple(named_answer.values()), "tuple")
    kinds = {gold.kind, answer.kind}
    if kinds == {"set", "tuple"}:
        return False, "ordered and unordered"
    dots = any(
        isinstance(i, Expression) and i.formula.strip() in (r"\ldots", "...") for i in (*gold.items, *answer.items)
    )
    if "tuple" in kinds or dots:
        same = len(gold.items) == len(answer.items) and all(
            _same(a, b)[0] for a, b in zip(gold.items, answer.items, strict=True)
        )
        return same, "in order"
    ours, theirs = list(gold.items), list(answer.items)
    if "set" in kinds:
        ours, theirs = _distinct(ours), _distinct(theirs)
    if len(ours) != len(theirs):
        return False, "how many"
    for item in ours:
        match = next((k for k, other in enumerate(theirs) if _same(item, other)[0]), None)
        if match is None:
            return False, "in any order"
        del theirs[match]
    return True, "in any order"


def _distinct(items: list[Shape]) -> list[Shape]:
    kept: list[Shape] = []
    for item in items:
        if not any(_same(k, item)[0] for k in kept):
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


# ---- equations and inequalities


def _relations(gold: Relation, answer: Relation) -> Verdict:
    if gold.is_equation and answer.is_equation:
        left, right = name_key(gold.parts[0]), name_key(answer.parts[0])
        if is_name(gold.parts[0]) and left == right:
            return _same(read(gold.parts[-1]), read(answer.parts[-1]))
        if (together := _pair_of_names(gold)) is not None:
            return _same(together, answer)
        if (together := _pair_of_names(answer)) is not None:
            return _same(gold, together)
        if len(gold.parts) == len(answer.parts) == 2:
            return _proportional(_difference(gold.parts), _difference(answer.parts), any_sign=True), "equation"
        return False, "equation"
    if gold.is_equation or answer.is_equation:
        return False, "equation and inequality"
    verdict = _regions(gold, answer)
    if verdict[0] or verdict[1] != "not a set":
        return verdict
    return _inequalities(gold, answer), "inequality"


def _pair_of_names(relation: Relation) -> Shape | None:
    """`(x,y)=(1,2)` → `x=1, y=2`."""
    if len(relation.parts) != 2:
        return None
    names, values = read(relation.parts[0]), read(relation.parts[1])
    if not (isinstance(names, Listing) and isinstance(values, Listing) and len(names.items) == len(values.items)):
        return None
    if values.kind != "tuple" or not all(isinstance(n, Expression) and is_name(n.formula) for n in names.items):
        return None
    texts = _texts(relation.parts[1])
    if len(texts) != len(names.items):
        return None
    return Listing(tuple(Relation((n.formula, t), ("=",)) for n, t in zip(names.items, texts, strict=True)), "bare")  # type: ignore[union-attr]


def _texts(tuple_text: str) -> list[str]:
    from rewards.grading.shape import _pieces

    return [piece for _, piece in _pieces(tuple_text[1:-1])]


def _relation_and_value(gold: Shape, answer: Shape) -> Verdict:
    relation, value = (gold, answer) if isinstance(gold, Relation) else (answer, gold)
    assert isinstance(relation, Relation)

    def against(text: str | Shape) -> Verdict:
        shape = read(text) if isinstance(text, str) else text
        return _same(shape, value) if relation is gold else _same(value, shape)

    if (named := _pair_of_names(relation)) is not None:
        return against(named)
    if is_name(relation.parts[0]):
        return against(relation.parts[-1])
    if isinstance(value, Listing):
        return False, "equation and value"
    return all(against(part)[0] for part in relation.parts), "equal parts"


def _difference(parts: Sequence[str]) -> Any:
    a, b = _value(parts[0]), _value(parts[1])
    return None if a is None or b is None else a - b


def _proportional(a: Any, b: Any, *, any_sign: bool) -> bool:
    """Whether a = c b with a constant c that is not 0 (and, unless `any_sign`, positive)."""
    if a is None or b is None:
        return False
    symbols = sorted(a.free_symbols | b.free_symbols, key=str)
    if not symbols or a.free_symbols != b.free_symbols:
        return False
    ratios = []
    for x, y in _points(a, b, symbols):
        if abs(y) < 1e-20 or abs(x) < 1e-20:
            continue
        ratios.append(x / y)
    if len(ratios) < 4:
        return False
    first = ratios[0]
    if not any_sign and not (abs(first.imag) < 1e-20 and first.real > 0):
        return False
    return all(abs(r - first) <= 1e-25 * abs(first) for r in ratios)


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
                if e == with_equality and _proportional(difference, d, any_sign=False)
            ),
            None,
        )
        if match is None:
            return False
        del theirs[match]
    return True


# ---- sets of numbers


class _NotASet(Exception):
    pass


def _regions(gold: Shape, answer: Shape) -> Verdict:
    from sympy import S

    names = [_variable(s) for s in (gold, answer)]
    if None not in names and names[0] != names[1]:
        return False, "other variable"
    try:
        a, b = _set(gold), _set(answer)
    except _NotASet:
        return False, "not a set"
    if a == b:
        return True, "set"
    try:
        return bool(_canonical(a) == _canonical(b) or a.symmetric_difference(b) == S.EmptySet), "set"
    except Exception:
        return False, "set"


def _variable(shape: Shape) -> str | None:
    """The one variable of a condition, if it has one."""
    relations = shape.items if isinstance(shape, Conditions) else (shape,) if isinstance(shape, Relation) else ()
    letters = set()
    for relation in relations:
        for part in relation.parts:
            value = _value(part)
            if value is not None:
                letters |= {str(s) for s in value.free_symbols}
    return letters.pop() if len(letters) == 1 else None


def _set(shape: Shape) -> Any:
    from sympy import FiniteSet, Intersection, Interval, Union

    if isinstance(shape, Region):
        return _set_of_text(shape.text)
    if isinstance(shape, Conditions):
        sets = [_set(item) for item in shape.items]
        return Union(*sets) if shape.joined == "or" else Intersection(*sets)
    if isinstance(shape, Relation) and not shape.is_equation:
        return _solutions(shape)
    if isinstance(shape, Relation) and is_name(shape.parts[0]):
        return _set(read(shape.parts[-1]))
    if isinstance(shape, Listing):
        values = [_value(i.formula) if isinstance(i, Expression) else None for i in shape.items]
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


def _set_of_text(text: str) -> Any:
    from sympy import Complement, Interval, S, Union

    text = closed(text)
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
    if named := _NAMED_SET.fullmatch(text):
        return {"R": S.Reals, "Z": S.Integers, "N": S.Naturals, "Q": S.Rationals, "C": S.Complexes}[named[1]]
    if text.startswith(r"\{"):
        inner = closed(text[2:-2])
        builder = re.fullmatch(r"([a-zA-Z])(?:\s*\\in\s*\\mathbb\s*\{?R\}?)?\s*[|:]\s*(.+)", inner)
        if builder:
            return _set(read(builder[2]))
        return _set(read(text))
    if text[:1] in "([" and text[-1:] in ")]":
        parts = _texts(text)
        if len(parts) == 1 and text[0] == "(" and text[-1] == ")":
            return _set_of_text(parts[0])
        values = [_value(p) for p in parts]
        if len(values) != 2 or None in values:
            raise _NotASet
        low, high = values
        if not _is_less(low, high) and not (text[0] == "[" and text[-1] == "]" and _equal_values(low, high)):
            raise _NotASet
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
    values = [_value(part) for part in relation.parts]
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


# ---- values


def _quantities(gold: Shape, answer: Shape) -> Verdict:
    if not (isinstance(gold, Expression) and isinstance(answer, Expression)):
        return WRONG
    gold, answer = _same_tail(gold, answer), _same_tail(answer, gold)
    if gold.unit and answer.unit and gold.unit != answer.unit:
        return False, "other unit"
    by = "unit omitted" if (gold.unit is None) != (answer.unit is None) else ""
    verdict = _formulas(gold.formula, answer.formula)
    if verdict[0]:
        return True, by or verdict[1]
    if gold.percent != answer.percent:
        return _scaled(gold.formula, answer.formula, gold.percent, 100), "percent"
    if "deg^1" in (gold.unit, answer.unit) and gold.unit != answer.unit:
        from sympy import pi

        other = answer if gold.unit == "deg^1" else gold
        if r"\pi" in other.formula:
            return _scaled(gold.formula, answer.formula, gold.unit == "deg^1", 180 / pi), "degrees"
    return verdict


def _same_tail(one: Expression, other: Expression) -> Expression:
    """`10m` against `10\\text{ m}`: a letter that the other side writes as its unit is one here too."""
    tail = re.search(r"(?<=[\d)}])\s*([A-Za-z]{1,3})$", one.formula)
    if tail and one.unit is None and other.unit == f"{tail[1]}^1":
        return Expression(closed(one.formula[: tail.start()]), other.unit, one.percent)
    return one


def _scaled(gold: str, answer: str, divide_gold: bool, by: Any) -> bool:
    a, b = _value(gold), _value(answer)
    if a is None or b is None:
        return False
    return _equal_values(a / by, b) if divide_gold else _equal_values(a, b / by)


def _formulas(gold: str, answer: str) -> Verdict:
    if squeeze(gold) == squeeze(answer):
        return True, "same text"
    x, y = plain_number(gold), plain_number(answer)
    if x is not None and y is not None:
        return _numbers(x, y), "number"
    a = _value(gold)
    if a is None:
        return False, "gold not read"
    b = _value(answer)
    if b is None:
        return False, "answer not read"
    if _equal_values(a, b):
        return True, "value"
    if (x is not None and x[2]) or (y is not None and y[2]):
        return _rounded(a, b, x, y), "decimal"
    if _renamed_parameter(a, b):
        return True, "renamed parameter"
    return False, "value"


def _rounded(a: Any, b: Any, x: tuple[int, int, int | None] | None, y: tuple[int, int, int | None] | None) -> bool:
    """A decimal against an exact number: within `TOLERANCE`, and within one unit of the decimal's last place."""
    if a.free_symbols or b.free_symbols or not (a.is_real and b.is_real):
        return False
    decimals, exact = (x[2], b) if x is not None and x[2] else (y[2], a)  # type: ignore[index]
    difference = abs((a - b).evalf(30))
    return bool(difference <= TOLERANCE * abs(exact.evalf(30)) and difference <= 10 ** -float(decimals))


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
    return _equal_values(a, b.xreplace({n: k}))


def _is_zero(value: Any) -> bool:
    return value.is_zero is True


_LETTER_I = re.compile(r"\\[a-zA-Z]+|_\s*\{[^{}]*\}|_\s*\w|\{\\text[^{}]*\}|\\text\s*\{[^{}]*\}|[iI]")
_UNSAFE = re.compile(
    r"\d\s+\d|\d_|[?\"@#]|\\(?:ldots|cup|cap|in|notin|subset|mathbb|iff|Rightarrow|to|rightarrow)(?![a-zA-Z])"
)
_REPEATING = re.compile(r"(\d{1,40})\.(\d{0,40})\\(?:overline|bar|dot)\s*\{?\s*(\d{1,40})\s*\}?")
_CACHED = 4096


def _repeating(found: re.Match[str]) -> str:
    """`0.1\\overline{6}` → `\\frac{15}{90}`."""
    fixed, period = found[1] + found[2], found[3]
    bottom = (10 ** len(period) - 1) * 10 ** len(found[2])
    return f"\\frac{{{int(fixed + period) - int(fixed)}}}{{{bottom}}}"


@lru_cache(maxsize=_CACHED)
def _value(text: str) -> Any:
    """A formula as a sympy expression: decimals exact, i the imaginary unit. None if it cannot be read."""
    import sympy

    shape = quantity(text)
    text = shape.formula
    scale = sympy.Rational(1, 100) if shape.percent else 1
    plain = plain_number(text)
    if plain is not None:
        return sympy.Rational(plain[0], plain[1]) * scale
    text = _REPEATING.sub(_repeating, re.sub(r"_\s*(\w)(?!\w)", r"_{\1}", text))
    if _UNSAFE.search(text) or len(text) > LONGEST or not text:
        return None
    if re.fullmatch(r"[+-]?\s*\\infty", text):
        return -sympy.oo if text.startswith("-") else sympy.oo
    text = re.sub(r"(?<=[a-zA-Z}])'+", lambda m: r"^{\prime" + r"\prime" * (len(m[0]) - 1) + "}", text)
    text = re.sub(r"_\{\s*\\([a-zA-Z]+)\s*\}", r"_{\1}", text)
    # The grammar knows no subscript on e and E.
    text = re.sub(r"(?<![a-zA-Z\\])([eE])(?=\s*_)", r"\\mathcal{\1}", text)
    if not re.search(r"\\(?:sum|prod)", text):
        text = _LETTER_I.sub(lambda m: {"i": r"\iota ", "I": r"\mathcal{I}"}.get(m[0], m[0]), text)
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
    if not isinstance(found, sympy.Expr) or found.has(sympy.nan, sympy.zoo):
        return None
    return found * scale


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
POINTS = 8


def _equal_values(a: Any, b: Any) -> bool:
    """Equal as functions wherever both are real (or, if they never are, as complex functions)."""
    import sympy

    if a == b:
        return True
    symbols = sorted(a.free_symbols | b.free_symbols, key=str)
    if not symbols:
        return _equal_constants(a, b)
    points = _points(a, b, symbols)
    if len(points) >= 4:
        return all(_close(x, y) for x, y in points)
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
    return _close(x, y)


def _close(x: Any, y: Any) -> bool:
    largest = max(abs(x), abs(y))
    if x == 0 or y == 0:
        return bool(largest < 1e-40)
    return bool(abs(x - y) <= 1e-25 * largest)


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


def _points(a: Any, b: Any, symbols: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Values of both at up to `POINTS` points where both exist: real ones first, whole numbers where rounding or
    factorials are at work, complex values only if there are no others (or i occurs)."""
    import sympy

    whole = any(e.has(sympy.factorial, sympy.binomial, sympy.Sum, sympy.Product, sympy.Mod) for e in (a, b))
    if all(e.has(sympy.floor, sympy.ceiling) for e in (a, b)):
        whole = whole or {str(s) for s in symbols} <= _COUNTS
    complex_ones = a.has(sympy.I) or b.has(sympy.I)
    draw = random.Random(20_260_101)
    kinds: list[Callable[[], Any]] = [
        lambda: sympy.Rational(draw.randint(-3_000, 3_000), 997),
        lambda: sympy.Rational(draw.randint(1, 4_000), 991),
        lambda: sympy.Integer(draw.randint(1, 40)),
    ]
    only_complex: list[tuple[Any, Any]] = []
    for kind in kinds[2:] if whole else kinds:
        found: list[tuple[Any, Any]] = []
        for _ in range(3 * POINTS):
            point = {s: kind() for s in symbols}
            x, y = (_number(_at(e, point)) for e in (a, b))
            if x is None or y is None:
                continue
            if not complex_ones and (abs(x.imag) > 1e-30 * abs(x) or abs(y.imag) > 1e-30 * abs(y)):
                only_complex.append((x, y))
                continue
            found.append((x, y))
            if len(found) == POINTS:
                return found
        if len(found) >= 4:
            return found
    return only_complex[:POINTS] if len(only_complex) >= 4 else []


def _at(expression: Any, point: dict[Any, Any]) -> Any:
    try:
        return expression.xreplace(point).doit()
    except (ValueError, TypeError, ZeroDivisionError, RecursionError):
        from sympy import nan

        return nan
