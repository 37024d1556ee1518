"""A run directory as the page needs it: read from files only, at any moment of a run, in bounded memory.

Nothing here fails because of what is in a run: a file that is missing leaves its part empty, a line that is half written or
broken is left out, and what was left out is said in `Run.notes`.
"""

from __future__ import annotations

import math
import re
from collections import Counter, deque
from pathlib import Path

from posttrain.metrics import BOOKKEEPING
from posttrain.report import told
from posttrain.report.rollouts import evenly, pick
from posttrain.report.run import Evaluation, Faults, Run, Series
from posttrain.report.samples import gather
from posttrain.report.values import (
    MAX_TEXT,
    Record,
    clip,
    clip_prompt,
    lines,
    number,
    parse,
    read_object,
    records,
    step_number,
)
from posttrain.rundir import RunDir

MAX_LINES = 20_000
"""Lines of `metrics.jsonl` that are read; of more, every n-th."""
MAX_ROWS = 2_000
"""Training rollouts on the page."""
MAX_SAMPLES = 120
"""Samples of one evaluation on the page."""
MAX_TOLD = 40
"""Evaluations whose samples are read in full (numbers only): of each benchmark the first and the last."""
MAX_CHARS = 12_000_000
"""Characters of model text on the page, over all rows."""
MAX_FAULTS = 100
"""Faults listed one by one: the first half and the last half."""


def read(root: Path | str, *, max_rows: int = MAX_ROWS, max_chars: int = MAX_CHARS) -> Run:
    """Everything about a run that the page shows."""
    place = RunDir(root)
    run = Run(root=place.root, name=place.root.resolve().name)
    broken: Counter[str] = Counter()
    run.status = read_object(place.status, run.notes)
    run.cut_off = place.cut_off
    run.resolved = read_object(place.resolved, run.notes)
    run.environment = read_object(place.environment, run.notes)
    run.plan = read_object(place.plan, run.notes)
    try:
        run.recipe = place.recipe.read_text(encoding="utf-8", errors="replace") if place.recipe.is_file() else ""
    except OSError:
        run.recipe = ""
    _metrics(run, place.metrics, broken)
    run.evaluation_root = place.root / "evaluation"
    run.evaluations = _evaluations(
        run, sorted(run.evaluation_root.glob("*/result.json")) if run.evaluation_root.is_dir() else []
    )
    run.rollouts = pick(place.rollouts, broken, max_rows, told.shows_the_rubric(run.resolved))
    _read_samples(run, broken)
    run.faults = _faults(place.faults, broken)
    run.notes += _launches(place.launches, broken)
    _fit(run, max_chars)
    run.notes += [f"{name}: {count} broken line{'s' * (count > 1)} left out" for name, count in sorted(broken.items())]
    return run


def read_evaluation(root: Path | str, *, max_rows: int = MAX_ROWS, max_chars: int = MAX_CHARS) -> Run:
    """The folder of one evaluation, as a run that did nothing else."""
    root = Path(root).resolve()
    run = Run(root=root, name=root.name, alone=True, evaluation_root=root.parent)
    broken: Counter[str] = Counter()
    run.evaluations = _evaluations(run, [root / "result.json"])
    if run.evaluations:
        result = run.evaluations[0].result
        keep = ("model", "adapter", "engine", "sampling", "seed", "prompt_style", "prompt_hash", "grader", "settings", "created", "versions")  # fmt: skip
        run.environment = {key: result[key] for key in keep if key in result}
    _read_samples(run, broken, max_rows)
    _fit(run, max_chars)
    run.notes += [f"{name}: {count} broken line{'s' * (count > 1)} left out" for name, count in sorted(broken.items())]
    return run


def _launches(path: Path, broken: Counter[str]) -> list[str]:
    """A line for each time that the run went on after it was cut, and what was not the same any more."""
    told = []
    for record in list(records(path, broken))[1:]:
        step = number(record.get("resumed_from"))
        where = "the beginning" if step is None else f"step {int(step)}"
        anyway = [str(d) for d in record["anyway"]] if isinstance(record.get("anyway"), list) else []
        with_ = f" with other settings than before: {'; '.join(anyway[:20])}" if anyway else ""
        told.append(f"the run was cut off and went on from {where}{with_}")
    return [*told[:10], *([f"... and {len(told) - 10} times more"] if len(told) > 10 else [])]


def _metrics(run: Run, path: Path, broken: Counter[str]) -> None:
    total = sum(1 for _ in lines(path))
    run.stride = max(1, math.ceil(total / MAX_LINES))
    if run.stride > 1:
        run.notes.append(f"metrics.jsonl has {total:,} lines; the curves are drawn from every {run.stride}-th of them")
    points: dict[str, dict[str, dict[int, float | None]]] = {"train": {}, "eval": {}}
    for index, (line, whole) in enumerate(lines(path)):
        if not whole or (index % run.stride and index < total - run.stride):
            continue
        record = parse(line)
        if record is None:
            broken[path.name] += bool(line.strip())
            continue
        step = step_number(record.get("step"))
        if step is None:
            broken[path.name] += 1
            continue
        run.last_time = number(record.get("time")) or run.last_time
        phase = record.get("phase")
        if phase == "summary":
            run.summary.update(record)
            continue
        into = points["eval" if phase == "eval" else "train"]
        for name, value in record.items():
            if name not in BOOKKEEPING and (value is None or type(value) in (int, float)):
                into.setdefault(name, {})[step] = number(value)  # a step that was done again: the last one counts
    run.train = {name: _series(values) for name, values in points["train"].items()}
    run.held_out = {name: _series(values) for name, values in points["eval"].items()}


