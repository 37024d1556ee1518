"""The outer shape of an answer in normal form: a list, a pair, an interval, a relation, a word, a quantity with its unit.

Text only, no mathematics: what is inside the shape stays text until `equal` compares it.
"""

from __future__ import annotations

import re

from rewards.grading.normalise import closed
from rewards.grading.shapes import (
    Based,
    Choice,
    Clock,
    Conditions,
    Listing,
    Matrix,
    Ratio,
    Region,
    Relation,
    Shape,
    Word,
)
from rewards.grading.units import Expression, quantity
from rewards.grading.words import date_of_words, fraction_of_words, number_of_words

DEEPEST = 12
"""Shapes nested deeper than this are read as expressions."""


def squeeze(text: str) -> str:
    """Without the blanks that mean nothing: those not between two digits or two letters."""
    return re.sub(r"(?<![0-9])\s+|\s+(?![0-9])", "", text)


_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_MATRIX = re.compile(
    r"(?P<factor>.{0,80}?)(?P<open>[\[(|]?)\s*\\begin\{(?P<env>[pbBvV]?(?:small)?matrix|array)\}(?:\{[lcr| ]+\})?(?P<body>.*?)\\end\{(?P=env)\}\s*[\])|]?(?P<turned>\s*\^\s*\{?\s*(?:T|\\top|\\intercal)\s*\}?)?",
    re.DOTALL,
)
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
_ABOUT = re.compile(r"(?<!\\)\\approx")
_SET_WORD = re.compile(r"\\(?:cup|cap|setminus|emptyset|mathbb\s*\{?[RZNQC]\}?)(?![a-zA-Z])")
_CHOICE = re.compile(r"\(?\s*([A-J])\s*\)?")
_MORE_CHOICES = re.compile(r"^(?:or|and|nor|but|,|/|\\text\{\s*(?:or|and))(?![a-z])|\([A-J]\)")
_CHOICE_AND = re.compile(r"(?:\(\s*([A-J])\s*\)|([A-J])[).:])\s*(\S.*)", re.DOTALL)


def read(text: str, depth: int = 0) -> Shape:
    """The shape of a normal form. Whatever fits nothing is an `Expression`."""
    text = closed(text)
    if depth > DEEPEST:
        return Expression(text)
    text = _french(_unwrapped(_LEAD.sub("", text)))
    if cases := _CASES.fullmatch(text):
        text = ", ".join(closed(row.replace("&", "")) for row in cases[1].split(r"\\") if row.strip())
    if found := _choice(text):
        return found
    if word := _word(text):
        return _said_in_words(word)
    if date := date_of_words(_TEXT.sub(r"\1", text)):
        return Word(date)
    if clock := _clock(text):
        return clock
    if matrix := _matrix(text) or _nested(text):
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
    if len(pieces := _pieces(text)) > 1:
        return _several(pieces, text, depth)
    if bracketed := _bracketed(text, depth):
        return bracketed
    if _SET_WORD.search(text) and not _relation(text):
        return Region(text)
    if relation := _relation(text):
        if not _has_sign(text):
            return relation
        return Listing(tuple(read(t, depth + 1) for t in _both_signs(text)), "either")
    if _has_sign(text):
        return Listing(tuple(read(t, depth + 1) for t in _both_signs(text)), "either")
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


def _unwrapped(text: str) -> str:
    """`\\text{13}` → `13`; text that holds ordinary words stays wrapped."""
    while (whole := _TEXT.fullmatch(text)) and not re.search(r"[A-Za-z]{2}", whole[1]):
        inner = closed(whole[1])
        if inner == text or not inner:
            break
        text = inner
    return text


def _choice(text: str) -> Choice | None:
    bare = closed(_TEXT.sub(r"\1", text))
    if whole := _CHOICE.fullmatch(bare):
        return Choice(whole[1])
    labelled = _CHOICE_AND.fullmatch(bare)
    if (
        labelled
        and not _MORE_CHOICES.search(labelled[3])
        and (labelled[3][0].isdigit() or labelled[3][0] in "-+.\\$(" or _TEXT.match(text))
    ):
        wrapped = re.match(r"\\text\s*\{\s*\(?[A-J][).:]+\s*\}\s*(.*)", text, re.DOTALL)
        if " " in bare[:5] or wrapped:
            return Choice(labelled[1] or labelled[2], wrapped[1] if wrapped else labelled[3])
    return None


_SAID = {
    **dict.fromkeys(("all real numbers", "all reals", "all real values", "real numbers", "the reals", "set of all real numbers"), r"\mathbb{R}"),
    **dict.fromkeys(("empty set", "no solution", "no solutions", "none", "no real solution", "no real solutions", "no solution exists", "there is no solution", "there are no solutions"), r"\emptyset"),
    **dict.fromkeys(("all integers", "integers", "the integers", "set of all integers"), r"\mathbb{Z}"),
}  # fmt: skip
_SAID_NUMBER = {
    **dict.fromkeys(("infinity", "positive infinity", "plus infinity"), r"\infty"),
    **dict.fromkeys(("negative infinity", "minus infinity"), r"-\infty"),
}


