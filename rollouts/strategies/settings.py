"""Are the settings of a strategy what they should be? One line each, in the recipe's words."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any


def among(name: str, value: Any, allowed: Sequence[str]) -> None:
    """Raises:
    ValueError: `value` is none of `allowed`."""
    if value not in allowed:
        raise ValueError(f"scaffold: {name} is {value!r}; it should be one of {', '.join(allowed)}")


def in_range(name: str, value: Any, fits: bool, what: str) -> None:
    """Raises:
    ValueError: not `fits`."""
    if not fits:
        raise ValueError(f"scaffold: {name} is {value}; it should be {what}")


def numbers(**given: Any) -> None:
    """Raises:
    ValueError: one is no finite number; a bool is none, though Python takes it for one."""
    for name, value in given.items():
        fits = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
        _of_kind(name, value, fits, "a number")


def whole(**given: Any) -> None:
    """Raises:
    ValueError: one is neither None nor a whole number."""
    for name, value in given.items():
        fits = value is None or (isinstance(value, int) and not isinstance(value, bool))
        _of_kind(name, value, fits, "a whole number")


def flags(**given: Any) -> None:
    """Raises:
    ValueError: one is neither true nor false (the text "false" would count as true)."""
    for name, value in given.items():
        _of_kind(name, value, isinstance(value, bool), "true or false")


def texts(**given: Any) -> None:
    """Raises:
    ValueError: one is neither None nor a text with something in it."""
    for name, value in given.items():
        _of_kind(name, value, value is None or (isinstance(value, str) and bool(value.strip())), "a text")


def _of_kind(name: str, value: Any, fits: bool, kind: str) -> None:
    if not fits:
        raise ValueError(f"scaffold: {name} is {value!r}; it should be {kind}")
