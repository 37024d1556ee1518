"""Does a value from a recipe fit a type hint? As strict as the schema, for TRL's and PEFT's dataclasses."""

from __future__ import annotations

import enum
import re
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

from posttrain.recipe.faults import not_among
from posttrain.recipe.text import show


def mismatch(value: Any, hint: Any) -> str | None:
    """What is wrong with `value` where `hint` is expected, in words; None = it fits.

    As strict as the schema: no number for text, no text for a number, true is not 1; a whole number is a number.
    """
    if _fits(value, hint):
        return None
    values = list(_closed(hint))
    if values and not _open(hint):
        return not_among(value, values)
    wanted = " or ".join(dict.fromkeys(_words(hint)))
    if wanted in ("", "null"):
        return "takes a Python object, which a recipe cannot give; leave it out"
    return f"should be {wanted}, got {show(value)}{_mend(value, wanted)}"


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        if any(_is_enum(part) for part in inner):
            # `SchedulerType | str`: the text must be one of the enum's.
            inner = tuple(part for part in inner if part is not str)
        return any(_fits(value, part) for part in inner)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in inner) or _is_pissa(value, inner)
    if _is_enum(hint):
        return value in [one.value for one in hint]
    if hint in (None, type(None)):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return is_number(value)
    if hint is str:
        return isinstance(value, str)
    if hint is list or origin is list:
        return isinstance(value, list) and all(_fits(one, inner[0]) for one in value if inner)
    if hint is tuple or origin is tuple:
        return isinstance(value, list) and _fits_tuple(value, inner)
    if hint is dict or origin is dict:
        return isinstance(value, dict) and all(_fits(one, inner[1]) for one in value.values() if inner)
    return False


def _fits_tuple(value: list[Any], inner: tuple[Any, ...]) -> bool:
    if not inner:
        return True
    if inner[-1] is Ellipsis:
        return all(_fits(one, inner[0]) for one in value)
    return len(value) == len(inner) and all(_fits(one, part) for one, part in zip(value, inner, strict=True))


def _is_pissa(value: Any, allowed: tuple[Any, ...]) -> bool:
    """PEFT's one open name in a Literal: `pissa_niter_4`."""
    return isinstance(value, str) and bool(re.fullmatch(r"pissa_niter_[0-9]+", value)) and "pissa" in allowed


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, enum.Enum)


def is_list(hint: Any) -> bool:
    return (
        hint is list or get_origin(hint) is list or any(is_list(part) for part in get_args(hint) if part is not hint)
    )


def _parts(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _closed(hint: Any) -> Iterator[str]:
    """The named values in a hint."""
    for part in _parts(hint):
        if _is_enum(part):
            yield from (str(one.value) for one in part)
        elif get_origin(part) is Literal:
            yield from (str(one).lower() if isinstance(one, bool) else str(one) for one in get_args(part))


def _open(hint: Any) -> bool:
    """True if something other than a named value fits as well."""
    has_enum = any(_is_enum(part) for part in _parts(hint))
    return any(
        not _is_enum(p) and get_origin(p) is not Literal and p is not type(None) and not (p is str and has_enum)
        for p in _parts(hint)
    )


_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    dict: "a mapping",
    list: "a list",
}


def _words(hint: Any) -> Iterator[str]:
    for part in _parts(hint):
        origin, inner = get_origin(part), get_args(part)
        if part is type(None):
            yield "null"
        elif part in _NAMES:
            yield _NAMES[part]
        elif origin is dict:
            yield "a mapping"
        elif origin is list:
            of = {str: " of text", int: " of whole numbers", float: " of numbers"}.get(inner[0], "")
            yield f"a list{of}"
        elif origin is tuple or part is tuple:
            yield f"a list of {len(inner)}" if inner and inner[-1] is not Ellipsis else "a list"
        elif origin is Literal:
            yield "one of " + ", ".join(_closed(part))


def _mend(value: Any, wanted: str) -> str:
    if isinstance(value, str) and "number" in wanted and re.fullmatch(r"[-+]?[0-9.]+([eE][-+]?[0-9]+)?", value):
        return "; leave out the quotes"
    if isinstance(value, str) and wanted.startswith("true") and value.lower() in ("yes", "no", "on", "off"):
        return f"; write {'true' if value.lower() in ('yes', 'on') else 'false'}"
    return ""
