"""Criteria that code decides: what a `check` may say, read once, and what it finds in a text."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FLAGS = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE, "a": re.ASCII}
OPTIONS = {
    "regex": {"flags"},
    "contains": {"ignore_case"},
    "json_schema": set[str](),
    "length": set[str](),
    "math_equal": {"boxed_only"},
    "use": {"with"},
}
"""The kinds of check, each with the settings that may stand beside it."""

QUICK = ("contains", "length")
"""Kinds whose time grows with the text alone, so that they need no deadline."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check. Made by `read`; picklable."""

    kind: str
    value: str
    """JSON: the pattern, the texts, the schema, the bounds, the gold answer, or the import path."""
    options: str = "{}"
    """JSON: the settings beside it."""


def read(value: Any, where: str, *, code: bool = True) -> Check:
    """A check as data sets and YAML write it: a mapping with one of the kinds as key, or that mapping as JSON text.

    `{regex: pattern, flags: "i"}` is met where the pattern is found (flags of i, m, s, x, a). `{contains: text or texts,
    ignore_case: true}` where all are in it. `{json_schema: {...}}` where the whole answer (bare or in one code fence) is JSON of that
    schema. `{length: {unit: words | chars, min: 0, max: 200}}`, both bounds included, words parted by blanks. `{math_equal: gold,
    boxed_only: false}` by `rewards.grading`. `{use: "module:function" or "file.py:function", with: {...}}` calls
    `function(response, **with)`, which returns True or False; refused unless `code`. Keys that hold null count as absent (a table gives them to every row).

    Raises:
        ValueError: one line that says what is wrong and what it should be.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"{where}: check is a text, but not JSON: {error}") from error
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: check should be a mapping such as {{contains: text}}, not {type(value).__name__}")
    given = {k: v for k, v in value.items() if v is not None}
    kinds = [k for k in given if k in OPTIONS]
    if len(kinds) != 1:
        raise ValueError(
            f"{where}: unknown check {', '.join(map(str, given)) or '(empty)'}: one of {', '.join(OPTIONS)}"
        )
    (kind,) = kinds
    where = f"{where}: check.{kind}"
    if kind == "use" and not code:
        raise ValueError(
            f"{where}: {given[kind]!r:.80} is code that the data would run; if you trust it, set code_in_data: true"
        )
    options = {k: v for k, v in given.items() if k != kind}
    if unknown := sorted(str(k) for k in options if k not in OPTIONS[kind]):
        may = ", ".join(sorted(OPTIONS[kind])) or "nothing"
        raise ValueError(f"{where}: {', '.join(unknown)} is not a setting of it; beside it may stand {may}")
    try:
        held, beside = (json.dumps(v, sort_keys=True, allow_nan=False) for v in (given[kind], options))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{where}: what it holds cannot be written as JSON: {error}") from error
    check = Check(kind, held, beside)
    try:
        built(check)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return check


@functools.lru_cache(maxsize=4096)
def built(check: Check) -> Callable[[str], tuple[bool, str]]:
    """The function behind a check: text → (met, why). It may raise or never end: see `rewards.criteria.running`.

    Raises:
        ValueError: what the check holds cannot be used.
    """
    value, options = json.loads(check.value), json.loads(check.options)
    return _MAKERS[check.kind](value, **({"arguments": options.get("with", {})} if check.kind == "use" else options))


def _regex(pattern: Any, flags: Any = "") -> Callable[[str], tuple[bool, str]]:
    if not isinstance(pattern, str):
        raise ValueError(f"the pattern should be text, not {type(pattern).__name__}")
    if not isinstance(flags, str) or any(f not in FLAGS for f in flags):
        raise ValueError(f"flags {flags!r} should be letters of {''.join(FLAGS)}")
    try:
        compiled = re.compile(pattern, functools.reduce(lambda a, b: a | FLAGS[b], flags, re.NOFLAG))
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"not a regular expression: {error}") from error

    def found(text: str) -> tuple[bool, str]:
        match = compiled.search(text)
        return match is not None, "not found" if match is None else f"found at character {match.start()}"

    return found


def _contains(texts: Any, ignore_case: Any = True) -> Callable[[str], tuple[bool, str]]:
    wanted = [texts] if isinstance(texts, str) else texts
    if not isinstance(wanted, list) or not wanted or not all(isinstance(t, str) and t for t in wanted):
        raise ValueError("should be a text, or a list of texts, none of them empty")
    if not isinstance(ignore_case, bool):
        raise ValueError(f"ignore_case should be true or false, not {ignore_case!r}")
    fold = str.casefold if ignore_case else str

    def found(text: str) -> tuple[bool, str]:
        there = fold(text)
        missing = [t for t in wanted if fold(t) not in there]
        return not missing, f"lacks {missing[0]!r:.80}" if missing else "all of it is there"

    return found


def _json_schema(schema: Any) -> Callable[[str], tuple[bool, str]]:
    import jsonschema
    import referencing.exceptions
    import referencing.jsonschema

    if not isinstance(schema, (dict, bool)):
        raise ValueError(f"the schema should be a mapping, not {type(schema).__name__}")
    refs = set(_refs(schema))
    if outside := sorted(ref for ref in refs if not ref.startswith("#")):
        raise ValueError(f"$ref {outside[0]!r} leads out of the schema; nothing is fetched, so put it under $defs")
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except (jsonschema.SchemaError, RecursionError) as error:
        raise ValueError(f"not a JSON schema: {getattr(error, 'message', error)}") from error
    # Looked up now: else no answer would ever have a verdict.
    resource = referencing.Resource.from_contents(schema, default_specification=referencing.jsonschema.DRAFT202012)
    resolver = (
        referencing.Registry().with_resource(resource.id() or "", resource).crawl().resolver(resource.id() or "")
    )
    for ref in sorted(refs):
        try:
            resolver.lookup(ref)
        except referencing.exceptions.Unresolvable as error:
            raise ValueError(f"$ref {ref!r} leads nowhere; what it names should stand in the schema") from error
    validator = kind(schema, registry=referencing.Registry())
    fence = re.compile(r"\s*```(?:json)?[ \t]*\n(.*)\n[ \t]*```\s*", re.DOTALL)

    def found(text: str) -> tuple[bool, str]:
        inside = fence.fullmatch(text)
        try:
            data = json.loads(inside[1] if inside else text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            return False, f"not JSON: {getattr(error, 'msg', None) or type(error).__name__}"
        wrong = next(validator.iter_errors(data), None)
        return wrong is None, "of the schema" if wrong is None else f"not of the schema, at {wrong.json_path:.80}"

    return found


def _refs(schema: Any) -> Iterator[str]:
    """What the schema refers to. Data in it (`const`, `enum`) refers to nothing."""
    if isinstance(schema, dict):
        yield from (schema[name] for name in ("$ref", "$dynamicRef") if isinstance(schema.get(name), str))
        schema = [value for name, value in schema.items() if name not in ("const", "enum", "default", "examples")]
    if isinstance(schema, list):
        for value in schema:
            yield from _refs(value)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _length(bounds: Any) -> Callable[[str], tuple[bool, str]]:
    if not isinstance(bounds, dict) or set(bounds) - {"unit", "min", "max"}:
        raise ValueError("should be {unit: words | chars, min: number, max: number}")
    unit, least, most = bounds.get("unit", "words"), bounds.get("min"), bounds.get("max")
    if unit not in ("words", "chars"):
        raise ValueError(f"unit should be words or chars, not {unit!r}")
    if least is None and most is None:
        raise ValueError("needs min, max or both")
    for name, bound in (("min", least), ("max", most)):
        if bound is not None and (isinstance(bound, bool) or not isinstance(bound, int) or bound < 0):
            raise ValueError(f"{name} should be a whole number from 0 on, not {bound!r}")
    if least is not None and most is not None and least > most:
        raise ValueError(f"min {least} is above max {most}")

    def found(text: str) -> tuple[bool, str]:
        n = len(text.split()) if unit == "words" else len(text)
        return (least is None or n >= least) and (most is None or n <= most), f"{n} {unit}"

    return found


def _math_equal(gold: Any, boxed_only: Any = False) -> Callable[[str], tuple[bool, str]]:
    from rewards.grading import gold_text

    if isinstance(gold, bool) or gold_text(gold) is None:
        raise ValueError(f"should be the gold answer (text, number or list), not {gold!r:.80}")
    if not isinstance(boxed_only, bool):
        raise ValueError(f"boxed_only should be true or false, not {boxed_only!r}")

    def found(text: str) -> tuple[bool, str]:
        raise NotImplementedError("the grader's own processes compare")

    return found


def _use(path: Any, arguments: Any) -> Callable[[str], tuple[bool, str]]:
    if not isinstance(path, str) or not isinstance(arguments, dict):
        raise ValueError("should be an import path (module:function or file.py:function), with a mapping under `with`")
    function = _loaded(path)
    try:
        inspect.signature(function).bind("", **arguments)
    except TypeError as error:
        raise ValueError(f"{path} cannot be called with (response, {', '.join(arguments) or '-'}): {error}") from error
    except ValueError:  # one of C's, without a signature
        pass

    def found(text: str) -> tuple[bool, str]:
        met = function(text, **arguments)
        if not isinstance(met, bool):
            raise TypeError(f"{path} returned {type(met).__name__}; a check returns True or False")
        return met, f"{path} says so"

    return found


@functools.lru_cache(maxsize=256)
def _loaded(path: str) -> Callable[..., Any]:
    place, _, name = path.rpartition(":")
    if not place or not name.isidentifier():
        raise ValueError(f"{path!r} is no import path; write module:function or file.py:function")
    try:
        if place.endswith(".py"):
            file = Path(place).expanduser().resolve()
            spec = importlib.util.spec_from_file_location(file.stem, file)
            if spec is None or spec.loader is None or not file.is_file():
                raise ValueError(f"there is no file {file}")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(place)
    except ValueError:
        raise
    except Exception as error:  # the user's own code
        raise ValueError(f"{place} cannot be imported: {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"{place} has no function {name}")
    return function


_MAKERS: dict[str, Callable[..., Callable[[str], tuple[bool, str]]]] = {
    "regex": _regex,
    "contains": _contains,
    "json_schema": _json_schema,
    "length": _length,
    "math_equal": _math_equal,
    "use": _use,
}
