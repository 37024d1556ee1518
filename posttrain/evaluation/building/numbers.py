"""The numbers in a text. A fuzzy match is blind to them: with two figures changed a sentence still scores 97 of 100."""

from __future__ import annotations

import re
from decimal import Decimal

_UNITS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_WORDS = {word: value for value, word in enumerate(_UNITS)} | {word: 20 + 10 * i for i, word in enumerate(_TENS)}

_NUMBER = re.compile(
    r"(?<![\w.,)\]%-])(?P<minus>-)?(?P<digits>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?)|"
    r"(?P<later>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?)|"
    rf"\b(?P<tens>{'|'.join(_TENS)})(?:[- ](?P<and>{'|'.join(_UNITS[1:10])}))?\b|"
    rf"\b(?P<word>{'|'.join(_UNITS)})\b"
)


def numbers(text: str, *, one: bool = True) -> list[Decimal]:
    """The numbers of a text in plain typography (`matching.plain`), in order: `1,234.50` is 1234.5, `twenty-five` is 25.

    A hyphen before a number is its sign only where a word could not go on to it (`-5`, not `2019-20`). `one=False` leaves
    out the word "one", which is a pronoun more often than a number.
    """
    found: list[Decimal] = []
    for match in _NUMBER.finditer(text):
        if digits := match["digits"] or match["later"]:
            value = Decimal(digits.replace(",", ""))
            found.append(value.copy_negate() if match["minus"] else value)
        elif match["tens"]:
            found.append(Decimal(_WORDS[match["tens"]] + (_WORDS[match["and"]] if match["and"] else 0)))
        elif one or match["word"] != "one":
            found.append(Decimal(_WORDS[match["word"]]))
    return found


def in_order(wanted: list[Decimal], there: list[Decimal]) -> bool:
    """True if `wanted` is what is left of `there` when some are taken out."""
    rest = iter(there)
    return all(any(value == other for other in rest) for value in wanted)
