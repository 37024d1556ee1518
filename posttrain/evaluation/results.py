"""An evaluation on disk: `samples.jsonl`, one line a sample, and `result.json`, what they add up to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from posttrain.errors import Mistake
from posttrain.rundir import read_lines, write_json

DEEPEST = 50
SAMPLES = "samples.jsonl"
RESULT = "result.json"


@dataclass(slots=True)
class Result:
    """What `result.json` holds. Shares are between 0 and 1; metrics are `Estimate`s (value, low, high, se, method)."""

    benchmark: str
    when: str | None
    """`before`, `after`, `step-000050`, or None outside a run."""
    n: int
    """Problems."""
    k: int
    """Samples a problem."""
    model: str
    adapter: str | None
    engine: str
    sampling: dict[str, Any]
    seed: int
    prompt_style: str
    prompt_hash: str
    grader: dict[str, Any]
    metrics: dict[str, dict[str, Any]]
    """`accuracy` (= `avg@k`), `pass@1` ... `pass@k`, `maj@k`."""
    truncated: float
    """Share of samples that ended at the token limit."""
    no_answer: float
    """Share in which no answer was found (scored 0, like a wrong one)."""
    timeouts: float
    """Share whose grading ran out of time (scored 0)."""
    aborted: float
    """Share that the engine gave up on (scored as far as it came)."""
    tokens: int
    """Completion tokens in all."""
    prompt_tokens: int
    seconds: float
    """Wall time of the call that finished the evaluation."""
    created: str
    """ISO 8601, UTC."""
    versions: dict[str, str]
    settings: str
    """Digest of everything that shapes the samples: equal digests, same experiment."""
    notes: list[str]
    """What a reader should know, a line each."""
    directory: Path | None = None
    """Where it is; not written."""

    @property
    def accuracy(self) -> dict[str, Any]:
        return self.metrics["accuracy"]

    def write(self, directory: Path) -> None:
        record = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "directory"}
        write_json(directory / RESULT, record)
        self.directory = directory

    @classmethod
    def read(cls, place: str | os.PathLike[str]) -> Result:
        """The result in a folder, or at the path of its `result.json`.

        Raises:
            Mistake: there is none, or it is not one.
        """
        path = Path(place)
        try:
            file = path / RESULT if path.is_dir() else path
            there = file.is_file()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise Mistake(f"{str(place)[:80]}: no name of a folder ({reason})") from None
        if not there:
            raise Mistake(f"{place}: no {RESULT} here; give the folder of a finished evaluation")
        try:
            record = json.loads(file.read_bytes())
            found = _shape().validate_python(record)
            found.directory = file.parent
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            said = ": ".join(filter(None, [".".join(map(str, first["loc"])), str(first["msg"])]))
            raise Mistake(f"{file}: not a result of an evaluation ({said[:200]})") from error
        except (OSError, ValueError, RecursionError) as error:
            raise Mistake(f"{file}: not a result of an evaluation ({' '.join(str(error).split())[:200]})") from error
        if found.n < 1 or found.k < 1:
            raise Mistake(f"{file}: not a result of an evaluation (n and k should be at least 1)")
        if too_deep(record):
            raise Mistake(f"{file}: not a result of an evaluation (nested deeper than {DEEPEST} levels)")
        return found

    def samples(self) -> list[dict[str, Any]]:
        """Every sample, in the order they were made."""
        if self.directory is None:
            raise ValueError("a result that was not written has no samples")
        return load_samples(self.directory / SAMPLES)


@cache
def _shape() -> TypeAdapter[Result]:
    return TypeAdapter(Result)


def load_samples(file: Path) -> list[dict[str, Any]]:
    """The lines of a samples file.

    Raises:
        Mistake: no such file, or a line is not JSON.
    """
    if not file.is_file():
        raise Mistake(f"{file}: no such file; a result without its samples cannot be compared")
    try:
        lines = list(read_lines(file))
    except (OSError, ValueError, RecursionError) as error:
        raise Mistake(f"{file}: a line is not JSON ({' '.join(str(error).split())[:200]})") from error
    for number, line in enumerate(lines, 1):
        if (wrong := _not_a_sample(line)) is not None:
            raise Mistake(f"{file}, sample {number}: not a sample of an evaluation ({wrong})")
    return lines


def _not_a_sample(line: Any) -> str | None:
    """What is wrong with a line of a samples file, as far as readers count on it."""
    if not isinstance(line, dict):
        return "not an object"
    if not isinstance(line.get("item_id"), str):
        return "item_id should be text"
    if type(line.get("sample")) is not int:
        return "sample should be a whole number"
    score = line.get("score")
    if type(score) not in (int, float) or not 0 <= score <= 1:
        return "score should be a number from 0 to 1"
    if not isinstance(line.get("cluster", ""), str | int | None):
        return "cluster should be text"
    for key in ("prompt_tokens", "completion_tokens"):
        if type(line.get(key, 0)) is not int:
            return f"{key} should be a whole number"
    if not isinstance(line.get("extracted"), str | None):
        return "extracted should be text"
    return "no gold" if "gold" not in line else "nested too deep" if too_deep(line) else None


def too_deep(value: Any) -> bool:
    """True if lists and mappings in `value` are nested beyond `DEEPEST` levels: Python could not show or compare them."""
    level = [value]
    for _ in range(DEEPEST):
        level = [x for v in level if isinstance(v, dict | list) for x in (v.values() if isinstance(v, dict) else v)]
    return any(isinstance(v, dict | list) for v in level)


def mend_tail(file: Path) -> None:
    """Cut off a last line that was being written when its writer died, so that the next line starts on its own."""
    if not file.exists():
        return
    with file.open("rb+") as handle:
        data = handle.read()
        if data and not data.endswith(b"\n"):
            handle.truncate(data.rfind(b"\n") + 1)


def by_item(samples: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Samples of each item, sorted by their number."""
    items: dict[str, list[dict[str, Any]]] = {}
    for sample in samples:
        items.setdefault(sample["item_id"], []).append(sample)
    for found in items.values():
        found.sort(key=lambda sample: sample["sample"])
    return items
