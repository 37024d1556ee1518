"""Trajectories from a file: .jsonl, .json (one object or a list) or .parquet (ADP alone), each row in the format that it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from posttrain.data.agents import adp, atif, chat_rows
from posttrain.data.agents.steps import Trajectory
from posttrain.errors import Mistake

READERS = {"adp": adp.read, "atif": atif.read, "chat": chat_rows.read}


def trajectories(
    path: str | Path, *, format: str = "auto", source: str | None = None, licence: str | None = None
) -> list[Trajectory]:
    """All rows of a file, checked.

    Args:
        format: `adp`, `atif`, `chat`, or `auto`: what each row says of itself.
        source: name of the data set; absent = the file's, without its ending.

    Raises:
        Mistake: no such file, not JSON, or the first row that is refused: file, row, field.
    """
    file = Path(path).expanduser()
    if format not in ("auto", *READERS):
        raise Mistake(f"format: {format!r} is none of auto, {', '.join(READERS)}")
    out: list[Trajectory] = []
    names: dict[str, int] = {}
    for number, row in enumerate(_rows(file), 1):
        where = f"{file}, row {number}"
        if not isinstance(row, dict):
            raise Mistake(f"{where}: is {type(row).__name__}, not an object")
        kind = _says(row) if format == "auto" else format
        read = READERS[kind](
            row, where, source=source or file.stem, licence=licence, filled=file.suffix.lower() == ".parquet"
        )
        if read.id in names:
            raise Mistake(f'{where}: id: "{read.id}" is that of row {names[read.id]} too')
        names[read.id] = number
        read.provenance.file, read.provenance.row = str(file), number
        out.append(read)
    if not out:
        raise Mistake(f"{file}: has no rows")
    return out


def _says(row: dict[str, Any]) -> str:
    """The format of a row; what is none of them is read as ADP, whose reader says what it is."""
    kind = adp.generation(row)
    return kind if kind in ("atif", "chat") else "adp"


def _rows(file: Path) -> Iterator[Any]:
    if not file.is_file():
        raise Mistake(f"{file}: no such file (looked in {Path.cwd()})")
    kind = file.suffix.lower()
    if kind == ".parquet":
        from pyarrow import ArrowException, parquet

        try:
            yield from parquet.read_table(file).to_pylist()
        except ArrowException as error:
            raise Mistake(f"{file}: not a parquet file: {' '.join(str(error).split())[:200]}") from error
        return
    if kind not in (".json", ".jsonl"):
        raise Mistake(f"{file}: ends in none of .json, .jsonl, .parquet")
    try:
        text = file.read_text(encoding="utf-8-sig")
        if kind == ".json":
            found = json.loads(text)
            yield from found if isinstance(found, list) else [found]
            return
    except UnicodeDecodeError as error:
        raise Mistake(f"{file}: is not UTF-8 text (byte {error.start})") from error
    except (ValueError, RecursionError) as error:
        raise Mistake(f"{file}: not JSON: {error}") from error
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise Mistake(f"{file}, line {number}: not JSON: {error}") from error
