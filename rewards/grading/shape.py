"""The outer shape of an answer in normal form: a list, a pair, an interval, a relation, a word, a quantity with its unit.

Text only, no mathematics: what is inside the shape stays text until `equal` compares it.
"""

from __future__ import annotations

import re
from functools import lru_cache

from rewards.grading.brackets import closes_at_end, pieces, set_end
from rewards.grading.language import TEXT, choice, clock_in, said_in_words, unwrapped, word_in
from rewards.grading.matrices import matrix_in, nested_rows
from rewards.grading.normalise import closed
from rewards.grading.shapes import Based, Conditions, Listing, Ratio, Region, Relation, Shape, Word
from rewards.grading.signs import both_signs, has_sign, relation
from rewards.grading.units import Expression, quantity
from rewards.grading.words import date_of_words

DEEPEST = 12
"""Shapes nested deeper than this are read as expressions."""
_BASE = re.compile(r"\(?([0-9A-Fa-f]+)\)?_\s*\{?\s*(?:\\text\s*\{\s*)?(\d{1,2}|[a-z]{3,8})\s*\}?\s*\}?")
_BASES = {
    n: str(i)
    for i, n in enumerate(
        ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"], 2
    )
} | {"sixteen": "16"}
_RATIO = re.compile(r"[^:]+(?::[^:]+)+")
_TO = re.compile(r"^(\d{1,9})\s*(?:\\text\s*\{\s*(?:is )?to\s*\}|(?:is )?to)\s*(\d{1,9})$")
_MEMBER = re.compile(r"[a-zA-Z](?:\([a-zA-Z]\))?\s*\\in(?![a-zA-Z])\s*(?=\\?[\[({\\])")
_REAL = re.compile(
    r"^([a-zA-Z])\s*\\in\s*\\mathbb\s*\{?R\}?\s*(?:,|\\text\s*\{\s*(?:and|with)\s*\})\s*(?=\1\s*(?:\\ne|\\le|\\ge|<|>))"
)
_FAMILY = re.compile(
    r"[,;(]?\s*(?:\\text\s*\{\s*(?:,|where|for|with|for (?:any|all|some|every)|and|is|where)?[^{}]*\}\s*)*\(?\s*[a-zA-Z]\s*\\in\s*\\mathbb\s*\{?[ZN]\}?(?:\^\+|_\+)?\)?(?:\\text\{[^{}]*\})?$"
)
_SET_WORD = re.compile(r"\\(?:cup|cap|setminus|emptyset|mathbb\s*\{?[RZNQC]\}?)(?![a-zA-Z])")


@lru_cache(1024)  # a gold and a likely answer are read once for all the samples of a problem
def read(text: str, depth: int = 0) -> Shape:
    """The shape of a normal form. Whatever fits nothing is an `Expression`."""
    text = closed(text)
    if depth > DEEPEST:
        return Expression(text)
    text = _french(unwrapped(_LEAD.sub("", text)))
    if cases := _CASES.fullmatch(text):
        text = ", ".join(closed(row.replace("&", "")) for row in cases[1].split(r"\\") if row.strip())
    if found := choice(text):
        return found
    if word := word_in(text):
        return said_in_words(word)
    if date := date_of_words(TEXT.sub(r"\1", text)):
        return Word(date)
    if clock := clock_in(text):
        return clock
    if matrix := matrix_in(text) or nested_rows(text):
        return matrix
    if counted := _COUNTED.fullmatch(text):
        text = f"{counted[1]}\\text{{ {counted[2]}}}"
    if family := _FAMILY.search(text):
        text = closed(text[: family.start()]) or text
    text = _REAL.sub("", text)
    if member := _MEMBER.match(text):
        rest = read(text[member.end() :], depth + 1)
        if isinstance(rest, (Region, Listing)):
            return rest
    if r"\approx" in text:
        before, _, after = text.partition(r"\approx")
        named = re.fullmatch(r"\s*\\?[a-zA-Z]*\s*", before) and before.strip() not in (r"\pi", "e")
        text = closed(after if named else before)
    text = _ungrouped(text)
    if len(parts := pieces(text)) > 1:
        return _several(parts, depth)
    if bracketed := _bracketed(text, depth):
        return bracketed
    if _SET_WORD.search(text) and not relation(text):
        return Region(text)
    if found := relation(text):
        if not has_sign(text):
            return found
        return Listing(tuple(read(t, depth + 1) for t in both_signs(text)), "either")
    if has_sign(text):
        return Listing(tuple(read(t, depth + 1) for t in both_signs(text)), "either")
    if based := _BASE.fullmatch(re.sub(r"\\text\s*\{([0-9A-F]+)\}(?=[^_]*_)", r"\1", text)):
        digits, base = based[1].upper().lstrip("0") or "0", _BASES.get(based[2], based[2])
        return Expression(digits) if base == "10" and digits.isdigit() else Based(digits, base)
    text = _TO.sub(r"\1:\2", text)
    if _RATIO.fullmatch(text) and "\\" not in text.replace(r"\frac", "").replace(r"\sqrt", ""):
        return Ratio(tuple(closed(part) for part in text.split(":")))
    return quantity(text)


