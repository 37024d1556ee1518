"""Whole numbers in English words."""

from __future__ import annotations

import re

_ONES = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11,
    "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19,
}  # fmt: skip
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}


_MONTHS = "january february march april may june july august september october november december".split()  # noqa: SIM905
_MONTH = "(" + "|".join(_MONTHS) + ")"
_DATE = re.compile(
    rf"(?:the )?(?:{_MONTH}\s+(\d{{1,2}})(?:st|nd|rd|th)?|(\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?{_MONTH})(?:\s*,?\s+(\d{{4}}))?\.?"
)


def date_of_words(text: str) -> str | None:
    """`July 4th, 1776`, `4 July 1776` → `4 july 1776`; None for what is no date."""
    found = _DATE.fullmatch(" ".join(text.lower().split()))
    if found is None:
        return None
    return " ".join(part for part in (found[2] or found[3], found[1] or found[4], found[5]) if part)


_PARTS = {
    "half": 2, "halve": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9, "tenth": 10,
}  # fmt: skip


def fraction_of_words(text: str) -> tuple[int, int] | None:
    """`two-thirds` → (2, 3), `one and a half` → (3, 2); None for anything else. Lower case wanted."""
    whole, _, part = text.strip().rpartition(" and ")
    count, _, name = re.sub(r"[\s-]+", " ", part).rpartition(" ")
    bottom = _PARTS.get(name.removesuffix("s"))
    top = 1 if count in ("a", "an") else number_of_words(count) if count else None
    if bottom is None or not top or top < 1:
        return None
    before = number_of_words(whole) if whole else 0
    if before is None or (whole and (before < 1 or top >= bottom)):
        return None
    return before * bottom + top, bottom


def number_of_words(text: str) -> int | None:
    """`two hundred and thirty-one` → 231, `minus four` → -4; None for anything else. Lower case wanted."""
    words = re.split(r"[\s-]+", text.strip())
    sign = 1
    if len(words) > 1 and words[0] in ("minus", "negative"):
        sign, words = -1, words[1:]
    total, part, room, limit = 0, 0, 1000, 10**12
    # `room`: the next word must be less than this; `limit`: so must the next scale word.
    for place, word in enumerate(words):
        if word == "and":
            if place in (0, len(words) - 1) or words[place - 1] not in ("hundred", *_SCALES):
                return None
            continue
        if word in _ONES:
            value = _ONES[word]
            if value >= room or (value == 0 and len(words) > 1):
                return None
            part, room = part + value, 1
        elif word in _TENS:
            if room < 100:
                return None
            part, room = part + _TENS[word], 10
        elif word == "hundred":
            if not 0 < part < 10:
                return None
            part, room = 100 * part, 100
        elif word in _SCALES:
            if not part or _SCALES[word] >= limit:
                return None
            total, part, room, limit = total + part * _SCALES[word], 0, 1000, _SCALES[word]
        else:
            return None
    return sign * (total + part)
