"""The training rollouts that the page shows, picked by a rule that it states."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from posttrain.report import told
from posttrain.report.run import Picked
from posttrain.report.values import Record, clip, clip_prompt, lines, number, records, step_number

MIN_STEPS = 25
"""Steps they are taken from at least, if there are so many."""


def evenly(count: int, wanted: int) -> list[int]:
    """`wanted` indices below `count`, evenly spaced, the first and the last among them."""
    if wanted >= count:
        return list(range(count))
    if wanted <= 1:
        return [count - 1] if wanted else []
    return sorted({round(i * (count - 1) / (wanted - 1)) for i in range(wanted)})


def pick(folder: Path, broken: Counter[str], max_rows: int, same: bool) -> Picked:
    """Rows of the steps that have rollouts, evenly spaced; `same`: see `told.of_record`."""
    files: dict[int, list[Path]] = {}
    for path in sorted(folder.glob("*.jsonl")) if folder.is_dir() else []:
        if match := re.fullmatch(r"(\d+)-r(\d+)", path.stem):
            files.setdefault(int(match[1]), []).append(path)
    picked = Picked(steps=len(files))
    if not files:
        return picked
    steps = sorted(files)
    sizes = [sum(1 for path in files[step] for _ in lines(path)) for step in {steps[0], steps[-1]}]
    per_step = max(*sizes, 1) if len(sizes) > 1 else max(sizes[0], 1)
    chosen = [steps[i] for i in evenly(len(steps), max(MIN_STEPS, max_rows // per_step))]
    share = max(1, max_rows // len(chosen))
    cut = False
    for step in chosen:
        rows, all_of_it = _rows_of_step(step, files[step], share, broken, same)
        picked.rows += rows
        cut |= not all_of_it
    which = (
        ("the one step that has" if len(steps) == 1 else f"all {len(steps)} steps that have") + " rollouts"
        if len(chosen) == len(steps)
        else f"{len(chosen)} of the {len(steps)} steps that have rollouts: the first, the last and evenly spaced ones between"
    )
    how = f"of each, whole groups evenly spaced over the batch, up to {share}" if cut else "with all of their rollouts"
    picked.rule = f"{which}, {how}"
    picked.judge = _judge(picked.rows)
    return picked


def _rows_of_step(
    step: int, paths: list[Path], share: int, broken: Counter[str], same: bool
) -> tuple[list[Record], bool]:
    """At most about `share` rows of one step, whole groups of a prompt; and whether that was all of them."""
    sizes: Counter[str] = Counter()
    for path in paths:
        for record in records(path, broken):
            sizes[_group(record)] += 1
    total, groups = sum(sizes.values()), list(sizes)
    wanted = None
    if total > share:
        fits = max(1, int(share / (total / len(groups))))
        wanted = {groups[i] for i in evenly(len(groups), fits)}
    rows: list[Record] = []
    for path in paths:
        for record in records(path):
            if (wanted is None or _group(record) in wanted) and len(rows) < 2 * share:
                rows.append(_rollout(record, step, path.name) | told.of_record(record, same))
    rows.sort(key=lambda r: (r["row_id"], r["sample"] if r["sample"] is not None else -1))
    return rows, len(rows) == total


def _group(record: Record) -> str:
    return f"{record.get('phase')}:{record.get('row_id')}"


def _rollout(record: Record, step: int, file: str) -> Record:
    given = record.get("rewards")
    rewards = {str(k): number(v) for k, v in given.items()} if isinstance(given, dict) else {}
    logged = step_number(record.get("step"))
    return {
        "source": "held-out rows" if record.get("phase") == "eval" else "training",
        "step": step if logged is None else logged,
        "row_id": str(record.get("row_id", "")),
        "sample": number(record.get("sample")),
        "version": number(record.get("version")),
        "prompt": clip_prompt(record.get("prompt")),
        "completion": clip(record.get("completion")),
        "rewards": rewards,
        "reward": number(record.get("reward")),
        "advantage": number(record.get("advantage")),
        "finish": str(record.get("finish") or ""),
        "prompt_tokens": number(record.get("prompt_tokens")),
        "tokens": number(record.get("completion_tokens")),
        "faults": [str(f) for f in record["faults"]] if isinstance(record.get("faults"), list) else [],
        "file": f"rollouts/{file}",
    }


def _judge(rows: list[Record]) -> str:
    """The reward that says right or wrong: one called `correct`, else the first that is only ever 0 or 1.

    Sets `right` in the rows.
    """
    values: dict[str, set[float]] = {}
    for row in rows:
        for name, value in row["rewards"].items():
            if value is not None:
                values.setdefault(name, set()).add(value)
    named = [n for n in values if "correct" in n.lower() or "accura" in n.lower()]
    binary = [n for n in values if values[n] <= {0.0, 1.0}]
    name = next((n for n in named if n in binary), None) or next(iter(named), None) or next(iter(binary), None)
    for row in rows:
        value = row["rewards"].get(name) if name else None
        row["right"] = None if value is None else value > 0.5
    return f"right = the reward {name} is above 0.5" if name else ""
