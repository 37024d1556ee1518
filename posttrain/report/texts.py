"""Texts for the page: settings without their secrets, numbers and times for reading, and text that HTML can hold."""

from __future__ import annotations

import json
import re
import time
from typing import Any

from markupsafe import Markup, escape

from posttrain import keys
from posttrain.keys import HIDDEN, is_secret
from posttrain.report.values import Record, number


def facts(record: Record) -> list[tuple[str, str]]:
    """A JSON object as (dotted name, text) lines."""
    out: list[tuple[str, str]] = []

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict) and value and len(path) < 200:
            for key, inner in value.items():
                walk(HIDDEN if is_secret(str(key)) else inner, f"{path}.{key}" if path else str(key))
        elif isinstance(value, list) and all(not isinstance(v, dict | list) for v in value):
            out.append((path, " ".join(keys.hide_assignment(str(v)) for v in value)))
        elif isinstance(value, float):
            out.append((path, f"{value:.6g}"))
        elif isinstance(value, int) and not isinstance(value, bool):
            out.append((path, count(value)))
        else:
            out.append((path, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))

    walk(record, "")
    return [(plain(name), plain(text)) for name, text in out if name]


def pretty(record: Record) -> str:
    return plain(json.dumps(_hide(record), indent=2, ensure_ascii=False)) if record else ""


def _hide(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: HIDDEN if is_secret(str(k)) and v is not None else _hide(v) for k, v in value.items()}
    if isinstance(value, str):
        return keys.hide(value)
    return [_hide(v) for v in value] if isinstance(value, list) else value


def hide_in_yaml(text: str) -> str:
    """The recipe's text without the values of secret settings."""

    def cover(match: re.Match[str]) -> str:
        return f"{match[1]}{match[2]}{HIDDEN}" if is_secret(match[1].strip("-{, \"'")) else match[0]

    return re.sub(r"""([\w"'-]+)(\s*:[ \t]+)([^\s{\[,}#][^,}\n]*)""", cover, keys.hide(text))


def plain(value: Any) -> str:
    """Text that HTML can hold: control characters and halves of surrogate pairs as visible signs, marks that turn the
    direction of text by their code."""
    text = str(value)
    text = re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f]", lambda m: chr(0x2400 + ord(m[0])), text)
    text = re.sub("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]", lambda m: f"⟦U+{ord(m[0]):04X}⟧", text)
    return re.sub("[\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "\ufffd", text)


def typeset(formula: str) -> Markup:
    """A formula of the table with its subscripts set as such."""
    text = str(escape(formula)).replace("`", "")
    return Markup(re.sub(r"([\u0370-\u03ff])_([a-z]+)", r"\1<sub>\2</sub>", text))


def count(value: Any) -> str:
    value = number(value)
    return "–" if value is None else f"{value:,.0f}" if value == int(value) else f"{value:,.3f}".rstrip("0")


def plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def span(seconds: float | None) -> str:
    """A length of time: `0.41 s`, `12.3 s`, `3 min 05 s`, `2 h 07 min`."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def clock(moment: Any) -> str:
    moment = number(moment)
    try:
        return "–" if moment is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(moment))
    except (ValueError, OverflowError, OSError):
        return "–"
