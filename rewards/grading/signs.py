"""Signs of relation and double signs in a text, and which texts are names that a sign of equality may follow."""

from __future__ import annotations

import re

from rewards.grading.normalise import closed
from rewards.grading.shapes import Relation

_SIGNS = {r"\le": "<=", r"\ge": ">=", r"\ne": "!=", "<=": "<=", ">=": ">=", "!=": "!=", "<": "<", ">": ">", "=": "="}
_SIGN = re.compile(r"\\(?:le|ge|ne)(?![a-zA-Z])|<=|>=|!=|==?|<|>")


def relation(text: str) -> Relation | None:
    """A text as a chain of equations or inequalities; None if there is no sign outside brackets."""
    parts: list[str] = []
    signs: list[str] = []
    depth = start = place = 0
    while place < len(text):
        character = text[place]
        sign = _SIGN.match(text, place) if depth == 0 else None
        if sign:
            parts.append(closed(text[start:place]))
            signs.append(_SIGNS.get(sign[0], "="))
            start = place = sign.end()
            continue
        if character == "\\":
            place += 2
            continue
        depth += (character in "([{") - (character in ")]}")
        place += 1
    parts.append(closed(text[start:]))
    if not signs or not all(parts):
        return None
    return Relation(tuple(parts), tuple(signs))


_SIGN_BOTH = re.compile(r"\\(?:pm|mp)(?![a-zA-Z])|\+-")
_PLUS_MINUS = re.compile(r"\\pm(?![a-zA-Z])")


def has_sign(text: str) -> bool:
    """True where a double sign occurs."""
    return _SIGN_BOTH.search(text) is not None


def both_signs(text: str) -> tuple[str, ...]:
    """`3\\pm x` → `3+x` and `3-x`. Of several `\\pm` each goes its own way; beside a `\\mp` all change together."""
    text = text.replace("+-", r"\pm ")
    signs = list(_PLUS_MINUS.finditer(text))
    if 1 < len(signs) <= 4 and r"\mp" not in text:
        first = signs[0]
        halves = [text[: first.start()] + sign + text[first.end() :] for sign in "+-"]
        return tuple(re.sub(r"^\+|(?<=[(={])\s*\+", "", t) for half in halves for t in both_signs(half))
    upper = re.sub(r"\\pm(?![a-zA-Z])", "+", re.sub(r"\\mp(?![a-zA-Z])", "-", text))
    lower = re.sub(r"\\pm(?![a-zA-Z])", "-", re.sub(r"\\mp(?![a-zA-Z])", "+", text))
    return re.sub(r"^\+|(?<=[(={])\s*\+", "", upper), lower


_SHORT = r"(?:\\[a-zA-Z]+\s*)?[a-zA-Z]?(?:'|_\s*(?:\{[^{}]{1,30}\}|\w))*(?:\s*\(\s*[a-zA-Z](?:\s*,\s*[a-zA-Z])*\s*\))?"
_NAME = re.compile(
    _SHORT
    + r"|\\text\s*\{\s*(?!not?\b)[A-Za-z][A-Za-z ]{1,30}\}|\\(?:angle|triangle|overline)\s*\{?[A-Z_0-9{} ]+\}?|[A-Z]{2,6}|\|[A-Z]{2}\|"
    r"|[fghpqFGHPQ]\s*\(\s*-?\d{1,6}\s*\)"
    r"|\\frac\s*\{\s*d[^{}]{0,20}\}\s*\{\s*d[^{}]{0,20}\}|\\frac\s*\{\s*[A-Z]{2}\s*\}\s*\{\s*[A-Z]{2}\s*\}"
    r"|(?:[A-Z]{2}|[a-zA-Z](?:_\s*(?:\{[^{}]{1,30}\}|\w))?)(?::(?:[A-Z]{2}|[a-zA-Z](?:_\s*(?:\{[^{}]{1,30}\}|\w))?)){1,3}"
)


def is_name(text: str) -> bool:
    """True for what an answer may be called: `x`, `f(x)`, `m_{\\max}`, `\\angle ABC`, `MR`."""
    return (
        bool(text)
        and len(text) <= 80
        and text not in (r"\pi", "e", "i", r"\infty")
        and _NAME.fullmatch(text) is not None
    )


def name_key(text: str) -> str:
    """Names that look alike on paper: `A_{1}` and `A_1`, `B E A` and `BEA`."""
    return re.sub(r"[\s{}]", "", text)
