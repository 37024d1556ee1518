"""Where rows come from: the hub, a local file, or a function. All give plain dictionaries, in order."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.errors import Mistake
from posttrain.imports import Use, resolve_path

if TYPE_CHECKING:
    from posttrain.recipe.schema import Source

SOURCES = {
    "miniature/arithmetic": "posttrain.miniature.arithmetic:train",
    "miniature/behaviours": "posttrain.miniature.behaviours:train",
}
"""Short names: functions that return rows."""

Rows = Iterable[Mapping[str, Any]]


def read(source: Source, where: str) -> tuple[str, list[dict[str, Any]]]:
    """The name of a source (first part of its rows' ids) and its first `limit` rows, as new dictionaries.

    Raises:
        Mistake: not exactly one of `use`, `hub`, `path`; nothing there; something that is not rows; no rows.
    """
    given = [key for key in ("use", "hub", "path") if getattr(source, key) is not None]
    if len(given) != 1:
        raise Mistake(f"{where}: give one of use, hub, path, not {' and '.join(given) or 'none'}")
    if source.with_ and source.use is None:
        raise Mistake(f"{where}.with: only a source named by `use` takes arguments")
    if source.use is not None:
        name, rows = source.use, _from_use(source, where)
    elif source.hub is not None:
        name, rows = source.hub, _from_hub(source, where)
    else:
        assert source.path is not None
        name, rows = Path(source.path).name, from_file(Path(source.path), f"{where}.path")
    out = []
    for number, row in enumerate(itertools.islice(rows, source.limit), 1):
        if not isinstance(row, Mapping):
            raise Mistake(f"{where}: row {number} of {name} is {_kind(row)}, not a mapping of columns")
        if odd := next((key for key in row if not isinstance(key, str)), None):
            raise Mistake(f"{where}: row {number} of {name} has a column named {odd!r}; names are text")
        out.append(dict(row))
    if not out:
        raise Mistake(f"{where}: {name} has no rows")
    return name, out


def _kind(value: Any) -> str:
    return {str: "text", list: "a list", type(None): "null"}.get(type(value), type(value).__name__)


def _from_use(source: Source, where: str) -> Rows:
    assert source.use is not None
    found = Use(resolve_path(source.use, SOURCES, f"{where}.use"), dict(source.with_), where).build()
    if callable(found):
        try:
            found = found()
        except Mistake:
            raise
        except Exception as error:  # the user's own code
            text = " ".join(str(error).split())[:240]
            raise Mistake(f"{where}.use: {source.use} failed: {type(error).__name__}: {text}") from error
    if isinstance(found, Mapping) and not isinstance(found, (str, bytes)):
        raise Mistake(
            f"{where}.use: {source.use} returned a mapping ({', '.join(map(str, list(found)[:5]))}); return one data "
            "set or a list of rows"
        )
    if isinstance(found, (str, bytes)) or not isinstance(found, Iterable):
        raise Mistake(
            f"{where}.use: {source.use} returned {_kind(found)}; return a datasets.Dataset or a list of rows"
        )
    return _guarded(found, source.use, f"{where}.use")


def _guarded(rows: Iterable[Any], name: str, where: str) -> Iterator[Any]:
    """Rows of the user's own generator, whose mistakes surface while it runs."""
    try:
        yield from rows
    except Mistake:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:240]
        raise Mistake(f"{where}: {name} failed: {type(error).__name__}: {text}") from error


def _from_hub(source: Source, where: str) -> Rows:
    from datasets import load_dataset

    assert source.hub is not None
    try:
        found = load_dataset(source.hub, source.config, split=source.split, revision=source.revision)
    except Exception as error:  # the hub's and Arrow's many
        text = " ".join(str(error).split())[:300] or type(error).__name__
        if "reach" in text or "connect" in text.lower():
            text = "the hub cannot be reached and it is not in the local cache; is the name right?"
        raise Mistake(f"{where}.hub: cannot load {source.hub}: {text}") from error
    return found


def from_file(file: Path, where: str) -> Rows:
    """The rows of a JSON, JSONL, CSV or parquet file.

    Raises:
        Mistake: no such file, or not what its ending says.
    """
    file = file.expanduser()
    readers = {".json": _json, ".jsonl": _json_lines, ".csv": _csv, ".parquet": _parquet}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise Mistake(f"{where}: {file} ends in none of {', '.join(readers)}")
    if not file.exists():
        raise Mistake(f"{where}: no file {file} (looked in {Path.cwd()})")
    if not file.is_file():
        raise Mistake(f"{where}: {file} is not a file")
    return reader(file, where)


def _text(file: Path, where: str) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise Mistake(f"{where}: {file} is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise Mistake(f"{where}: cannot read {file}: {error.strerror}") from error


def _json_lines(file: Path, where: str) -> Iterator[Any]:
    for number, line in enumerate(_text(file, where).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", None) or type(error).__name__
            column = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
            raise Mistake(f"{where}: {file}, line {number}{column}: not JSON: {reason}") from error
        if not isinstance(row, dict):
            raise Mistake(f"{where}: {file}, line {number} is {_kind(row)}, not an object")
        yield row


def _json(file: Path, where: str) -> Rows:
    """A list of objects; a file of this ending that holds one object a line is taken as what it is."""
    text = _text(file, where)
    if not text.lstrip().startswith("["):
        return _json_lines(file, where)
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", None) or type(error).__name__
        at = f", line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise Mistake(f"{where}: {file}{at}: not JSON: {reason}") from error
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise Mistake(f"{where}: {file}, entry {number} is {_kind(row)}, not an object")
    return rows


def _csv(file: Path, where: str) -> Rows:
    """Cells stay text: `007` is an answer, not the number 7."""
    import pyarrow
    from pyarrow import csv

    parse = csv.ParseOptions(newlines_in_values=True)
    try:
        with csv.open_csv(file, parse_options=parse) as head:
            names = head.schema.names
        if again := next((name for name in names if names.count(name) > 1), None):
            raise Mistake(f'{where}: {file} has two columns named "{again}"')
        convert = csv.ConvertOptions(
            column_types={name: pyarrow.string() for name in names}, strings_can_be_null=False, check_utf8=True
        )
        return csv.read_csv(file, parse_options=parse, convert_options=convert).to_pylist()
    except UnicodeDecodeError as error:  # in the header
        raise Mistake(f"{where}: {file} is not UTF-8 text") from error
    except pyarrow.ArrowInvalid as error:
        text = " ".join(str(error).split())
        if "Empty CSV" in text:
            return []
        raise Mistake(f"{where}: {file}: {text.split(' (while')[0][:240]}") from error


def _parquet(file: Path, where: str) -> Rows:
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.read_table(file).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise Mistake(f"{where}: {file} is not a parquet file: {' '.join(str(error).split())[:200]}") from error