def _said_in_words(word: Word) -> Shape:
    """What some words mean: a number, infinity, the real numbers, no solution, a letter of a multiple choice."""
    said = word.text.lower()
    if said in _SAID:
        return Region(_SAID[said])
    if said in _SAID_NUMBER:
        return Expression(_SAID_NUMBER[said])
    if chosen := re.fullmatch(r"(?:option|choice|answer)\s+([A-J])", word.text, re.IGNORECASE):
        return Choice(chosen[1].upper())
    if (number := number_of_words(said)) is not None:
        return Expression(str(number))
    if (part := fraction_of_words(said)) is not None:
        return Expression(f"\\frac{{{part[0]}}}{{{part[1]}}}")
    if said in ("does not exist", "d.n.e", "dne", "the limit does not exist"):
        return Word("DNE")
    letters = re.split(r"\s*(?:,|\band\b|&)\s*", re.sub(r"[()]", "", word.text))
    if len(letters) > 1 and all(re.fullmatch(r"[A-J]", letter) for letter in letters):
        return Listing(tuple(Choice(letter) for letter in letters), "bare")
    names = [n for n in re.split(r"\s*,\s*(?:and\s+)?|\s+and\s+", word.text) if n]
    if len(names) > 1 and all(len(n.split()) <= 2 for n in names):
        return Listing(tuple(Word(n) for n in names), "bare")
    return word


_CLOCK = re.compile(r"(\d{1,2})(?::([0-5]\d))?\s*(?:\\text\s*\{\s*([ap])\.?\s?m\.?\s*\}|([ap])\.?m\.?)", re.IGNORECASE)


def _clock(text: str) -> Clock | None:
    found = _CLOCK.fullmatch(closed(whole[1]) if (whole := _TEXT.fullmatch(text)) else text)
    if not found or not 0 < int(found[1]) <= 12:
        return None
    return Clock(int(found[1]), int(found[2] or 0), (found[3] or found[4]).lower())


_ORDINARY = re.compile(r"[A-Za-z][A-Za-z' .-]*")
_ARTICLE = re.compile(r"^(?:an?|the)\s+(?!and\b|or\b)", re.IGNORECASE)


def _word(text: str) -> Word | None:
    wrapped = _TEXT.fullmatch(text)
    bare = closed(wrapped[1] if wrapped else text)
    if not _ORDINARY.fullmatch(re.sub(r"(?<=[a-z]),(?= )", "", bare) if wrapped else bare) or not re.search(
        r"[A-Za-z]{2}", bare
    ):
        return None
    if wrapped or re.search(r"[a-z]{3}", bare):
        return Word(_ARTICLE.sub("", " ".join(bare.split()), count=1).rstrip("."))
    return None


def _matrix(text: str) -> Matrix | None:
    found = _MATRIX.fullmatch(text)
    if not found or found["env"].startswith(("v", "V")) or found["open"] == "|" or r"\det" in found["factor"]:
        return None
    rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?", found["body"].replace(r"\hline", "")) if row.strip()]
    factor = closed(re.sub(r"\\(?:cdot|times)\s*$", "", found["factor"].strip()))
    if "=" in factor or not rows:
        return None
    entries = [[closed(entry) for entry in row.split("&")] for row in rows]
    if found["turned"]:
        if len({len(row) for row in entries}) != 1:
            return None
        entries = [list(column) for column in zip(*entries, strict=True)]
    return Matrix(tuple(tuple(row) for row in entries), "-1" if factor == "-" else factor)


_ROWS = re.compile(r"\[\s*\[[^\[\]]+\](?:\s*,\s*\[[^\[\]]+\])*\s*\]")


def _nested(text: str) -> Matrix | None:
    """`[[1,0],[0,1]]` as programs print a matrix."""
    if not _ROWS.fullmatch(text):
        return None
    rows = [tuple(members(row)) for row in members(text)]
    return Matrix(tuple(rows)) if all(row[0] and len(row) == len(rows[0]) for row in rows) else None


_LINK = re.compile(r"\\text\s*\{\s*,?\s*(and|or)\s*,?\s*\}|(?<![A-Za-z\\{])(and|or)(?![A-Za-z}])", re.IGNORECASE)


