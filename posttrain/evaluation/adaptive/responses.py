"""Tables of which model answered which item rightly, from files of several kinds, as one table.

- JSON lines: `{"subject_id": "model", "responses": {"item": 1, "item-2": 0}}`, a line a model (py-irt's format);
- CSV: a row an item (its id first), a column a model, the model's name in the first row; an empty cell is no answer;
- folders of evaluations: `samples.jsonl`, whose samples of an item become a share.

A value is 0, 1, true, false or a share between.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from posttrain.errors import Mistake
from posttrain.evaluation.adaptive.bank import named
from posttrain.evaluation.adaptive.model import Floats
from posttrain.evaluation.results import RESULT, SAMPLES, Result, by_item, load_samples


@dataclass(frozen=True, slots=True)
class Subject:
    """One model's answers."""

    name: str
    where: str
    """File and row, for messages."""
    shares: dict[str, float]
    samples: dict[str, int] = field(default_factory=dict)
    """Samples behind a share; absent = 1."""
    golds: dict[str, Any] = field(default_factory=dict)
    benchmark: str | None = None
    grader: dict[str, Any] | None = None
    prompt: str | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """m models × n items."""

    subjects: list[Subject]
    items: list[str]
    shares: Floats
    """(m, n); nan = not asked."""
    samples: Floats
    """(m, n)"""


def read(places: Sequence[str | Path]) -> Table:
    """All tables and evaluations, joined by item.

    Raises:
        Mistake: something cannot be read (file, row and what is wrong), or a model is there twice.
    """
    subjects = [subject for place in places for subject in _read_one(Path(place).expanduser())]
    seen: dict[str, str] = {}
    for subject in subjects:
        if subject.name in seen:
            raise Mistake(
                f'{subject.where}: model "{named(subject.name)}" is in {seen[subject.name]} already; give each its own name'
            )
        seen[subject.name] = subject.where
    items = list(dict.fromkeys(item for subject in subjects for item in subject.shares))
    shares = np.array([[s.shares.get(i, math.nan) for i in items] for s in subjects], dtype=float)
    samples = np.array([[s.samples.get(i, 1) for i in items] for s in subjects], dtype=float)
    return Table(subjects, items, shares, samples)


def _read_one(path: Path) -> Iterator[Subject]:
    if path.is_dir() or path.name == RESULT:
        return iter([_evaluation(path if path.is_dir() else path.parent)])
    if not path.is_file():
        raise Mistake(f"{path}: no such file or folder (looked in {Path.cwd()})")
    if path.name == SAMPLES:
        return iter([_evaluation(path.parent)])
    kind = path.suffix.lower()
    if kind == ".csv":
        return _csv(path)
    if kind in (".jsonl", ".json"):
        return _json_lines(path)
    raise Mistake(f"{path}: a table of responses is a .jsonl or .csv file, or the folder of an evaluation")


def _json_lines(path: Path) -> Iterator[Subject]:
    found = 0
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                record = json.loads(line, object_pairs_hook=_once)
            except _Twice as error:
                raise Mistake(f"{where}: {error}") from error
            except (ValueError, RecursionError) as error:
                raise Mistake(f"{where}: not JSON ({' '.join(str(error).split())[:200]})") from error
            if not isinstance(record, dict) or not isinstance(record.get("responses"), dict):
                raise Mistake(f'{where}: should be {{"subject_id": "model", "responses": {{"item": 0 or 1}}}}')
            name = record.get("subject_id")
            if not isinstance(name, str) or not name.strip():
                raise Mistake(f"{where}: subject_id should be the model's name, not {_short(name)}")
            answers = {k: v for k, v in record["responses"].items() if v is not None}
            if not answers:
                raise Mistake(f"{where}: {named(name)} has no responses")
            if "" in answers:
                raise Mistake(
                    f'{where}: one of the responses of {named(name)} has "" for its item; give every item an id'
                )
            found += 1
            yield Subject(name, where, {k: _share(v, f"{where}, item {named(k)}") for k, v in answers.items()})
    if not found:
        raise Mistake(f"{path}: holds no models")


def _csv(path: Path) -> Iterator[Subject]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        try:
            rows = [(reader.line_num, row) for reader in [csv.reader(file)] for row in reader if any(row)]
        except csv.Error as error:
            raise Mistake(f"{path}: not a CSV table ({error})") from error
    if len(rows) < 2 or len(rows[0][1]) < 2:
        raise Mistake(f"{path}: should have a first row with models' names, then a row an item, its id first")
    names = [name.strip() for name in rows[0][1][1:]]
    for column, name in enumerate(names, start=2):
        if not name:
            raise Mistake(f"{path}, row 1, column {column}: no name of a model")
        if name in names[: column - 2]:
            raise Mistake(f'{path}, row 1, column {column}: model "{named(name)}" is there twice')
    answers: dict[str, dict[str, float]] = {name: {} for name in names}
    seen: dict[str, int] = {}
    for number, row in rows[1:]:
        where = f"{path}, row {number}"
        if len(row) != len(names) + 1:
            raise Mistake(f"{where}: {len(row)} columns, where the first row has {len(names) + 1}")
        item = row[0].strip()
        if not item:
            raise Mistake(f"{where}: no item id in the first column")
        if item in seen:
            raise Mistake(f"{where}: item {named(item)} is in row {seen[item]} already")
        seen[item] = number
        for name, cell in zip(names, row[1:], strict=True):
            if cell.strip():
                answers[name][item] = _share(cell.strip(), f"{where}, model {named(name)}")
    for name, given in answers.items():
        if not given:
            raise Mistake(f"{path}, column {named(name)}: no responses")
        yield Subject(name, f"{path}, column {named(name)}", given)


def _evaluation(folder: Path) -> Subject:
    file = folder / SAMPLES
    if not file.is_file():
        raise Mistake(f"{folder}: no {SAMPLES} here; give tables of responses or folders of evaluations")
    items = by_item(load_samples(file))
    if not items:
        raise Mistake(f"{file}: holds no samples")
    result = Result.read(folder) if (folder / RESULT).is_file() else None
    benchmarks = {str(line.get("benchmark")) for lines in items.values() for line in lines if line.get("benchmark")}
    if len(benchmarks) > 1:
        raise Mistake(f"{file}: samples of several benchmarks ({', '.join(sorted(benchmarks))[:120]})")
    return Subject(
        str(folder),
        str(file),
        {item: sum(line["score"] for line in lines) / len(lines) for item, lines in items.items()},
        {item: len(lines) for item, lines in items.items()},
        {item: lines[0]["gold"] for item, lines in items.items()},
        benchmarks.pop() if benchmarks else None,
        result.grader if result else None,
        result.prompt_hash if result else None,
    )


class _Twice(Exception): ...


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are there once: of an item that is there twice one answer would be lost without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(f'"{named(next(name for name in names if names.count(name) > 1))}" is there twice')
    return found


def _share(value: Any, where: str) -> float:
    if isinstance(value, str):
        try:
            value = {"true": 1.0, "false": 0.0}.get(value.lower(), value[:60]) if value.isalpha() else float(value)
        except ValueError:
            value = value[:60]
    if isinstance(value, bool | int | float) and 0 <= value <= 1:
        return float(value)
    raise Mistake(f"{where}: a response should be 0, 1 or a share between, not {_short(value)}")


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
