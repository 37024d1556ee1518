"""Raw rows of a benchmark, from the hub or a local file, each knowing where it came from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from posttrain.errors import Mistake


@dataclass(frozen=True, slots=True)
class Hub:
    """A data set on the Hugging Face hub."""

    id: str
    split: str
    config: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.id} ({self.config}, {self.split})" if self.config else f"{self.id} ({self.split})"


class Fields(dict[str, Any]):
    """One raw row. Asking for a column it lacks is a `Mistake` that names the place and what there is."""

    def __init__(self, row: Mapping[str, Any], where: str):
        super().__init__(row)
        self.where = where

    def __missing__(self, key: str) -> Any:
        near = get_close_matches(key, self, n=1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise Mistake(f'{self.where}: no column "{key}"{hint} It has {", ".join(map(str, self)) or "no columns"}')

    def one_of(self, *names: str) -> Any:
        """The first of these columns that the row has: copies of one data set name the same thing differently."""
        return self[next((name for name in names if name in self), names[0])]

    def text(self, *names: str) -> str:
        """A column that must hold text with something in it.

        Raises:
            Mistake: it is missing, not a string, or blank.
        """
        value = self.one_of(*names)
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(names, value, "text")
        return value

    def number_or_text(self, *names: str) -> str:
        """A column that holds text or a number; a whole float loses its `.0` (27.0 is the answer 27)."""
        value = self.one_of(*names)
        if isinstance(value, bool) or not isinstance(value, int | float | str) or value != value:
            raise self.wrong(names, value, "a number or text")
        if isinstance(value, float) and value.is_integer():
            return str(int(value))
        if not str(value).strip():
            raise self.wrong(names, value, "a number or text")
        return str(value).strip()

    def wrong(self, names: tuple[str, ...], value: Any, wanted: str) -> Mistake:
        name = next((n for n in names if n in self), names[0])
        return Mistake(f'{self.where}: column "{name}" should hold {wanted}, not {_short(value)}')


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."


def read_file(path: str | Path) -> Iterator[Fields]:
    """The rows of a local .jsonl, .json (a list of objects), .csv or .parquet file.

    Raises:
        Mistake: no such file, an ending it does not know, or a line that is not a JSON object.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise Mistake(f"{path}: no such file (looked in {Path.cwd()})")
    kind = file.suffix.lower()
    if kind == ".jsonl":
        return _json_lines(file)
    if kind == ".json":
        return _json_list(file)
    if kind in (".csv", ".parquet"):
        return _table(file, kind)
    raise Mistake(f"{path}: cannot read a {kind or 'file without an ending'}; give .jsonl, .json, .csv or .parquet")


def _json_lines(file: Path) -> Iterator[Fields]:
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    where = f"{file}, line {number}"
                    yield _object(_parse(line, where), where)
    except UnicodeDecodeError as error:
        raise Mistake(f"{file}: not UTF-8 text ({error.reason} at byte {error.start})") from error


def _json_list(file: Path) -> Iterator[Fields]:
    try:
        rows = _parse(file.read_text(encoding="utf-8"), str(file))
    except UnicodeDecodeError as error:
        raise Mistake(f"{file}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    if not isinstance(rows, list):
        raise Mistake(f"{file}: should hold a list of objects, not {_short(rows)} (one object a line: call it .jsonl)")
    for number, row in enumerate(rows, start=1):
        where = f"{file}, row {number}"
        yield _object(row, where)


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Mistake(f"{where}: not JSON ({error})") from error


def _object(value: Any, where: str) -> Fields:
    if not isinstance(value, dict):
        raise Mistake(f"{where}: should be an object with columns, not {_short(value)}")
    return Fields(value, where)


def _table(file: Path, kind: str) -> Iterator[Fields]:
    from pyarrow import ArrowInvalid

    try:
        if kind == ".csv":
            from pyarrow.csv import ParseOptions, read_csv

            table = read_csv(file, parse_options=ParseOptions(newlines_in_values=True))
        else:
            from pyarrow.parquet import read_table

            table = read_table(file)
    except ArrowInvalid as error:
        raise Mistake(f"{file}: cannot be read as {kind[1:]} ({' '.join(str(error).split())[:200]})") from error
    return numbered(table.to_pylist(), str(file))


def numbered(rows: Iterable[Mapping[str, Any]], where: str) -> Iterator[Fields]:
    """Rows of anything iterable, each named by its number (from 1)."""
    for number, row in enumerate(rows, start=1):
        yield Fields(row, f"{where}, row {number}")


def read_hub(hub: Hub, name: str) -> Iterator[Fields]:
    """The rows of a data set on the hub (or in its local cache).

    Raises:
        Mistake: it cannot be had, for example because there is no network.
    """
    from datasets import load_dataset

    try:
        rows = load_dataset(hub.id, hub.config, split=hub.split, revision=hub.revision)
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise Mistake(
            f"{name}: {hub} could not be loaded from the hub ({why}); give a local file with its rows (--data PATH)"
        ) from error
    return numbered(rows, str(hub))
