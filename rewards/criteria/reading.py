"""Rubrics as they are stored: a column of a data set, a YAML file, HealthBench's rows, and rules in tags."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from numbers import Real
from pathlib import Path
from typing import Any

from rewards import strict
from rewards.criteria import checks
from rewards.criteria.item import Criterion

LARGEST = 1e15
"""Sum of the points' sizes over the least positive ones: a score in float64 is exact to about that."""
KEYS = ("criterion", "points", "tags", "check")


def rubric(value: Any, where: str, *, code: bool = False) -> list[Criterion]:
    """The criteria in a list of `{criterion, points, tags?, check?}`, or in that list as JSON text, in order.

    `tags` are a list of texts (HealthBench's), or carry a rule of the RuscaRL release in one of its two notations: a mapping
    `{verifier: "rule", function, parameters}`, alone or in the list, or the texts `verifier:rule`, `function:...`,
    `parameters:...`. Its functions `math_verify` and `word_count_range` become `math_equal` and `length`.

    `code`: take a check that names code to import (`use`). Without, nothing that the value names is imported.

    Raises:
        ValueError: one line that begins with `where` and names the criterion: no list, no criteria, empty text, points that are 0,
            not finite or no number, an unknown key, tag rule or check; or no criterion with positive points (no score is
            defined then).
    """
    if isinstance(value, str):
        try:
            value = strict.from_json(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{where}: the rubric is a text, but not JSON: {str(error) or 'nested too deeply'}"
            ) from error
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise ValueError(f"{where}: a rubric is a list of {{criterion, points}}, not {type(value).__name__}")
    found = [_criterion(item, f"{where}: criterion {number}", code) for number, item in enumerate(value, 1)]
    if not found:
        raise ValueError(f"{where}: the rubric is empty; it needs a criterion with positive points")
    if not any(c.points > 0 for c in found):
        raise ValueError(
            f"{where}: no criterion has positive points, so there is no score; give one, or leave the row out"
        )
    least = min(c.points for c in found if c.points > 0)
    if not sum(abs(c.points) for c in found) / least < LARGEST:  # whatever of it is dropped
        raise ValueError(
            f"{where}: the points are too large or too far apart to be added up; their sizes together should be "
            f"below {LARGEST:g} times the least positive ones"
        )
    return found


def column(rows: Iterable[Mapping[str, Any]], name: str = "rubric") -> list[list[Criterion]]:
    """The rubrics of a data set's rows, one a row; rows are named by their `row_id`, else by number from 1.

    Raises:
        ValueError: as `rubric`; or a row has no such column.
    """
    found = []
    for number, row in enumerate(rows, 1):
        where = f"row {row.get('row_id') or number}"
        if row.get(name) is None:
            raise ValueError(
                f'{where}: no column "{name}" with a rubric (it has {", ".join(map(str, row)) or "none"})'
            )
        found.append(rubric(row[name], f'{where}, column "{name}"'))
    return found


