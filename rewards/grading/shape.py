"""The outer shape of an answer in normal form: a list, a pair, an interval, a relation, a word, a quantity with its unit.

Text only, no mathematics: what is inside the shape stays text until `equal` compares it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rewards.grading.normalise import closed

DEEPEST = 12
"""Shapes nested deeper than this are read as expressions."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A value: its formula, unit (None = none given) and whether a percent sign followed."""

    formula: str
    unit: str | None = None
    percent: bool = False


@dataclass(frozen=True, slots=True)
class Word:
    """Ordinary language: `east`."""

    text: str


@dataclass(frozen=True, slots=True)
class Choice:
    """A letter of a multiple choice, and what was written behind it."""

    letter: str
    rest: str = ""


@dataclass(frozen=True, slots=True)
class Based:
    """A number in a base that is not ten: `101_2`."""

    digits: str
    base: str


@dataclass(frozen=True, slots=True)
class Ratio:
    """`2:3`."""

    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """Several answers. `kind`: bare (a comma list), set (braces), tuple (parentheses or brackets)."""

    items: tuple[Shape, ...]
    kind: str


@dataclass(frozen=True, slots=True)
class Region:
    """A set of numbers that is not a plain list: intervals, unions, named sets, set builder. As text."""

    text: str


@dataclass(frozen=True, slots=True)
class Relation:
    """A chain `parts[0] signs[0] parts[1] ...` of equations or inequalities."""

    parts: tuple[str, ...]
    signs: tuple[str, ...]

    @property
    def is_equation(self) -> bool:
        return all(sign == "=" for sign in self.signs)


