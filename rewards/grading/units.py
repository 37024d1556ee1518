"""A value, its unit and its percent sign, told apart; units in one spelling."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from rewards.grading.normalise import closed


@dataclass(frozen=True, slots=True)
class Expression:
    """A value: its formula, unit (None = none given) and whether a percent sign followed."""

    formula: str
    unit: str | None = None
    percent: bool = False


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
_CURRENCIES = {"€": "euro^1", "£": "£^1", "¥": "yen^1", "₹": "rs^1"}
_DEGREES = re.compile(r"\^\\circ\s*(?:\\text\s*\{\s*([CF])\s*\}|([CF]))?$")
_TRIGONOMETRY = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])")
_NO_UNIT = re.compile(
    r"\b(?:or|if|when|where|unless|more|less|fewer|at|most|least|squared|cubed|wrong|incorrect|not|no|plus|minus|times|half|than|from|except|"
    r"but|only|to|then|otherwise|because|since|hundred|thousand|million|billion|trillion|dozen)\b",
    re.IGNORECASE,
)
"""Words behind a number that say another thing than what it counts."""
_POWER_OF_UNIT = re.compile(r"[A-Za-z]+ (?:squared|cubed)(?: (?:per|/) .*)?|[A-Za-z]+ per [A-Za-z]+ (?:squared|cubed)")
_LETTER = re.compile(r"\s*[abceijknopqrtuvwxyz]\s*")
_PLAIN_TAIL = re.compile(r"(?<=[\d)}])(\s*)((?:[A-Za-z]+\.?)(?:[ /]+[A-Za-z]+\.?){0,4}(?:\^\{?-?\d\}?)?)$")


_MINUTES = re.compile(
    r"(\d{1,4})\s*\^\\circ\s*(\d{1,2})\s*(?:'|\^\s*\{?\s*\\prime\s*\}?)\s*(?:(\d{1,2})\s*(?:''|\^\s*\{?\s*\\prime\s*\\prime\s*\}?)\s*)?$"
)


def _in_degrees(found: re.Match[str]) -> str:
    """`22^\\circ 30'` → `\\frac{81000}{3600}^\\circ`."""
    minutes, seconds = int(found[2]), int(found[3] or 0)
    if minutes >= 60 or seconds >= 60:
        return found[0]
    return f"\\frac{{{3600 * int(found[1]) + 60 * minutes + seconds}}}{{3600}}^\\circ"


def quantity(text: str) -> Expression:
    """Formula, unit and percent sign apart."""
    text = _MINUTES.sub(_in_degrees, closed(text))
    unit: str | None = None
    if text.startswith(r"\$"):
        text, unit = closed(text[2:]), "$^1"
    elif text.endswith(r"\$"):
        text, unit = closed(text[:-2]), "$^1"
    if text.startswith(r"-\$"):
        text, unit = "-" + closed(text[3:]), "$^1"
    if text[:1] in "€£¥₹" and text[1:]:
        text, unit = closed(text[1:]), _CURRENCIES[text[0]]
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
            not _NO_UNIT.search(tail[2])
            and bool(tail[1])
            and all(len(w) >= 3 for w in words if w != "of")
            and tail[2].isascii()
            and "/" not in tail[2]
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
    if (_NO_UNIT.search(plain) and not _POWER_OF_UNIT.fullmatch(plain.strip())) or _LETTER.fullmatch(plain):
        return None
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


def unit_of(text: str) -> str | None:
    """A unit as written (`m/s^2`) in its one spelling."""
    return _unit(text)


_BASE_UNITS: dict[str, tuple[str, Fraction]] = {
    **{name: ("m", Fraction(10) ** power) for name, power in (("km", 3), ("cm", -2), ("mm", -3), ("m", 0))},
    **{name: ("g", Fraction(10) ** power) for name, power in (("kg", 3), ("g", 0), ("mg", -3))},
    **{name: ("s", Fraction(size)) for name, size in (("s", 1), ("min", 60), ("h", 3600), ("d", 86400), ("week", 604800))},
    **{name: ("in", Fraction(size)) for name, size in (("in", 1), ("ft", 12), ("yd", 36), ("mi", 63360))},
    "L": ("L", Fraction(1)), "mL": ("L", Fraction(1, 1000)), "$": ("cent", Fraction(100)), "cent": ("cent", Fraction(1)),
    "lb": ("oz", Fraction(16)), "oz": ("oz", Fraction(1)),
}  # fmt: skip


def in_base_units(unit: str) -> tuple[Fraction, str] | None:
    """A unit in its one spelling as (how many, of what): `km^1 h^-1` → (5/18, `m^1 s^-1`). None where it has no fixed size."""
    size, powers = Fraction(1), {}
    for part in unit.split(" "):
        name, _, exponent = part.rpartition("^")
        if name not in _BASE_UNITS:
            return None
        base, times = _BASE_UNITS[name]
        size *= times ** int(exponent)
        powers[base] = powers.get(base, 0) + int(exponent)
    return size, " ".join(f"{k}^{v}" for k, v in sorted(powers.items()) if v)


def _parts(name: str) -> list[tuple[str, int]]:
    over, _, under = name.partition("/")
    return [(over, 1)] + ([(under, -1)] if under else [])