def yaml_file(path: str | Path) -> list[Criterion]:
    """One rubric from a YAML file: the list of criteria, by itself or under the key `criteria`.

    Raises:
        ValueError: the file cannot be read, is not YAML, or is no rubric; one line.
    """
    import yaml

    file = Path(path).expanduser()
    try:
        value = strict.from_yaml(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{file}: not YAML: {' '.join(str(error).split())[:200]}") from error
    if isinstance(value, Mapping) and set(value) == {"criteria"}:
        value = value["criteria"]
    return rubric(value, str(file), code=True)


def healthbench(row: Mapping[str, Any], where: str) -> list[Any]:
    """The rubric of a row in HealthBench's published layout (`rubrics`), or in verl's (`reward_model.rubrics`, else
    `extra_info.reward_model.rubrics`), as it is stored: give it to `rubric`.

    Raises:
        ValueError: it is in none of these places.
    """
    inner = row.get("extra_info")
    for holder in (
        row,
        row.get("reward_model"),
        inner,
        inner.get("reward_model") if isinstance(inner, Mapping) else None,
    ):
        value = holder.get("rubrics") if isinstance(holder, Mapping) else None
        if isinstance(value, str):
            try:
                value = strict.from_json(value)
            except (ValueError, RecursionError) as error:
                why = str(error) or "nested too deeply"
                raise ValueError(f"{where}: rubrics is a text, but not JSON: {why}") from error
        if value is not None:
            if isinstance(value, Mapping) or not isinstance(value, Iterable):
                raise ValueError(f"{where}: rubrics should be a list, not {type(value).__name__}")
            return list(value)
    raise ValueError(f"{where}: no rubrics (looked in rubrics, reward_model.rubrics and extra_info)")


def _criterion(item: Any, where: str, code: bool) -> Criterion:
    if not isinstance(item, Mapping):
        raise ValueError(f"{where} is {type(item).__name__}, not a mapping with criterion and points")
    if odd := [str(k) for k, v in item.items() if k not in KEYS and v is not None]:
        raise ValueError(f"{where} has {', '.join(odd)}; known are {', '.join(KEYS)}")
    text, points = item.get("criterion"), item.get("points")
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{where} has no text; say under `criterion` what is judged")
    if isinstance(points, bool) or not isinstance(points, Real):  # numpy's, too
        raise ValueError(f"{where} has points {points!r:.40}; they should be a number other than 0")
    try:
        points = float(points)
    except OverflowError:
        points = float("inf")
    if not isfinite(points):
        raise ValueError(f"{where} has points {points}; they should be finite")
    if points == 0:
        raise ValueError(f"{where} has 0 points, so it can change nothing; give it some, or leave it out")
    tags, rule = _tags(item.get("tags"), where)
    given = item.get("check")
    if given is not None and rule is not None:
        raise ValueError(f"{where} has a check and a rule in its tags; keep one")
    given = rule if given is None else given
    return Criterion(text, points, tags, None if given is None else checks.read(given, where, code=code))


def _tags(value: Any, where: str) -> tuple[tuple[str, ...], dict[str, Any] | None]:
    """The tags as texts, and the check that they carry."""
    if value is None:
        return (), None
    entries: Sequence[Any] = [value] if isinstance(value, Mapping) else value
    if isinstance(entries, (str, bytes)) or not isinstance(entries, Iterable):
        raise ValueError(f"{where}: tags should be a list of texts, not {type(value).__name__}")
    texts: list[str] = []
    said: dict[str, Any] = {}
    for entry in entries:
        if isinstance(entry, Mapping):
            said |= {str(k): v for k, v in entry.items() if v is not None}
            texts += [f"{k}:{v if isinstance(v, str) else json.dumps(v)}" for k, v in entry.items() if v is not None]
        elif isinstance(entry, str):
            key, colon, rest = entry.partition(":")
            if colon and key in ("verifier", "function", "parameters"):
                said[key] = rest.strip()
            texts.append(entry)
        else:
            raise ValueError(f"{where}: a tag is text, not {type(entry).__name__}")
    return tuple(texts), _rule(said, where) if said.get("verifier") == "rule" else None


def _rule(said: Mapping[str, Any], where: str) -> dict[str, Any]:
    function, parameters = said.get("function"), said.get("parameters")
    text = parameters
    if isinstance(parameters, str):
        parameters = _loose(parameters)
    if function == "math_verify":
        # A text that is no mapping is the gold itself, as in the release: (1, 2), [1, 2], {1, 2} and 1,000 are mathematics.
        gold = (
            parameters.get("answer")
            if isinstance(parameters, Mapping)
            else parameters
            if isinstance(parameters, str)
            else text
        )
        if gold is None:
            raise ValueError(f"{where}: the rule math_verify in its tags has no parameters.answer")
        return {"math_equal": gold}
    if function == "word_count_range":
        bounds = parameters
        if isinstance(bounds, Mapping):
            bounds = [bounds.get("min_count"), bounds.get("max_count")]
        elif isinstance(bounds, str):
            bounds = re.findall(r"\d+", bounds)
        try:
            least, most = (int(b) for b in bounds)  # type: ignore[union-attr]
        except (TypeError, ValueError):
            raise ValueError(f"{where}: the rule word_count_range in its tags needs min_count and max_count") from None
        return {"length": {"unit": "words", "min": least, "max": most}}
    raise ValueError(
        f"{where}: unknown rule {function!r} in its tags; known are math_verify, word_count_range; or use `check`"
    )


def _loose(text: str) -> Any:
    """JSON, or the literal of Python that stands in its place; else the text itself."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return text