@dataclass(frozen=True, slots=True)
class Conditions:
    """Several inequalities: `or` (any) or `and` (all)."""

    items: tuple[Relation, ...]
    joined: str


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows of entries, all times `factor`."""

    rows: tuple[tuple[str, ...], ...]
    factor: str = ""


Shape = Expression | Word | Choice | Based | Ratio | Listing | Region | Relation | Conditions | Matrix


def squeeze(text: str) -> str:
    """Without the blanks that mean nothing: those not between two digits or two letters."""
    return re.sub(r"(?<![0-9])\s+|\s+(?![0-9])", "", text)


_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_MATRIX = re.compile(
    r"(?P<factor>.{0,80}?)(?P<open>[\[(|]?)\s*\\begin\{(?P<env>[pbBvV]?(?:small)?matrix|array)\}(?:\{[lcr| ]+\})?(?P<body>.*?)\\end\{(?P=env)\}\s*[\])|]?",
    re.DOTALL,
)
_BASE = re.compile(r"([0-9A-Fa-f]+)_\s*\{?\s*(?:\\text\s*\{\s*)?(\d{1,2}|[a-z]{3,8})\s*\}?\s*\}?")
_BASES = {
    n: str(i)
    for i, n in enumerate(
        ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"], 2
    )
} | {"sixteen": "16"}
_RATIO = re.compile(r"[^:]+(?::[^:]+)+")
_MEMBER = re.compile(r"[a-zA-Z](?:\([a-zA-Z]\))?\s*\\in\s+(?=\\?[\[({\\])")
_FAMILY = re.compile(
    r"[,;(]?\s*(?:\\text\s*\{\s*(?:,|where|for|with|for (?:any|all|some|every)|and|is|where)?[^{}]*\}\s*)*\(?\s*[a-zA-Z]\s*\\in\s*\\mathbb\s*\{?[ZN]\}?(?:\^\+|_\+)?\)?(?:\\text\{[^{}]*\})?$"
)
_ABOUT = re.compile(r"(?<!\\)\\approx")
_SET_WORD = re.compile(r"\\(?:cup|cap|setminus|emptyset|mathbb\s*\{?[RZNQC]\}?)(?![a-zA-Z])")
_CHOICE = re.compile(r"\(?\s*([A-J])\s*\)?")
_CHOICE_AND = re.compile(r"(?:\(\s*([A-J])\s*\)|([A-J])[).:])\s*(\S.*)", re.DOTALL)


def read(text: str, depth: int = 0) -> Shape:
    """The shape of a normal form. Whatever fits nothing is an `Expression`."""
    text = closed(text)
    if depth > DEEPEST:
        return Expression(text)
    text = _unwrapped(_LEAD.sub("", text))
    if found := _choice(text):
        return found
    if word := _word(text):
        return Expression(_NUMERALS[word.text.lower()]) if word.text.lower() in _NUMERALS else word
    if matrix := _matrix(text):
        return matrix
    if family := _FAMILY.search(text):
        text = closed(text[: family.start()]) or text
    if member := _MEMBER.match(text):
        rest = read(text[member.end() :], depth + 1)
        if isinstance(rest, (Region, Listing)):
            return rest
    if r"\approx" in text:
        before, _, after = text.partition(r"\approx")
        text = closed(after if re.fullmatch(r"\s*\\?[a-zA-Z]*\s*", before) else before)
    if len(pieces := _pieces(text)) > 1:
        return _several(pieces, text, depth)
    if bracketed := _bracketed(text, depth):
        return bracketed
    if _SET_WORD.search(text) and not _relation(text):
        return Region(text)
    if relation := _relation(text):
        if not _has_sign(text):
            return relation
        return Listing(tuple(read(t, depth + 1) for t in _both_signs(text)), "bare")
    if _has_sign(text):
        return Listing(tuple(read(t, depth + 1) for t in _both_signs(text)), "bare")
    if based := _BASE.fullmatch(text):
        return Based(based[1].upper().lstrip("0") or "0", _BASES.get(based[2], based[2]))
    if _RATIO.fullmatch(text) and "\\" not in text.replace(r"\frac", "").replace(r"\sqrt", ""):
        return Ratio(tuple(closed(part) for part in text.split(":")))
    return quantity(text)


_LEAD = re.compile(r"^\\text\s*\{[^{}]*\b(?:is|answer|are|equals)\s*:?\s*\}\s*(?=\S)", re.IGNORECASE)


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
    if labelled and (labelled[3][0].isdigit() or labelled[3][0] in "-+.\\$(" or _TEXT.match(text)):
        wrapped = re.match(r"\\text\s*\{\s*\(?[A-J][).:]+\s*\}\s*(.*)", text, re.DOTALL)
        if " " in bare[:5] or wrapped:
            return Choice(labelled[1] or labelled[2], wrapped[1] if wrapped else labelled[3])
    return None


_NUMERALS = {
    word: str(number)
    for number, word in enumerate(
        [
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
        ]
    )
}
_ORDINARY = re.compile(r"[A-Za-z][A-Za-z' .-]*")
_ARTICLE = re.compile(r"(?:an?|the)\s+", re.IGNORECASE)


def _word(text: str) -> Word | None:
    wrapped = _TEXT.fullmatch(text)
    bare = closed(wrapped[1] if wrapped else text)
    if not _ORDINARY.fullmatch(bare) or not re.search(r"[A-Za-z]{2}", bare):
        return None
    if wrapped or re.search(r"[a-z]{3}", bare):
        return Word(_ARTICLE.sub("", " ".join(bare.split()), count=1).rstrip("."))
    return None


def _matrix(text: str) -> Matrix | None:
    found = _MATRIX.fullmatch(text)
    if not found or found["env"].startswith(("v", "V")) or found["open"] == "|":
        return None
    rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?", found["body"].replace(r"\hline", "")) if row.strip()]
    factor = closed(re.sub(r"\\(?:cdot|times)\s*$", "", found["factor"].strip()))
    if "=" in factor or not rows:
        return None
    return Matrix(
        tuple(tuple(closed(entry) for entry in row.split("&")) for row in rows), "-1" if factor == "-" else factor
    )


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
        return Conditions(tuple(relations), "or" if links == {"or"} else "and")
    if any(isinstance(i, Region) for i in items) and links == {"or"}:
        return Region(r"\cup ".join(piece for _, piece in pieces))
    flat: list[Shape] = []
    for item in items:  # `1\pm\sqrt5, -2`: the two of a double sign are two of the list
        flat += item.items if isinstance(item, Listing) and item.kind == "bare" else [item]
    return Listing(tuple(flat), "bare")


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
        items += item.items if isinstance(item, Listing) and item.kind == "bare" else [item]
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


def _has_sign(text: str) -> bool:
    return r"\pm" in text or r"\mp" in text or "+-" in text


def _both_signs(text: str) -> tuple[str, str]:
    """`3\\pm x` → `3+x` and `3-x`; all double signs change together."""
    text = text.replace("+-", r"\pm ")
    upper = re.sub(r"\\pm(?![a-zA-Z])", "+", re.sub(r"\\mp(?![a-zA-Z])", "-", text))
    lower = re.sub(r"\\pm(?![a-zA-Z])", "-", re.sub(r"\\mp(?![a-zA-Z])", "+", text))
    return re.sub(r"^\+|(?<=[(={])\s*\+", "", upper), lower


_NAME = re.compile(
    r"(?:\\[a-zA-Z]+\s*)?[a-zA-Z]?(?:'|_\s*(?:\{[^{}]{1,30}\}|\w))*(?:\s*\(\s*[a-zA-Z](?:\s*,\s*[a-zA-Z])*\s*\))?"
    r"|\\(?:angle|triangle|overline)\s*\{?[A-Z_0-9{} ]+\}?|[A-Z]{2,6}"
    r"|\\frac\s*\{\s*d[^{}]{0,20}\}\s*\{\s*d[^{}]{0,20}\}"
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


# ---- quantities

_UNIT_WORDS = {
    "m": "meter meters metre metres", "cm": "centimeter centimeters centimetre centimetres", "mm": "millimeter millimeters millimetre millimetres",
    "km": "kilometer kilometers kilometre kilometres", "s": "second seconds sec secs", "min": "minute minutes mins", "h": "hour hours hr hrs",
    "d": "day days", "week": "weeks", "month": "months", "yr": "year years yrs", "in": "inch inches", "ft": "foot feet", "yd": "yard yards",
    "mi": "mile miles", "g": "gram grams", "kg": "kilogram kilograms", "mg": "milligram milligrams", "lb": "pound pounds lbs", "oz": "ounce ounces",
    "L": "liter liters litre litres l", "mL": "milliliter milliliters ml", "gal": "gallon gallons", "$": "dollar dollars usd", "cent": "cents",
    "deg": "degree degrees degs", "rad": "radian radians", "mi/h": "mph", "km/h": "kph kmh", "J": "joule joules", "N": "newton newtons", "W": "watt watts",
    "V": "volt volts", "Hz": "hertz", "K": "kelvin kelvins", "erg": "ergs", "eV": "ev", "kJ": "", "pm": "", "nm": "", "mol": "mole moles",
    "euro": "euros", "rs": "rupee rupees", "acre": "acres", "": "unit units",
}  # fmt: skip
_UNITS = {word: unit for unit, words in _UNIT_WORDS.items() for word in [unit, *words.split()] if word}
_PLAIN_UNITS = {w for w in _UNITS if len(w) > 1 and w not in ("in", "pm", "min", "rad", "rs", "unit", "units")} | {
    "units",
    "unit",
}
_TRAILING_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_DEGREES = re.compile(r"\^\\circ\s*(?:\\text\s*\{\s*([CF])\s*\}|([CF]))?$")
_TRIGONOMETRY = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])")
_PLAIN_TAIL = re.compile(r"(?<=[\d)}])(\s*)((?:[A-Za-z]+\.?)(?:[ /]+[A-Za-z]+\.?){0,4}(?:\^\{?-?\d\}?)?)$")


def quantity(text: str) -> Expression:
    """Formula, unit and percent sign apart."""
    text = closed(text)
    unit: str | None = None
    if text.startswith(r"\$"):
        text, unit = closed(text[2:]), "$"
    elif text.endswith(r"\$"):
        text, unit = closed(text[:-2]), "$"
    if text.startswith(r"-\$"):
        text, unit = "-" + closed(text[3:]), "$"
    if text[:1] in "€£¥₹" and text[1:]:
        text, unit = closed(text[1:]), text[0]
    if text.endswith(r"\%"):
        return Expression(closed(text[:-2]), unit, True)
    degrees = _DEGREES.search(text)
    if degrees and not _TRIGONOMETRY.search(text):
        scale = degrees[1] or degrees[2]
        return Expression(closed(text[: degrees.start()]), f"deg{scale or ''}^1")
    if found := _unit_text(text):
        return Expression(found[0], found[1] if found[1] is not None else unit)
    tail = _PLAIN_TAIL.search(text)
    if tail and not text[: tail.start()].endswith("^"):
        words = re.findall(r"[A-Za-z]+", tail[2])
        known = all(
            w in _PLAIN_UNITS
            or w.lower() in _PLAIN_UNITS
            or w in ("per", "square", "cubic", "sq", "in", "min", "s", "h")
            for w in words
        )
        counted = (
            bool(tail[1]) and all(len(w) >= 3 for w in words if w != "of") and tail[2].isascii() and "/" not in tail[2]
        )
        if (known and any(len(w) > 1 for w in words)) or counted:
            return Expression(closed(text[: tail.start()]), _unit(tail[2]))
    return Expression(text, unit)


def _unit_text(text: str) -> tuple[str, str | None] | None:
    """A formula followed by nothing but `\\text{...}`, powers and strokes."""
    text = re.sub(r"\^\s*\{\s*(-?\d+)\s*\}", r"^\1", text)
    first = next((m for m in _TRAILING_TEXT.finditer(text) if m.start() > 0), None)
    if first is None or text[: first.start()].rstrip()[-1:] in ("", "_", "^", "{", "+", "-", "=", "\\", "("):
        return None
    tail = text[first.start() :]
    plain = _TRAILING_TEXT.sub(lambda m: f" {m[1]} ", tail)
    if "{" in re.sub(r"[\^_]\s*\{[^{}]*\}", "", plain) or re.search(r"\\(?!cdot|times|mu)|[=<>]", plain):
        return None
    if re.search(r"\d", re.sub(r"\^\s*\{?\s*-?\d+\s*\}?", "", plain)):
        return None
    value = text[: first.start()].strip()
    value = value[:-1] if value.endswith("/") else value
    return closed(value), _unit(plain)


def _unit(text: str) -> str | None:
    """A unit in one spelling: `m/s`, `m s^{-1}` and `meters per second` → `m^1 s^-1`. None if nothing is left."""
    text = re.sub(r"\\(?:cdot|times)|[*~.]", " ", text).replace(r"\mu", "u")
    powers: dict[str, int] = {}
    sign, next_power = 1, 1
    for token in re.finditer(r"/|([A-Za-z$°]+)\s*(?:\^\s*\{?\s*(-?\d+)\s*\}?)?", text):
        word = token[1]
        if word is None or word.lower() == "per":
            sign = -1
            continue
        if word.lower() in ("square", "sq", "squared", "cubic", "cubed"):
            power = 2 if word.lower().startswith("sq") else 3
            if word.lower().endswith("ed") and powers:
                powers[next(reversed(powers))] *= power
            else:
                next_power = power
            continue
        if word.lower() in ("of", "the"):
            continue
        name = _UNITS.get(word, _UNITS.get(word.lower()) if len(word) > 2 else None)
        if name is None:
            name = word if len(word) <= 2 else word.lower().removesuffix("s")
        for part, exponent in _parts(name):
            powers[part] = powers.get(part, 0) + sign * exponent * next_power * int(token[2] or 1)
        sign, next_power = 1, 1
    powers = {k: v for k, v in powers.items() if v and k}
    return " ".join(f"{k}^{v}" for k, v in sorted(powers.items())) or None


def _parts(name: str) -> list[tuple[str, int]]:
    over, _, under = name.partition("/")
    return [(over, 1)] + ([(under, -1)] if under else [])
