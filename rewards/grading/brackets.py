"""Where a text parts: separators outside brackets, and the bracket that closes another. Linear, no mathematics."""

from __future__ import annotations

import re

from rewards.grading.normalise import closed


def squeeze(text: str) -> str:
    """Without the blanks that mean nothing: those not between two digits or two letters."""
    return re.sub(r"(?<![0-9])\s+|\s+(?![0-9])", "", text)


_LINK = re.compile(r"\\text\s*\{\s*,?\s*(and|or)\s*,?\s*\}|(?<![A-Za-z\\{])(and|or)(?![A-Za-z}])", re.IGNORECASE)


def pieces(text: str) -> list[tuple[str, str]]:
    """Top-level parts, each with the separator before it: `,` `;` `and` `or` or nothing."""
    parts: list[tuple[str, str]] = []
    depth = start = place = 0
    separator = ""
    while place < len(text):
        character = text[place]
        if link := _LINK.match(text, place) if depth == 0 and character in "\\aAoO" else None:
            parts.append((separator, text[start:place]))
            separator = (link[1] or link[2]).lower()
            start = place = link.end()
            continue
        if character == "\\":
            if text[place + 1 : place + 2] == "{":
                depth += 1
            elif text[place + 1 : place + 2] == "}":
                depth -= 1
            place += 2
            continue
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character in ",;" and depth == 0:
            parts.append((separator, text[start:place]))
            separator = character
            start = place + 1
        place += 1
    parts.append((separator, text[start:]))
    kept: list[tuple[str, str]] = []
    for sep, piece in parts:
        if piece := closed(piece):
            kept.append((sep, piece))
        elif sep in ("and", "or") and kept:
            kept.append((sep, ""))
    joined: list[tuple[str, str]] = []
    for sep, piece in kept:
        if piece and joined and joined[-1][1] == "":
            joined[-1] = (joined[-1][0], piece)
        else:
            joined.append((sep, piece))
    return [p for p in joined if p[1]]


def members(bracketed: str) -> list[str]:
    """Texts between the commas of `(a, b)`, `[a, b)` and the like."""
    return [piece for _, piece in pieces(bracketed[1:-1])]


def set_end(text: str) -> int:
    """Place of the `\\}` that closes the `\\{` at the start."""
    depth = 0
    for mark in re.finditer(r"\\([{}\\])", text):
        depth += {"{": 1, "}": -1}.get(mark[1], 0)
        if depth == 0:
            return mark.start()
    return -1


def closes_at_end(text: str) -> bool:
    """True if the bracket that opens the text is closed by its last character, be it round or square."""
    depth = 0
    place = 0
    while place < len(text):
        if text[place] == "\\":
            place += 2
            continue
        if text[place] in "([{":
            depth += 1
        elif text[place] in ")]}":
            depth -= 1
            if depth == 0:
                return place == len(text) - 1
        place += 1
    return False
