"""An evaluation on disk: `samples.jsonl`, one line a sample, and `result.json`, what they add up to.

A line of `samples.jsonl` (keys marked + may be missing in older files, null where it is not known):

| key | |
|---|---|
| `benchmark`, `item_id`, `cluster`, `sample`, `seed` | which problem, which of its samples, the request's own seed |
| `prompt`, `completion` | as rendered (text or messages), and what came back |
| `answer` + | the part of `completion` in which an answer counts (no reasoning span); null if that is all of it |
| `finish` | `stop`, `length` (cut at the token limit) or `abort` |
| `prompt_tokens`, `completion_tokens` | |
| `cached_tokens` + | prompt tokens that the engine took from its cache; null if it does not say |
| `logprob` + | sum of the sampler's log-probs of the completion's tokens, nats |
| `gold`, `extracted`, `parsed` + | the right answer, the answer found in the text, the same in normal form |
| `verdict`, `strict` + | RIGHT, WRONG, NONE or TIMEOUT; `strict`: if only what is in a box counts |
| `points` + | a number beside the verdict, of benchmarks that give one (a rubric's score, unbounded); null if it could not be found |
| `score`, `rule` | 1.0 if RIGHT, else 0.0; which of the grader's rules decided |
| `cuts` + | `{"64": "NONE", "128": "RIGHT"}`: the verdict if it had been cut there, for every budget below its length |
| `cut_at` + | for every budget below its length, how many characters of `answer` there were then; or the text, where it is no beginning of it |
| `seconds`, `grading_seconds` + | its share of the wall time of the chunk it was asked (graded) in |
| `queue_seconds`, `prefill_seconds`, `decode_seconds` + | until it was taken up, then to its first token, then to its last; null if the engine does not say |
| `at_once` + | most requests of that call that were worked on at the same moment; null likewise |
| `version`, `settings` | policy version, digest of the settings |
| `generation` + | digest of those settings that shape the text: with the same, a sample is judged again and not asked again |
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
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
    """`accuracy` (= `avg@k`), `pass@1` ... `pass@k`, `maj@k`; `points` of benchmarks that give some, which may be below 0."""
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
    strict: dict[str, Any] | None = None
    """Accuracy if only what is in a box counts, an `Estimate`; None in files that did not store it."""
    cost: dict[str, Any] = field(default_factory=dict)
    """What it took: see `posttrain.evaluation.cost.block`."""
    budgets: list[dict[str, Any]] = field(default_factory=list)
    """`[{"tokens", "used", "accuracy": Estimate}]`, rising: accuracy had every sample been cut at so many output tokens, from the
    same traces; `used` = mean output tokens that are then spent."""
    curves: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """`maj`, `pass`, `best_of`, each `[{"n", "value", "low", "high", "tokens"}]` with n rising: the score of n samples a
    problem, and the mean output tokens that n samples of a problem take. `pass` is what an oracle would reach. Empty if k is 1."""
    lengths: dict[str, Any] = field(default_factory=dict)
    """Output tokens: `mean`, `median`, `p95`, `max`, and `histogram`: verdict (RIGHT, WRONG, NONE, TIMEOUT) →
    `[[edge, count], ...]`, edges (the lower ones, tokens) the same for all, equally wide; `width` is how wide."""
    parts: dict[str, Any] = field(default_factory=dict)
    """Of benchmarks of one's own: accuracy `weighted` by near-duplicates, `by_writer` and `by_scope` (`posttrain.evaluation.parts`)."""
    stopped: dict[str, Any] | None = None
    """If sampling stopped by a rule: `rule` (`until-interval`), `points` (the half-width asked for), `half_width` (reached, in
    points), `reached`, `asked` problems `of` so many, `order_seed`. Then `n` = `asked`, and accuracy's interval is always valid."""
    adaptive: dict[str, Any] | None = None
    """What an adaptive evaluation found; None for all others."""
    dtype: str | None = None
    """Numbers that the engine computed with; None if it does not say (a server)."""
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
    if line.get("strict") not in (None, "RIGHT", "WRONG", "NONE", "TIMEOUT"):
        return "strict should be RIGHT, WRONG, NONE or TIMEOUT"
    for key in (
        "cached_tokens",
        "logprob",
        "seconds",
        "grading_seconds",
        "queue_seconds",
        "prefill_seconds",
        "at_once",
    ):
        if type(line.get(key)) not in (int, float, type(None)):
            return f"{key} should be a number"
    if not isinstance(line.get("cuts", {}), dict):
        return "cuts should be an object"
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
