"""Whole numbers in English words."""

from __future__ import annotations

import re

_ONES = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11,
    "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19,
}  # fmt: skip
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}


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