def _pieces(text: str) -> list[tuple[str, str]]:
    """Top-level parts, each with the separator before it: `,` `;` `and` `or` or nothing."""
    pieces: list[tuple[str, str]] = []
    depth = start = place = 0
    separator = ""
    while place < len(text):
        character = text[place]
        if link := _LINK.match(text, place) if depth == 0 and character in "\\aAoO" else None:
            pieces.append((separator, text[start:place]))
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
            pieces.append((separator, text[start:place]))
            separator = character
            start = place + 1
        place += 1
    pieces.append((separator, text[start:]))
    kept: list[tuple[str, str]] = []
    for sep, piece in pieces:
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
    return [piece for _, piece in _pieces(bracketed[1:-1])]


def _several(pieces: list[tuple[str, str]], text: str, depth: int) -> Shape:
    items = [read(piece, depth + 1) for _, piece in pieces]
    relations = [i for i in items if isinstance(i, Relation) and not i.is_equation]
    links = {sep for sep, _ in pieces[1:]}
    if len(relations) == len(items) and len(links) == 1:
        return Conditions(tuple(relations), link if (link := links.pop()) in ("or", ",") else "and")
    if any(isinstance(i, Region) or _is_ray(piece) for i, (_, piece) in zip(items, pieces, strict=True)) and links == {
        "or"
    }:
        return Region(r"\cup ".join(piece for _, piece in pieces))
    flat: list[Shape] = []
    for item in items:  # `1\pm\sqrt5, -2`: the two of a double sign are two of the list
        flat += item.items if isinstance(item, Listing) and item.loose else [item]
    either = "or" in links or any(isinstance(i, Listing) and i.kind == "either" for i in items)
    return Listing(tuple(flat), "either" if either else "bare")


def _is_ray(text: str) -> bool:
    """An interval that a pair cannot be: with an infinite end."""
    return text[:1] == "(" and text[-1:] == ")" and r"\infty" in text and len(_pieces(text[1:-1])) == 2


def _bracketed(text: str, depth: int) -> Shape | None:
    """`(1,2)`, `\\{1,2\\}`, `[1,2)`, `\\{x | x>2\\}`; None if the brackets are not around the whole."""
    if text.startswith(r"\{") and text.endswith(r"\}") and _set_end(text) == len(text) - 2:
        inner = closed(text[2:-2])
        if not inner:
            return Region(r"\emptyset")
        if re.match(r"[a-zA-Z](?:\s*\\in\s*\\mathbb\s*\{?[A-Z]\}?)?\s*[|:]", inner):
            return Region(text)
        return Listing(_items(inner, depth), "set")
    if not text or text[0] not in "([" or text[-1] not in ")]" or not _closes_at_end(text):
        return None
    pieces = _pieces(text[1:-1])
    if len(pieces) < 2:
        if text[0] == "(" and text[-1] == ")" and pieces:
            return read(pieces[0][1], depth + 1) if _is_simple(text[1:-1]) else None
        return None
    if (text[0], text[-1]) != ("(", ")") and len(pieces) == 2:
        return Region(text)
    return Listing(_items(text[1:-1], depth), "tuple")


def _is_simple(text: str) -> bool:
    return not re.search(r"[=<>]|\\(?:le|ge|ne)(?![a-zA-Z])", text)


def _items(inner: str, depth: int) -> tuple[Shape, ...]:
    items: list[Shape] = []
    for _, piece in _pieces(inner):
        item = read(piece, depth + 1)
        items += item.items if isinstance(item, Listing) and item.loose else [item]
    return tuple(items)


def _set_end(text: str) -> int:
    """Place of the `\\}` that closes the `\\{` at the start."""
    depth = 0
    for mark in re.finditer(r"\\([{}\\])", text):
        depth += {"{": 1, "}": -1}.get(mark[1], 0)
        if depth == 0:
            return mark.start()
    return -1


def _closes_at_end(text: str) -> bool:
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


_SIGNS = {r"\le": "<=", r"\ge": ">=", r"\ne": "!=", "<=": "<=", ">=": ">=", "!=": "!=", "<": "<", ">": ">", "=": "="}
_SIGN = re.compile(r"\\(?:le|ge|ne)(?![a-zA-Z])|<=|>=|!=|==?|<|>")


def _relation(text: str) -> Relation | None:
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


def _has_sign(text: str) -> bool:
    return _SIGN_BOTH.search(text) is not None


def _both_signs(text: str) -> tuple[str, ...]:
    """`3\\pm x` → `3+x` and `3-x`. Of several `\\pm` each goes its own way; beside a `\\mp` all change together."""
    text = text.replace("+-", r"\pm ")
    signs = list(_PLUS_MINUS.finditer(text))
    if 1 < len(signs) <= 4 and r"\mp" not in text:
        first = signs[0]
        halves = [text[: first.start()] + sign + text[first.end() :] for sign in "+-"]
        return tuple(re.sub(r"^\+|(?<=[(={])\s*\+", "", t) for half in halves for t in _both_signs(half))
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
