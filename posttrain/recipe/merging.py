"""Recipes laid over each other, and where each key of the result was given.

Mappings merge, lists are replaced whole. One thing does not merge: a mapping that names another source than the one
below it (`use`, `hub` or `path`; `name` for the model) does not inherit what was said about the old one (`with`,
`config`, `split`, `revision`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.recipe.text import Path as Keys


@dataclass(frozen=True)
class Mark:
    """Where a key was given: words for a message, and the folder that file names are relative to."""

    text: str
    folder: Path | None = None


@dataclass
class Tree:
    """A merged mapping and the marks of its keys."""

    values: dict[str, Any]
    marks: dict[Keys, Mark]


_NAMED_BY = ("use", "hub", "path")
_ABOUT_IT = ("with", "config", "split", "revision")


def merge(below: Tree, above: Tree) -> Tree:
    """`above` laid over `below`."""
    marks = dict(below.marks)
    values = _merged(below.values, above.values, (), marks)
    marks.update(above.marks)
    return Tree(values, marks)


def _merged(below: dict[str, Any], above: dict[str, Any], path: Keys, marks: dict[Keys, Mark]) -> dict[str, Any]:
    result = dict(below)
    for key in _about_another(below, above, path):
        result.pop(key, None)
        forget(marks, (*path, key))
    for key, value in above.items():
        here = (*path, key)
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = _merged(result[key], value, here, marks)
        else:
            forget(marks, here)
            result[key] = value
    return result


def _about_another(below: dict[str, Any], above: dict[str, Any], path: Keys) -> Iterator[str]:
    """Keys of `below` that describe a source which `above` exchanges for another."""
    named_by = ("name",) if path == ("model",) else _NAMED_BY
    if len(path) > 2 or not path or path[0] in ("trainer", "run", "adapter"):
        return
    old = {k: below[k] for k in named_by if below.get(k) is not None}
    new = {k: above[k] for k in named_by if above.get(k) is not None}
    if old and new and old != new:
        yield from (*old, *_ABOUT_IT)


def forget(marks: dict[Keys, Mark], path: Keys) -> None:
    for keys in [k for k in marks if k[: len(path)] == path]:
        del marks[keys]


def mark_of(marks: dict[Keys, Mark], path: Keys, default: str) -> Mark:
    """The mark of `path`, or of the nearest thing around it."""
    for n in range(len(path), 0, -1):
        if path[:n] in marks:
            return marks[path[:n]]
    return Mark(default)


def marks_of_mapping(values: dict[str, Any]) -> dict[Keys, Mark]:
    return {(key,): Mark("recipe", None) for key in values}
