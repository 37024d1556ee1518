"""Files and values of a run as they are: of any type, half written or broken. Nothing here raises because of what is in them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAX_TEXT = 40_000
"""Characters of one prompt or completion."""
MAX_STEP = 10**12
"""No run has more steps; what says so is broken."""

Record = dict[str, Any]


def number(value: Any) -> float | None:
    """A finite float, or None for everything else (booleans too)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        value = float(value)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None


def step_number(value: Any) -> int | None:
    """A step, or None for what can be none."""
    value = number(value)
    return int(value) if value is not None and 0 <= value <= MAX_STEP else None


def lines(path: Path) -> Iterator[tuple[bytes, bool]]:
    """(line, whole) of a file; a last line without its newline is not whole. Nothing if the file is not there."""
    try:
        if not path.is_file():  # a pipe or a device would never end
            return
        with path.open("rb") as file:
            for line in file:
                yield line, line.endswith(b"\n")
    except OSError:
        return


def parse(line: bytes) -> Record | None:
    """The JSON object on a line, or None if it is none."""
    try:
        record = json.loads(line.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def records(path: Path, broken: Counter[str] | None = None) -> Iterator[Record]:
    """The objects of a JSON-lines file, in order; lines that are none are counted in `broken` by file name."""
    for line, whole in lines(path):
        if not whole or not line.strip():
            continue
        record = parse(line)
        if record is not None:
            yield record
        elif broken is not None:
            broken[path.name] += 1


def read_object(path: Path, notes: list[str]) -> Record:
    """The JSON object in a file; empty, with a note, if it cannot be read."""
    try:
        if not path.is_file():
            return {}
        text = path.read_bytes()
    except OSError:
        return {}
    record = parse(text)
    if record is None:
        notes.append(f"{path.name} is not a JSON object and was left out")
    return record or {}


def clip(value: Any, limit: int = MAX_TEXT) -> str:
    """Text of at most `limit` characters; of a longer one the beginning and the end."""
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
    if len(text) <= limit:
        return text
    head, tail = limit * 2 // 3, limit // 3
    return f"{text[:head]}\n[… {len(text) - head - tail:,} characters left out …]\n{text[-tail:]}"


def clip_prompt(prompt: Any, limit: int = MAX_TEXT) -> str | list[Record]:
    if isinstance(prompt, list) and all(isinstance(m, dict) for m in prompt):
        return [{"role": str(m.get("role", "")), "content": clip(m.get("content"), limit)} for m in prompt[:200]]
    return clip(prompt, limit)


def as_dict(value: Any) -> Record:
    """The object, or an empty one for everything else."""
    return value if isinstance(value, dict) else {}
