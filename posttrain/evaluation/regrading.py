"""`posttrain evaluate --regrade FOLDER`: the verdicts of a finished evaluation made again, from its samples alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from posttrain.errors import Mistake
from posttrain.evaluation import cost, tables
from posttrain.evaluation.benchmarks.base import Problem, find_benchmark
from posttrain.evaluation.provenance import digest_of
from posttrain.evaluation.results import Result
from posttrain.evaluation.resuming import SETTINGS, Line, find, read_settings
from posttrain.evaluation.stopping import UntilInterval
from posttrain.evaluation.summary import grouped, notes, summary
from rewards.grading import GRADER


def regrade(
    folder: Path | str,
    *,
    benchmark: str | None = None,
    path: str | None = None,
    progress: bool | None = None,
    show: bool = False,
) -> Result:
    """Judge every sample of a finished evaluation again. No model is loaded and nothing is asked.

    Args:
        benchmark: absent = as it was given then.
        path: file with the benchmark's rows; absent = as it was given then.

    Raises:
        Mistake: no finished evaluation, one that does not say how it was made, an adaptive one (which items it asks depends
            on the verdicts), or problems that are no longer there.
    """
    folder = Path(folder)
    old = Result.read(folder)
    record = read_settings(folder)
    if record is None or not isinstance(record.get("settings"), dict) or digest_of(record["settings"]) != old.settings:
        raise Mistake(
            f"{folder}: no {SETTINGS} that says how its samples were made; give the evaluation's command again"
        )
    if old.adaptive is not None:
        raise Mistake(
            f"{folder}: adaptive, so its verdicts decided what it asked; give its command again, which judges anew what is there"
        )
    task = find_benchmark(benchmark or record["benchmark"], "--benchmark")
    if task.name != old.benchmark:
        raise Mistake(f"{folder}: an evaluation of {old.benchmark}, not of {task.name}")
    every = task.load(path or record["data"], record["limit"])
    settings = record["settings"] | {"grader": GRADER} | ({"data": task.digest} if task.digest else {})
    found = find(folder, settings, task, every, all_again=True, progress=progress)
    if not found.again:
        raise Mistake(f"{folder}: none of its samples can be judged again; give the evaluation's command again")
    stop = _stop(old, every)
    if stop is not None and not stop.look(found.lines) and stop.interval.n < len(every):
        raise Mistake(
            f"{folder}: by these verdicts --until-interval needs more samples than there are; give the evaluation's command again"
        )
    problems = every if stop is None else stop.counted
    asked = {p.item_id for p in problems}
    lines = [line for line in found.lines if line["item_id"] in asked and line["sample"] < old.k]
    if len(lines) != len(asked) * old.k or (stop is None and len(asked) != old.n):
        raise Mistake(
            f"{folder}: its {old.n} problems are not the {len(every)} of {path or record['data'] or task.name} any more"
        )
    result = replace(old, **_judged(old, task, problems, lines, stop))
    source = {"benchmark": benchmark or record["benchmark"], "data": path or record["data"], "limit": record["limit"]}
    result.notes = [*found.settle(source=source), *result.notes]
    result.settings = digest_of(settings)
    result.write(folder)
    if show:
        tables.print_result(result)
    return result


def _stop(old: Result, problems: Sequence[Problem]) -> UntilInterval | None:
    return None if old.stopped is None else UntilInterval(old.stopped["points"], problems, old.k, old.seed)


def _judged(
    old: Result, task: Any, problems: Sequence[Problem], lines: Sequence[Line], stop: UntilInterval | None
) -> dict[str, Any]:
    """All of a result that its verdicts decide."""
    stopped = None if stop is None else stop.record()
    return {
        "n": len(problems),
        "grader": dict(GRADER),
        **summary(problems, lines, old.sampling["max_tokens"], None if stop is None else stop.interval),
        "cost": cost.judged_again(old.cost, grouped(problems, lines)),
        "stopped": stopped,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "notes": [
            *(task.notes(problems) if task.notes else []),
            *notes(task, len(problems), lines, 0, stopped, old.sampling["max_tokens"]),
        ],
    }
