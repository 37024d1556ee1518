"""YAML text → plain values and the line of every key.

YAML 1.2's core schema, read from the parser's events rather than through PyYAML's constructors, which follow YAML 1.1:
there `1e-6` is text, `no` is False, `010` is 8 and the last of two equal keys wins. Duplicate keys, anchors, aliases,
tags, infinities and NaN are refused, and depth, size and the length of integers are bounded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from posttrain.errors import Mistake

Path = tuple[str | int, ...]
"""Keys and list indices from the top of a recipe down to a value."""

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
MAX_DIGITS = 18
MAX_VALUES = 100_000

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_INT = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def dotted(path: Path) -> str:
    """`("rewards", 0, "weight")` → `rewards.0.weight`."""
    return ".".join(printable(str(part), 60) for part in path)


def printable(text: str, limit: int = 120) -> str:
    """`text` on one line: control characters escaped, its middle left out beyond `limit` characters."""
    if len(text) > limit:
        text = f"{text[: limit - 12]}...{text[-9:]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def show(value: Any) -> str:
    """A value for an error message: short, on one line, told apart from text that looks like it."""
    match value:
        case str():
            return f'text "{printable(value, 60)}"'
        case bool():
            return "true" if value else "false"
        case None:
            return "null"
        case Mapping():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case _:
            return printable(str(value), 40)


def scalar(text: str) -> Any:
    """The value of an unquoted scalar under YAML 1.2's core schema.

    Raises:
        ValueError: an infinity, NaN, or an integer of more than 18 digits.
    """
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if _INT.fullmatch(text):
        digits = len(text.lstrip("+-"))
        if digits > MAX_DIGITS:
            raise ValueError(f"integer of {digits} digits; at most {MAX_DIGITS} are allowed")
        return int(text)
    if _BASED.fullmatch(text):
        if len(text) > 2 + 20 or abs(value := int(text, 0)) >= 10**MAX_DIGITS:
            raise ValueError(f"integer of more than {MAX_DIGITS} digits")
        return value
    if _FLOAT.fullmatch(text):
        value = float(text)
        if math.isinf(value):
            raise ValueError(f"{printable(text, 30)} is too large for a number")
        return value
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text} is not allowed; numbers must be finite")
    return text


def parse(text: str, name: str) -> tuple[Any, dict[Path, int]]:
    """The value of a YAML document, and the line (from 1) of every key and list item in it.

    Args:
        name: what the text is, for messages: a file name, or the words of an override.

    Raises:
        Mistake: not YAML, or YAML that recipes do not allow; with name and line.
    """
    return _Reader(text, name).document()


class _Reader:
    def __init__(self, text: str, name: str):
        self.name = name
        self.lines: dict[Path, int] = {}
        if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
            raise Mistake(
                f"{name}: larger than {MAX_BYTES} bytes; a recipe is a page of text, is this the right file?"
            )
        self.text = text
        self.events = self._events()

    def _events(self) -> Iterator[Any]:
        try:
            # The pure Python parser: its messages carry positions, and it yields events without recursion.
            yield from yaml.parse(self.text, Loader=yaml.SafeLoader)
        except yaml.reader.ReaderError as error:
            line = self.text.count("\n", 0, error.position) + 1
            raise self.wrong(line, (), f"character {error.character:#x} is not allowed in YAML") from None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise self.wrong(mark.line + 1 if mark else 1, (), _say(error)) from None
        except (ValueError, OverflowError, IndexError) as error:
            # PyYAML's scanner: `%YAML` versions and `\U` escapes beyond any range.
            raise Mistake(f"{self.name}: not valid YAML: {printable(str(error))}") from None

    def wrong(self, line: int, path: Path, text: str) -> Mistake:
        at = f": {dotted(path)}" if path else ""
        return Mistake(f"{self.name}:{line}{at}: {text}")

    def document(self) -> tuple[Any, dict[Path, int]]:
        value: Any = None
        found = False
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                if found:
                    raise self.wrong(event.start_mark.line + 1, (), "a second document begins here; one is allowed")
                found = True
                value = self.node(next(self.events), ())
        return value, self.lines

    def node(self, event: Any, path: Path) -> Any:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise self.wrong(line, path, f"alias *{printable(event.anchor, 40)} is not allowed; write the value out")
        if event.anchor is not None:
            raise self.wrong(line, path, f"anchor &{printable(event.anchor, 40)} is not allowed; use `extends`")
        if event.tag is not None:
            raise self.wrong(line, path, f"tag {printable(event.tag, 60)} is not allowed; write plain values")
        if isinstance(event, yaml.ScalarEvent):
            return self.value(event, line, path)
        if len(path) >= MAX_DEPTH:
            raise self.wrong(line, (), f"nested deeper than {MAX_DEPTH} levels")
        return self.mapping(path) if isinstance(event, yaml.MappingStartEvent) else self.sequence(path)

    def value(self, event: Any, line: int, path: Path) -> Any:
        text = event.value
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise self.wrong(line, path, "half of a surrogate pair; write the character itself")
        if event.style is not None:
            return text
        try:
            return scalar(text)
        except ValueError as error:
            raise self.wrong(line, path, str(error)) from None

    def mapping(self, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            line = event.start_mark.line + 1
            if not isinstance(event, yaml.ScalarEvent):
                raise self.wrong(line, path, "a key must be plain text (braces in text must be quoted)")
            if event.anchor is not None or event.tag is not None:
                raise self.wrong(line, path, "anchors and tags are not allowed")
            key = event.value
            if key == "<<" and event.style is None:
                raise self.wrong(line, path, "merge keys (<<) are not allowed; use `extends`")
            if any("\ud800" <= c <= "\udfff" for c in key):
                raise self.wrong(line, path, "half of a surrogate pair in a key")
            here = (*path, key)
            if key in values:
                raise self.wrong(line, here, f"given twice, first on line {self.lines[here]}")
            self.lines[here] = line
            values[key] = self.node(next(self.events), here)
        return values

    def sequence(self, path: Path) -> list[Any]:
        values: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            here = (*path, len(values))
            self.lines[here] = event.start_mark.line + 1
            values.append(self.node(event, here))
        return values


def _say(error: yaml.MarkedYAMLError) -> str:
    problem = printable(str(error.problem or error.context or "unreadable"))
    if "mapping values are not allowed" in problem:
        return "not valid YAML: a second `: ` on one line; put the text in quotes"
    if "cannot start any token" in problem:
        return f"not valid YAML: {problem}; indent with spaces, and put such text in quotes"
    context = f" ({printable(str(error.context))})" if error.context and error.problem else ""
    return f"not valid YAML: {problem}{context}"


def plain(value: Any, path: Path = (), *, name: str = "recipe") -> Any:
    """A copy of a Python mapping with only what YAML can say: dict, list, text, numbers, booleans, None.

    Raises:
        Mistake: anything else in it, or beyond the bounds that files have.
    """
    return _Plain(name).copy(value, path)


class _Plain:
    def __init__(self, name: str):
        self.name = name
        self.count = 0

    def wrong(self, path: Path, text: str) -> Mistake:
        at = f": {dotted(path)}" if path else ""
        return Mistake(f"{self.name}{at}: {text}")

    def copy(self, value: Any, path: Path) -> Any:
        self.count += 1
        if self.count > MAX_VALUES:
            raise self.wrong((), f"more than {MAX_VALUES} values")
        if isinstance(value, Mapping | list | tuple):
            if len(path) >= MAX_DEPTH:
                raise self.wrong((), f"nested deeper than {MAX_DEPTH} levels")
            if not isinstance(value, Mapping):
                return [self.copy(item, (*path, i)) for i, item in enumerate(value)]
            for key in value:
                if not isinstance(key, str):
                    raise self.wrong(path, f"keys must be text, got {show(key)}")
            return {self.leaf(k, path): self.copy(item, (*path, k)) for k, item in value.items()}
        return self.leaf(value, path)

    def leaf(self, value: Any, path: Path) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            if any("\ud800" <= c <= "\udfff" for c in value):
                raise self.wrong(path, "half of a surrogate pair in text")
            return str(value)
        if isinstance(value, int):
            if abs(value) >= 10**MAX_DIGITS:
                raise self.wrong(path, f"integer of more than {MAX_DIGITS} digits")
            return int(value)
        if isinstance(value, float):
            if not math.isfinite(value):
                raise self.wrong(path, f"{value} is not allowed; numbers must be finite")
            return float(value)
        kind = type(value).__name__
        raise self.wrong(
            path, f"a {kind} cannot stand in a recipe; give text, a number, true/false, a list or a mapping"
        )
