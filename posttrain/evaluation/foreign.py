"""Evaluations that others made, read as ours so that they can be compared: lm-evaluation-harness and lighteval.

- lm-evaluation-harness (`--log_samples`): `samples_TASK_DATE.jsonl`, one line a problem and filter, and `results_DATE.json`
  beside it for the model's name and versions. Each filter is an evaluation of its own: `gsm8k (strict-match)`.
- lighteval (`--save-details`): `details_TASK_DATE.parquet`, one row a problem. Columns `doc`, `model_response`, `metric`
  (0.10 and later), or `example`, `full_prompt`, `metrics` (before).

The score is the metric of the file that is between 0 and 1 in every row; where there are several, the one that the reader
chose. A problem is known by the digest of its question, so two files pair whatever their order. Neither format tells the
samples of one problem apart: a problem has one score, the mean of its samples where the metric is one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posttrain.errors import Mistake
from posttrain.evaluation.results import Result, too_deep
from posttrain.evaluation.rows import Fields, read_file
from posttrain.evaluation.statistics.estimates import estimate

_DATED = re.compile(r"(?:samples|details)_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[\w.-]+)")
_NOT_METRICS = frozenset(
    [
        "doc_id",
        "doc",
        "target",
        "arguments",
        "resps",
        "filtered_resps",
        "filter",
        "metrics",
        "doc_hash",
        "prompt_hash",
        "target_hash",
        "prompt",
    ]
)


@dataclass(slots=True)
class Foreign(Result):
    """A result whose samples are in memory. `directory` is the file they came from."""

    lines: list[dict[str, Any]] = field(default_factory=list)

    def samples(self) -> list[dict[str, Any]]:
        return self.lines


def is_file_of_others(place: Path) -> bool:
    """True for a file of samples or details, by its name."""
    try:
        return place.suffix in (".jsonl", ".parquet") and place.is_file()
    except (OSError, ValueError):
        return False


def files_in(folder: Path) -> list[Path]:
    """Files of samples and details in a folder or below it."""
    return sorted([*folder.rglob("samples_*.jsonl"), *folder.rglob("details_*.parquet")])


def read(file: Path, metrics: Sequence[str] = ()) -> list[Foreign]:
    """The evaluations in a file: one for each filter of lm-evaluation-harness, one of lighteval.

    Args:
        metrics: names of metrics, as the file has them; the first of them that it has is the score. None given: it must have one.

    Raises:
        Mistake: a row without the columns that are read, no metric that is a share, none of `metrics`, or several and no choice.
    """
    rows = list(read_file(file))
    if not rows:
        raise Mistake(f"{file}: no rows")
    if deep := next((row for row in rows if too_deep(dict(row))), None):
        raise Mistake(f"{deep.where}: nested too deep to be an evaluation's")
    return _lighteval(file, rows, metrics) if file.suffix == ".parquet" else _lm_eval(file, rows, metrics)


def _lm_eval(file: Path, rows: Sequence[Fields], metrics: Sequence[str]) -> list[Foreign]:
    task, about = _named(file)
    told = _json(file.parent / f"results_{about}.json") if about else {}
    filters: dict[str, list[Fields]] = {}
    for row in rows:
        for needed in ("doc_id", "target", "doc"):
            row[needed]  # a file of something else is told here, with its row and what it has
        filters.setdefault(str(row.get("filter", "none")), []).append(row)
    config = told.get("config") if isinstance(told.get("config"), dict) else {}
    version = f"{told.get('lm_eval_version', 'unknown')}, task {_of(told, 'versions', task)}"
    made = []
    for name, found in filters.items():
        metric = _metric(file, [_scores(row, row.get("metrics")) for row in found], metrics)
        problems = [
            {
                "id": _text(row.get("doc_hash")) or _digest(json.dumps(row["doc"], sort_keys=True, default=str)),
                "prompt": _text(row.get("prompt_hash")) or _digest(str(row.get("arguments"))),
                "gold": str(row["target"]),
                "score": _scores(row, row.get("metrics"))[metric],
            }
            for row in sorted(found, key=lambda row: str(row["doc_id"]))
        ]
        made.append(
            _result(
                file,
                benchmark=task if len(filters) == 1 else f"{task} ({name})",
                model=str(told.get("model_name") or file.parent.name),
                engine=str(told.get("model_source") or "lm-evaluation-harness"),
                sampling=config.get("gen_kwargs") or {},
                style=f"{_of(told, 'n-shot', task)}-shot",
                grader={"name": f"lm-evaluation-harness, {metric} after {name}", "version": version},
                problems=problems,
            )
        )
    return made


def _lighteval(file: Path, rows: Sequence[Fields], metrics: Sequence[str]) -> list[Foreign]:
    task, date = _named(file)
    scores = [_scores(row, None, row.one_of("metric", "metrics")) for row in rows]
    metric = _metric(file, scores, metrics)
    problems = []
    for row, values in zip(rows, scores, strict=True):
        doc = row.get("doc") if isinstance(row.get("doc"), dict) else {}
        answer = row.get("model_response") if isinstance(row.get("model_response"), dict) else {}
        question = doc.get("query") or row.one_of("example", "full_prompt", "doc")
        problems.append(
            {
                "id": _digest(str(question)),
                "prompt": _digest(str(answer.get("input") or row.get("full_prompt") or question)),
                "gold": str(_gold(doc) if doc else row.get("gold")),
                "score": values[metric],
            }
        )
    told = _lighteval_results(file, date)
    config = told.get("config_general") if isinstance(told.get("config_general"), dict) else {}
    model = config.get("model_config") if isinstance(config.get("model_config"), dict) else {}
    parts = task.split("|")
    return [
        _result(
            file,
            benchmark=task,
            model=str(model.get("model_name") or config.get("model_name") or file.parent.parent.name),
            engine="lighteval",
            sampling=model.get("generation_parameters") or {},
            style=f"{parts[-1]}-shot" if len(parts) > 1 else "unknown",
            grader={"name": f"lighteval, {metric}", "version": str(config.get("lighteval_sha") or "unknown")},
            problems=problems,
        )
    ]


def _result(
    file: Path,
    *,
    benchmark: str,
    model: str,
    engine: str,
    sampling: Any,
    style: str,
    grader: dict[str, Any],
    problems: Sequence[Mapping[str, Any]],
) -> Foreign:
    seen: dict[str, int] = {}
    lines = []
    for one in problems:
        seen[one["id"]] = seen.get(one["id"], 0) + 1
        number = f"-{seen[one['id']]}" if seen[one["id"]] > 1 else ""  # one question twice: told apart by its order
        item = f"{benchmark}/{one['id'][:12]}{number}"
        lines.append({"item_id": item, "cluster": item, "sample": 0, "score": one["score"], "gold": one["gold"]})
    accuracy = estimate([line["score"] for line in lines]).to_json() | {"se_rerun": None}
    return Foreign(
        benchmark=benchmark,
        when=None,
        n=len(lines),
        k=1,
        model=model,
        adapter=None,
        engine=engine,
        sampling=sampling if isinstance(sampling, dict) else {"given": str(sampling)},
        seed=0,
        prompt_style=style,
        prompt_hash=_digest("".join(sorted(one["id"] + one["prompt"] for one in problems)))[:12],
        grader=grader,
        metrics={"accuracy": accuracy},
        truncated=0.0,
        no_answer=0.0,
        timeouts=0.0,
        aborted=0.0,
        tokens=0,
        prompt_tokens=0,
        seconds=0.0,
        created="",
        versions={},
        settings="",
        notes=[],
        directory=file,
        lines=lines,
    )


def _scores(row: Fields, names: Any, values: Any = None) -> dict[str, float]:
    """The numbers of a row that may be its score."""
    source = row if values is None else values
    if not isinstance(source, dict):
        raise Mistake(f"{row.where}: its metrics should be an object, not {type(source).__name__}")
    listed = names if isinstance(names, list) else [name for name in source if name not in _NOT_METRICS]
    found = {name: _number(source.get(name)) for name in listed if isinstance(name, str)}
    return {name: value for name, value in found.items() if value is not None}


def _number(value: Any) -> float | None:
    """A number, or the mean of a list of them (the samples of one problem)."""
    if isinstance(value, list) and value:
        parts = [_number(one) for one in value]
        return None if None in parts else sum(p for p in parts if p is not None) / len(parts)
    return float(value) if isinstance(value, bool | int | float) and abs(value) < 1e300 else None


def _metric(file: Path, rows: Sequence[Mapping[str, float]], wanted: Sequence[str]) -> str:
    """The metric that is a share in all rows: the first of `wanted`, or the only one."""
    names = [name for name in rows[0] if all(name in row and 0 <= row[name] <= 1 for row in rows)]
    if not names:
        has = ", ".join(rows[0]) or "none"
        raise Mistake(
            f"{file}: no metric that is between 0 and 1 in every row (it has {has[:100]}); it cannot be compared"
        )
    has = ", ".join(map(repr, names))[:400]
    if wanted:
        for name in wanted:
            if name in names:
                return name
        asked = ", ".join(wanted)[:100]
        raise Mistake(f"{file}: no metric {asked} that is between 0 and 1 in every row; it has {has}")
    if len(names) > 1:
        raise Mistake(f"{file}: {len(names)} metrics that could be its score ({has}); choose one with --metric NAME")
    return names[0]


def _named(file: Path) -> tuple[str, str]:
    """Task and date of `samples_TASK_DATE.jsonl`; another name is the task."""
    match = _DATED.fullmatch(file.stem)
    return (match["task"], match["date"]) if match else (file.stem, "")


def _json(file: Path) -> dict[str, Any]:
    """What stands there; nothing if it cannot be read, for it is not needed."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and not too_deep(found) else {}


def _lighteval_results(file: Path, date: str) -> dict[str, Any]:
    """`OUT/details/MODEL/DATE/details_...parquet` has its results at `OUT/results/MODEL/results_DATE.json`."""
    for above in file.parents[2:6]:
        details = above / "details"
        if details in file.parents:
            return _json(above / "results" / file.parent.parent.relative_to(details) / f"results_{date}.json")
    return {}


def _of(told: Mapping[str, Any], key: str, task: str) -> Any:
    found = told.get(key)
    return found.get(task, "unknown") if isinstance(found, dict) else "unknown"


def _gold(doc: Mapping[str, Any]) -> Any:
    choices, index = doc.get("choices"), doc.get("gold_index")
    if isinstance(index, list):
        index = index[0] if len(index) == 1 else None
    return (
        choices[index] if isinstance(choices, list) and type(index) is int and 0 <= index < len(choices) else choices
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
