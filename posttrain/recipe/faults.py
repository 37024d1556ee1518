"""From pydantic's errors to plain words: which key, what is wrong with it, what was probably meant."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from posttrain.recipe.schema import Recipe
from posttrain.recipe.text import Path, dotted, printable, show

MOST_NAMES = 12
"""So many names of a closed set are listed in a message."""


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """`; did you mean "weight"?`, or the known names where none is near."""
    names = list(known)
    if near := nearest(given, names):
        return f'; did you mean "{near}"?'
    return f"; known: {', '.join(names)}" if 0 < len(names) <= MOST_NAMES else ""


def nearest(given: str, names: list[str]) -> str | None:
    """The name that was probably meant: an almost equal one, else the first that begins with what was given."""
    near = get_close_matches(given.lower(), names, n=1, cutoff=0.75)
    near = near or [name for name in names if len(given) >= 3 and name.startswith(given.lower())]
    near = near or get_close_matches(given.lower(), names, n=1, cutoff=0.6)
    return near[0] if near else None


def not_among(given: Any, names: list[str]) -> str:
    """`should be one of a, b, got text "c"; did you mean "b"?`; long lists are left out where a near name is found."""
    near = nearest(given, names) if isinstance(given, str) else None
    hint = f'; did you mean "{near}"?' if near else ""
    if near and len(names) > MOST_NAMES:
        return f"{show(given)} is none of the {len(names)} known values{hint}"
    return f"should be one of {', '.join(names)}, got {show(given)}{hint}"


def keys_of(model: type[BaseModel]) -> dict[str, Any]:
    """Key as written in a recipe → pydantic field."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every pydantic model in an annotation such as `list[Reward]` or `str | Use`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (list, Union, types.UnionType):
        for part in get_args(annotation):
            yield from _models(part)


def model_at(path: Path) -> type[BaseModel] | None:
    """The schema's model that a mapping at `path` of a recipe is read as; None where any keys are free."""
    model: type[BaseModel] = Recipe
    for part in path:
        if isinstance(part, int):
            continue
        field = keys_of(model).get(part)
        inner = next(_models(field.annotation), None) if field else None
        if inner is None:
            return None
        model = inner
    return model


@functools.cache
def _homes_of(key: str) -> tuple[str, ...]:
    """Every place of the schema that has this key, dotted, lists as `[i]`."""

    def walk(model: type[BaseModel], prefix: str) -> Iterator[str]:
        for name, field in keys_of(model).items():
            if name == key:
                yield f"{prefix}{name}"
            for inner in _models(field.annotation):
                many = "[i]" if get_origin(field.annotation) is list else ""
                yield from walk(inner, f"{prefix}{name}{many}.")

    return tuple(walk(Recipe, ""))


def translate(error: ValidationError, values: Any) -> list[tuple[Path, str]]:
    """Each error as (path of the key in `values`, what is wrong with it); one for each path."""
    found: dict[Path, str] = {}
    for one in error.errors(include_url=False):
        path, fits = _path(one["loc"], values)
        text = _words(one, path)
        # Of the branches of a union, the one that the given value looks like has the useful message.
        if path not in found or fits:
            found[path] = text
    deeper = {path[:n] for path in found for n in range(len(path))}
    # A misspelt key is missing under its right name too: one mistake, one line.
    for path, text in list(found.items()):
        meant = text.partition('unknown key; did you mean "')[2].removesuffix('"?')
        if meant and found.get((*path[:-1], meant), "").startswith("missing"):
            del found[(*path[:-1], meant)]
    return [(path, text) for path, text in found.items() if path not in deeper]


_LOOKS = {"str": str, "list[str]": list, "int": int}