_COUNTED = re.compile(r"\\text\s*\{\s*([-+]?\d[\d.,]*)\s+([A-Za-z][A-Za-z ]*\.?)\s*\}")
"""`\\text{15 apples}`"""
_GROUPED = re.compile(r"(?<![\d.])\d{1,3}(?:,\d{3})+(?!\d)")


def _ungrouped(text: str) -> str:
    """`x=1,000`, `1,000\\text{ apples}`: the commas of the only number that has any, outside brackets, separate nothing.

    A text that is nothing but such a number stays: it may be a list.
    """
    found = _GROUPED.search(text)
    if found is None or text.strip("+-") == found[0] or text.count(",") != found[0].count(","):
        return text
    before = text[: found.start()]
    if any(before.count(a) != before.count(b) for a, b in ("()", "[]", "{}")):
        return text
    return before + found[0].replace(",", "") + text[found.end() :]


_LEAD = re.compile(
    r"^(?:\\text\s*\{[^{}]*\b(?:is|answer|are|equals|total|sum|result)\s*:?\s*\}|(?:the )?(?:final )?answer (?:is )?:?)\s*(?=\S)",
    re.IGNORECASE,
)
_CASES = re.compile(r"\\begin\{(?:cases|aligned|gathered)\}(.*)\\end\{(?:cases|aligned|gathered)\}", re.DOTALL)
_FRENCH = re.compile(r"[\[\]()][^\[\]()]{1,80}?[,;][^\[\]()]{1,80}?[\[\]()]")


def _french(text: str) -> str:
    """`]1,2]` → `(1,2]`: an end that a bracket turns its back on is left out."""
    if not (text.startswith("]") or text.endswith("[")):
        return text
    parts = re.split(r"\s*\\cup\s*", text)
    if not all(_FRENCH.fullmatch(part) for part in parts):
        return text
    return r"\cup ".join(
        ("[" if p[0] == "[" else "(") + p[1:-1].replace(";", ",") + ("]" if p[-1] == "]" else ")") for p in parts
    )


def _several(parts: list[tuple[str, str]], depth: int) -> Shape:
    items = [read(piece, depth + 1) for _, piece in parts]
    relations = [i for i in items if isinstance(i, Relation) and not i.is_equation]
    links = {sep for sep, _ in parts[1:]}
    if len(relations) == len(items) and len(links) == 1:
        return Conditions(tuple(relations), link if (link := links.pop()) in ("or", ",") else "and")
    if any(isinstance(i, Region) or _is_ray(piece) for i, (_, piece) in zip(items, parts, strict=True)) and links == {
        "or"
    }:
        return Region(r"\cup ".join(piece for _, piece in parts))
    flat: list[Shape] = []
    for item in items:  # `1\pm\sqrt5, -2`: the two of a double sign are two of the list
        flat += item.items if isinstance(item, Listing) and item.loose else [item]
    either = "or" in links or any(isinstance(i, Listing) and i.kind == "either" for i in items)
    return Listing(tuple(flat), "either" if either else "bare")


def _is_ray(text: str) -> bool:
    """An interval that a pair cannot be: with an infinite end."""
    return text[:1] == "(" and text[-1:] == ")" and r"\infty" in text and len(pieces(text[1:-1])) == 2


def _bracketed(text: str, depth: int) -> Shape | None:
    """`(1,2)`, `\\{1,2\\}`, `[1,2)`, `\\{x | x>2\\}`; None if the brackets are not around the whole."""
    if text.startswith(r"\{") and text.endswith(r"\}") and set_end(text) == len(text) - 2:
        inner = closed(text[2:-2])
        if not inner:
            return Region(r"\emptyset")
        if re.match(r"[a-zA-Z](?:\s*\\in\s*\\mathbb\s*\{?[A-Z]\}?)?\s*[|:]", inner):
            return Region(text)
        return Listing(_items(inner, depth), "set")
    if not text or text[0] not in "([" or text[-1] not in ")]" or not closes_at_end(text):
        return None
    parts = pieces(text[1:-1])
    if len(parts) < 2:
        if text[0] == "(" and text[-1] == ")" and parts:
            return read(parts[0][1], depth + 1) if _is_simple(text[1:-1]) else None
        return None
    if (text[0], text[-1]) != ("(", ")") and len(parts) == 2:
        return Region(text)
    return Listing(_items(text[1:-1], depth), "tuple")


def _is_simple(text: str) -> bool:
    return not re.search(r"[=<>]|\\(?:le|ge|ne)(?![a-zA-Z])", text)


def _items(inner: str, depth: int) -> tuple[Shape, ...]:
    items: list[Shape] = []
    for _, piece in pieces(inner):
        item = read(piece, depth + 1)
        items += item.items if isinstance(item, Listing) and item.loose else [item]
    return tuple(items)
