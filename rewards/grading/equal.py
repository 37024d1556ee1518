"""Are two answers the same? Shapes are compared as shapes, down to formulas (`values`) and sets of numbers (`regions`).

Runs in a worker process with a deadline, because sympy may take for ever. Bent towards rejecting: a formula that cannot
be read equals nothing but its own text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from math import gcd
from typing import Any

from rewards.grading.normalise import normal, plain_number
from rewards.grading.regions import NOT_A_SET, same_region
from rewards.grading.shape import (
    Based,
    Choice,
    Clock,
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
    members,
    name_key,
    read,
    squeeze,
)
from rewards.grading.units import in_base_units, unit_of
from rewards.grading.values import equal_values, is_zero, proportional, same_zeros, value_of

TOLERANCE = 1e-6
"""Largest relative difference between a decimal of `LEAST_DIGITS` digits and the fraction without end that it stands for; and
never more than one unit of its last place."""
LEAST_DIGITS = 15
"""So many significant digits has a decimal that stands for a number whose digits never end: it was printed by a program. With fewer it is
a rounded value where the exact one is wanted."""

Number = tuple[int, int, int | None]
"""What `plain_number` gives: numerator, denominator, number of decimals (None = exact)."""
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


def _numbers(a: Number, b: Number) -> bool:
    if a[0] * b[1] == b[0] * a[1]:
        return True
    if a[2] is not None and b[2] is not None:
        return _noise(a, b)
    if a[2] is None and b[2] is None:
        return False
    decimal, exact = (a, b) if a[2] is not None else (b, a)
    return len(str(abs(decimal[0]))) >= LEAST_DIGITS and _rounds(decimal, exact) and not _terminates(exact[1])


def _rounds(decimal: Number, exact: Number) -> bool:
    """Whether the decimal is within `TOLERANCE` of the exact number, and within one unit of its own last place."""
    if not (decimal[0] and exact[0]):
        return False
    difference = abs(decimal[0] * exact[1] - exact[0] * decimal[1])  # times both denominators
    small = difference * 10**6 <= abs(exact[0]) * decimal[1]
    return small and difference * 10 ** (decimal[2] or 0) <= decimal[1] * exact[1]


def _terminates(bottom: int) -> bool:
    """Whether a fraction over `bottom` may be written out as a decimal: who could have done that need not round."""
    for prime in (2, 5):
        while bottom % prime == 0:
            bottom //= prime
    return bottom == 1


def _noise(a: Number, b: Number) -> bool:
    """`0.30000000000000004` is how a program prints 0.3."""
    longest, other = (a, b) if (a[2] or 0) >= (b[2] or 0) else (b, a)
    digits = len(str(abs(longest[0])))
    return digits >= 16 and abs(a[0] * b[1] - b[0] * a[1]) * 10**15 <= abs(other[0]) * longest[1]


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
        return _same(one, other)
    return _same(_only(one), _only(other))


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


def _same(gold: Shape, answer: Shape) -> Verdict:
    """The kind of the rarer shape decides which comparison is asked."""
    if isinstance(gold, Choice) or isinstance(answer, Choice):
        return _choices(gold, answer)
    if isinstance(gold, Word) or isinstance(answer, Word):
        return _words(gold, answer)
    if isinstance(gold, Based) or isinstance(answer, Based):
        return (gold == answer, "base")
    if isinstance(gold, Clock) or isinstance(answer, Clock):
        return _times(gold, answer), "time"
    if isinstance(gold, Ratio) or isinstance(answer, Ratio):
        return _ratios(gold, answer)
    if isinstance(gold, Matrix) or isinstance(answer, Matrix):
        return _matrices(gold, answer)
    if isinstance(gold, Listing) and isinstance(answer, Listing):
        return _listings(gold, answer)
    gold, answer = _name_first(gold), _name_first(answer)
    if isinstance(gold, Relation) and isinstance(answer, Relation):
        return _relations(gold, answer)
    if (
        isinstance(gold, (Region, Conditions))
        or isinstance(answer, (Region, Conditions))
        or _inequality(gold)
        or _inequality(answer)
    ):
        verdict = same_region(gold, answer)
        if verdict[1] == NOT_A_SET and isinstance(gold, Conditions) and isinstance(answer, Conditions):
            return _conditions(gold, answer), "inequalities"
        return verdict
    if isinstance(gold, Relation) or isinstance(answer, Relation):
        return _relation_and_value(gold, answer)
    if isinstance(answer, Listing) and answer.loose:
        return all(_same(gold, item)[0] for item in answer.items), "one of several"
    if isinstance(gold, Listing) or isinstance(answer, Listing):
        return False, "one of several"
    return _quantities(gold, answer)


def _conditions(gold: Conditions, answer: Conditions) -> bool:
    """Of several variables: the same inequalities in any order."""
    theirs = list(answer.items)
    if (gold.joined == "or") != (answer.joined == "or") or len(gold.items) != len(theirs):
        return False
    for ours in gold.items:
        match = next((k for k, other in enumerate(theirs) if _relations(ours, other)[0]), None)
        if match is None:
            return False
        del theirs[match]
    return True


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


def _is_time(ratio: Ratio) -> bool:
    """True for what looks like a time and would be a poor ratio, because it is not in lowest terms."""
    return bool(_CLOCK.fullmatch(":".join(ratio.parts))) and gcd(*map(int, ratio.parts)) != 1


def _times(gold: Shape, answer: Shape) -> bool:
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


def _ratios(gold: Shape, answer: Shape) -> Verdict:
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
        return _same(ratio, value) if ratio is gold else _same(value, ratio)
    if (
        len(ratio.parts) == 2
        and isinstance(other, Expression)
        and not other.unit
        and not _CLOCK.fullmatch(":".join(ratio.parts))
    ):
        fraction = Expression(f"\\frac{{{ratio.parts[0]}}}{{{ratio.parts[1]}}}")
        # In their places: a rule says which of the two could not be read.
        return _quantities(fraction, other) if ratio is gold else _quantities(other, fraction)
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
        factor = value_of(matrix.factor) if matrix.factor else 1
        values = [value_of(entry) for row in matrix.rows for entry in row]
        return [None if v is None or factor is None else factor * v for v in values]

    pairs = zip(entries(gold), entries(answer), strict=True)
    return all(a is not None and b is not None and equal_values(a, b) for a, b in pairs), "matrix"


# ---- several answers


def _listings(gold: Listing, answer: Listing) -> Verdict:
    named_gold, named_answer = _named(gold), _named(answer)
    if named_gold and named_answer:
        together = named_gold.keys() == named_answer.keys()
        return together and all(_same(named_gold[k], named_answer[k])[0] for k in named_gold), "named values"
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
        same = len(gold.items) == len(answer.items) and all(
            _same(a, b)[0] for a, b in zip(gold.items, answer.items, strict=True)
        )
        return same, "in order"
    ours, theirs = list(gold.items), list(answer.items)
    if "set" in kinds or all(isinstance(i, Listing) and i.kind == "tuple" for i in (*ours, *theirs)):
        ours, theirs = _distinct(ours), _distinct(theirs)
    if len(ours) != len(theirs):
        return False, "how many"
    for item in ours:
        match = next((k for k, other in enumerate(theirs) if _same(item, other)[0]), None)
        if match is None:
            return False, "in any order"
        del theirs[match]
    return True, "in any order"


def _in_order_of_names(named: dict[str, Shape]) -> Listing:
    """`y=2, x=1` → (1,2): coordinates in their order, other names as they come."""
    names = sorted(named) if named.keys() <= {"x", "y", "z"} else list(named)
    return Listing(tuple(named[name] for name in names), "tuple")


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
        if is_name(gold.parts[0]) and (left == right or _is_function_and_y(left, right)):
            return _same(read(gold.parts[-1]), read(answer.parts[-1]))
        if (together := _pair_of_names(gold)) is not None:
            return _same(together, answer)
        if (together := _pair_of_names(answer)) is not None:
            return _same(gold, together)
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


def _name_first(shape: Shape) -> Shape:
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
    a, b = value_of(parts[0]), value_of(parts[1])
    return None if a is None or b is None else a - b


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


# ---- values


def _quantities(gold: Shape, answer: Shape) -> Verdict:
    if not (isinstance(gold, Expression) and isinstance(answer, Expression)):
        return WRONG
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
        return _numbers(x, y), "number"
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
        return _numbers(decimal, (int(exact.p), int(exact.q), None))
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