def _path(loc: tuple[str | int, ...], values: Any) -> tuple[Path, bool]:
    """pydantic's location without the names of union branches, and whether those branches fit the value's kind."""
    path: list[str | int] = []
    fits = True
    here = values
    for i, part in enumerate(loc):
        inside = (isinstance(here, dict) and part in here) or (
            isinstance(here, list) and isinstance(part, int) and part < len(here)
        )
        if inside:
            path.append(part)
            here = here[part]
        elif isinstance(part, str) and part in _LOOKS:
            fits = isinstance(here, _LOOKS[part])
        elif isinstance(part, str) and part == "Use":
            fits = isinstance(here, dict)
        elif i == len(loc) - 1:
            path.append(part)
    return tuple(path), fits


_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "list_type": "a list",
}


def _words(error: Any, path: Path) -> str:
    kind, given, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "missing":
        return f"missing{_meaning(path)}"
    if kind == "extra_forbidden":
        return _unknown(path)
    if kind in _EXPECTED:
        return f"should be {_expected(kind, path)}, got {show(given)}{_hint(kind, given)}"
    if kind == "literal_error":
        names = [part.strip("'") for part in str(context["expected"]).replace(" or ", ", ").split(", ")]
        return not_among(given, names)
    bounds = {
        "greater_than": "above",
        "greater_than_equal": "at least",
        "less_than": "below",
        "less_than_equal": "at most",
    }
    if kind in bounds:
        bound = next(v for k, v in context.items() if k in ("gt", "ge", "lt", "le"))
        return f"should be {bounds[kind]} {bound:g}, got {show(given)}"
    if kind == "finite_number":
        return f"should be a finite number, got {show(given)}"
    if kind == "string_pattern_mismatch":
        return f"{show(given)} is not allowed{_meaning(path)}"
    return printable(str(error["msg"]))


def _expected(kind: str, path: Path) -> str:
    """Unions name both of their forms."""
    if path in {("rollouts", "engine"), ("rollouts", "strategy")}:
        return "a name or a mapping with `use`"
    if path == ("adapter", "target_modules"):
        return "text or a list of names"
    return _EXPECTED[kind]


def _hint(kind: str, given: Any) -> str:
    if kind == "string_type":
        if isinstance(given, dict):
            return " (braces make a mapping in YAML: put the text in quotes)"
        if given is None or isinstance(given, bool | int | float):
            return f'; put it in quotes: "{show(given)}"'
    if kind == "bool_type" and isinstance(given, str) and given.lower() in ("yes", "no", "on", "off"):
        return f"; write {'true' if given.lower() in ('yes', 'on') else 'false'}"
    if kind in ("int_type", "float_type") and isinstance(given, str):
        bare = given.replace("_", "").replace(",", "")
        if bare != given and bare.replace(".", "", 1).isdigit():
            return f"; write {printable(bare, 30)}"
        if given.replace(".", "", 1).replace("e-", "", 1).isdigit():
            return "; leave out the quotes"
    if kind == "list_type" and not isinstance(given, dict):
        return "; put it in brackets"
    return ""


def _unknown(path: Path) -> str:
    key = str(path[-1])
    model = model_at(path[:-1])
    siblings = keys_of(model) if model else {}
    near = get_close_matches(key, siblings, n=1, cutoff=0.7)
    if near:
        return f'unknown key; did you mean "{near[0]}"?'
    homes = _homes_of(key)
    if 0 < len(homes) <= 2:
        return f'unknown key here; did you mean "{" or ".join(homes)}"?'
    return f"unknown key{did_you_mean(key, siblings)}"


def _meaning(path: Path) -> str:
    """The first sentence of the key's docstring, in brackets."""
    model = model_at(path[:-1])
    field = keys_of(model).get(str(path[-1])) if model and path else None
    if field is None or not field.description:
        return ""
    return f" ({field.description.splitlines()[0].split('. ')[0].rstrip('.')})"


def line(mark: str, path: Path, text: str) -> str:
    """One mistake as one line."""
    at = f" {dotted(path)}:" if path else ""
    return f"{mark}:{at} {text}"