def _series(values: dict[int, float | None]) -> Series:
    steps = sorted(values)
    return Series(steps, [values[step] for step in steps])


def _evaluations(run: Run, paths: list[Path]) -> list[Evaluation]:
    found = []
    for path in paths:
        result = read_object(path, run.notes)
        if not result:
            continue
        when = str(result.get("when") or path.parent.name.rpartition("-")[0] or path.parent.name)
        benchmark = str(result.get("benchmark") or path.parent.name.removeprefix(f"{when}-"))
        found.append(Evaluation(path.parent.name, when, _step_of(when, run.last_step), benchmark, result))
    return sorted(
        found, key=lambda e: (e.benchmark, e.step if e.step is not None else math.inf, e.when == "after", e.when)
    )


def _step_of(when: str, last: int) -> int | None:
    if when == "before":
        return 0
    if when == "after":
        return last
    match = re.fullmatch(r"step-(\d{1,12})", when)
    return int(match[1]) if match else None


def ends(evaluations: list[Evaluation]) -> tuple[Evaluation, Evaluation]:
    """Of one benchmark's evaluations the one before and the one after training; else the first and the last."""
    before = next((e for e in evaluations if e.when == "before"), evaluations[0])
    after = next((e for e in evaluations if e.when == "after"), evaluations[-1])
    return before, after


def _read_samples(run: Run, broken: Counter[str], wanted: int = MAX_SAMPLES) -> None:
    """Samples of the evaluations before and after: numbers of all of them, and evenly spaced ones as rows of the table."""
    of_each: dict[tuple[str, bool], list[Evaluation]] = {}
    for evaluation in run.evaluations:
        of_each.setdefault((evaluation.benchmark, evaluation.adaptive is not None), []).append(evaluation)
    for found in of_each.values():
        for evaluation in {e.folder: e for e in ends(found)}.values():
            if len(run.told) >= MAX_TOLD:
                run.notes.append(
                    f"samples of more than {MAX_TOLD} evaluations: those of {evaluation.folder} were left out"
                )
                continue
            path = run.evaluation_root / evaluation.folder / "samples.jsonl"
            told = gather(records(path), evaluation.result)
            run.told[evaluation.folder] = told
            if told.cut:
                run.notes.append(
                    f"{evaluation.folder}: lengths and shares are of the first {len(told.kept):,} samples"
                )
            name = path.name if run.alone else f"evaluation/{evaluation.folder}/{path.name}"
            chosen = set(evenly(sum(whole for _, whole in lines(path)), wanted))
            for index, (line, whole) in enumerate(lines(path)):
                if whole and index in chosen:
                    record = parse(line)
                    if record is None:
                        broken[f"{evaluation.folder}/{path.name}"] += 1
                    else:
                        run.samples.append(_sample(record, evaluation, name))


def _sample(record: Record, evaluation: Evaluation, file: str) -> Record:
    verdict = str(record.get("verdict") or "")
    facts = {k: record[k] for k in ("gold", "extracted", "rule") if record.get(k) is not None}
    return {
        "source": f"evaluation {evaluation.moment}: {evaluation.benchmark}",
        "step": evaluation.step,
        "row_id": str(record.get("item_id", "")),
        "sample": number(record.get("sample")),
        "version": number(record.get("version")),
        "prompt": clip_prompt(record.get("prompt")),
        "completion": clip(record.get("completion")),
        "rewards": {},
        "reward": number(record.get("score")),
        "advantage": None,
        "finish": str(record.get("finish") or ""),
        "prompt_tokens": number(record.get("prompt_tokens")),
        "tokens": number(record.get("completion_tokens")),
        "faults": [],
        "right": {"RIGHT": True, "WRONG": False, "NONE": False, "TIMEOUT": False}.get(verdict),
        "verdict": verdict,
        "facts": {k: clip(v, 2_000) for k, v in facts.items()},
        "file": file,
    }


def size(row: Record) -> int:
    """Characters of model text in a row."""
    prompt = row["prompt"]
    of_prompt = len(prompt) if isinstance(prompt, str) else sum(len(m["content"]) for m in prompt)
    return of_prompt + len(row["completion"])


def _fit(run: Run, max_chars: int) -> None:
    """Shorten the longest texts until all of them fit together; the smallest are left whole."""
    rows = [*run.rollouts.rows, *run.samples]
    limit = MAX_TEXT
    while rows and sum(map(size, rows)) > max_chars and limit > 500:
        limit //= 2
        for row in rows:
            row["prompt"] = clip_prompt(row["prompt"], limit)
            row["completion"] = clip(row["completion"], limit)
    if said := told.fit(run.rollouts.rows):
        run.notes.append(said)
    if limit < MAX_TEXT:
        run.notes.append(f"prompts and completions longer than {limit:,} characters are shown without their middle")


def _faults(path: Path, broken: Counter[str]) -> Faults:
    faults = Faults()
    count: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], Record] = {}
    last: deque[Record] = deque(maxlen=MAX_FAULTS // 2)
    for record in records(path, broken):
        faults.total += 1
        short = {k: clip(v, 1_000) if isinstance(v, str) else number(v) for k, v in record.items()}
        key = (str(record.get("reward") or record.get("where") or "?"), str(record.get("kind") or "?"))
        count[key] += 1
        if len(first) < 1_000:
            first.setdefault(key, short)
        if len(faults.listed) < MAX_FAULTS // 2:
            faults.listed.append(short)
        else:
            last.append(short)
    faults.listed += last
    faults.kinds = [(*key, n, first[key]) for key, n in count.most_common(50) if key in first]
    return faults
