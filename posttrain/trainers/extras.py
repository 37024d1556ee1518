"""What rewards and strategies tell about a row, made fit for a line of the record: JSON, and of bounded size."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

TEXT = 4000
"""Characters of one text."""
ITEMS = 256
"""Entries of one list or mapping."""
DEPTH = 8
MOST = 256 * 1024
"""Characters of the JSON of one row's value under one name."""


def bounded(value: Any) -> Any:
    """`value` as JSON can hold it, cut where it is too long, and what is no number (NaN, infinity) as None; a text that says so
    where it is too large even then."""
    plain = _plain(value, DEPTH)
    size = len(json.dumps(plain, ensure_ascii=False))
    return plain if size <= MOST else f"(left out: {size} characters of JSON)"


def _plain(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        # A lone surrogate is no UTF-8, and would fail in the writer.
        return _cut(value).encode("utf-8", "replace").decode()
    if depth and isinstance(value, Mapping):
        return {str(_plain(str(k), 0)): _plain(v, depth - 1) for k, v in list(value.items())[:ITEMS]}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_plain(v, depth - 1) for v in list(value)[:ITEMS]]
    if hasattr(value, "item") and getattr(value, "size", None) == 1:  # a number of numpy's
        return _plain(value.item(), 0)
    return _plain(str(value), 0)


def _cut(text: str) -> str:
    return text if len(text) <= TEXT else f"{text[:TEXT]}… ({len(text)} characters)"
