"""Plain numbers and equal texts: decided without sympy."""

from __future__ import annotations

import re

from rewards.grading.brackets import squeeze
from rewards.grading.normalise import plain_number
from rewards.grading.shapes import Verdict

TOLERANCE = 1e-6
"""Largest relative difference between a decimal of `LEAST_DIGITS` digits and the fraction without end that it stands for; and
never more than one unit of its last place."""
LEAST_DIGITS = 15
"""So many significant digits has a decimal that stands for a number whose digits never end: it was printed by a program. With fewer it is
a rounded value where the exact one is wanted."""
Number = tuple[int, int, int | None]
"""What `plain_number` gives: numerator, denominator, number of decimals (None = exact)."""


def equal_text(gold: str, answer: str) -> Verdict | None:
    """What needs no sympy: the same normal form, or two plain numbers. None = not decided."""
    if _bare(squeeze(gold)) == _bare(squeeze(answer)):
        return True, "same text"
    a, b = plain_number(gold), plain_number(answer)
    if a is None or b is None:
        return None
    return same_number(a, b), "number"


def _bare(text: str) -> str:
    """`2^{9}` and `2^9` are one text: what is the same needs no value, which for a tower of powers nobody finds in time."""
    return re.sub(r"([\^_])\{(\w)\}(?!\w)", r"\1\2", text)


def same_number(a: Number, b: Number) -> bool:
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
