"""Rows for supervised fine-tuning: one for each message of the agent, with all that came before it as the prompt.

So only what the agent wrote is trained on, with any chat template; what it saw is context.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from posttrain import terminal
from posttrain.data.agents import chat, gates, mix
from posttrain.data.agents.files import trajectories
from posttrain.data.agents.steps import CONVERTER, Trajectory
from posttrain.errors import Mistake
from posttrain.rundir import write_json

_KEYS = {"path", "name", "licence", "weight", "format"}


def sft(
    path: str | None = None,
    *,
    sources: Sequence[Mapping[str, Any]] | None = None,
    format: str = "auto",
    cap: float | None = None,
    least_thoughts: float | None = None,
    seed: int = 0,
    mix_file: str | None = None,
) -> list[dict[str, Any]]:
    """Rows of trajectories: `row_id`, `prompt`, `completion` (messages), `source`, `licence`, `schema_version`, `converter`, `weight`.

    Trajectories that fail a gate are left out and counted by source and reason, on stderr and in `mix_file`; a row that breaks
    its schema ends it.

    Args:
        path: one file. Or `sources`: `{path, name, licence, weight, format}` each.
        cap: largest share of the drawn trajectories that one source may have.
        least_thoughts: smallest share of a source's calls that come with a thought; absent = it is only told.
        mix_file: JSON file for counts, reasons, weights and the ids of what was drawn.

    Raises:
        Mistake: file, row, field; a source under `least_thoughts`; nothing left.
    """
    given = _sources(path, sources, format)
    kept: dict[str, list[Trajectory]] = {}
    told: dict[str, dict[str, Any]] = {}
    for one in given:
        name = one["name"]
        read = trajectories(one["path"], format=one["format"], source=name, licence=one["licence"])
        faults = [gates.fault(trajectory) for trajectory in read]
        kept[name] = [t for t, fault in zip(read, faults, strict=True) if fault is None]
        with_thought, calls = (sum(n) for n in zip(*(gates.thoughts(t) for t in read), strict=True))
        share = with_thought / calls if calls else None
        told[name] = {
            "path": str(one["path"]),
            "licence": one["licence"],
            "weight": one["weight"],
            "read": len(read),
            "rejected": dict(sorted(Counter(f for f in faults if f).items())),
            "thought_share": share,
        }
        _say(name, told[name])
        if least_thoughts is not None and share is not None and share < least_thoughts:
            raise Mistake(
                f"{one['path']}: {share:.0%} of the calls come with a thought; least_thoughts is {least_thoughts:.0%}"
            )
        if not kept[name]:
            why = ", ".join(f"{n} {reason}" for reason, n in told[name]["rejected"].items())
            raise Mistake(f"{one['path']}: none of {len(read)} trajectories passes the gates ({why})")
    sizes = {name: len(rows) for name, rows in kept.items()}
    drawn = mix.draw(sizes, {one["name"]: one["weight"] for one in given}, cap, seed)
    rows = []
    for one in given:
        name = one["name"]
        told[name]["drawn"] = [kept[name][i].id for i in drawn[name]]
        times: Counter[int] = Counter()
        for i in drawn[name]:
            times[i] += 1
            again = f"~{times[i]}" if times[i] > 1 else ""
            rows += [
                {**row, "row_id": f"{row['row_id']}{again}", "weight": one["weight"]} for row in turns(kept[name][i])
            ]
    if mix_file is not None:
        write_json(Path(mix_file), {"converter": CONVERTER, "seed": seed, "cap": cap, "sources": told})
    return rows


def turns(trajectory: Trajectory) -> list[dict[str, Any]]:
    """One row for each message that the agent wrote."""
    said = chat.as_text(chat.write(trajectory))
    origin = trajectory.provenance
    return [
        {
            "row_id": f"{origin.source}:{trajectory.id}#{i}",
            "prompt": said.messages[:i],
            "completion": [said.messages[i]],
            "source": origin.source,
            "licence": origin.licence,
            "schema_version": f"{origin.format} {origin.schema_version}",
            "converter": origin.converter,
        }
        for i, flag in enumerate(said.train)
        if flag and i
    ]


def _sources(path: str | None, sources: Sequence[Mapping[str, Any]] | None, format: str) -> list[dict[str, Any]]:
    if (path is None) == (sources is None):
        raise Mistake("give one of path and sources")
    out = []
    for number, one in enumerate(sources if sources is not None else [{"path": path}]):
        if odd := set(one) - _KEYS:
            raise Mistake(
                f"sources.{number}: unknown {', '.join(sorted(odd))}; the keys are {', '.join(sorted(_KEYS))}"
            )
        if not isinstance(one.get("path"), str):
            raise Mistake(f"sources.{number}.path: is missing")
        out.append({"name": Path(one["path"]).stem, "licence": None, "weight": 1.0, "format": format, **one})
    names = Counter(one["name"] for one in out)
    if again := next((name for name, n in names.items() if n > 1), None):
        raise Mistake(f'sources: two are named "{again}"; give each a name')
    return out


def _say(name: str, told: Mapping[str, Any]) -> None:
    lost = ", ".join(f"{n} {reason}" for reason, n in told["rejected"].items())
    share = told["thought_share"]
    low = f" (below {gates.LEAST_THOUGHTS:.0%})" if share is not None and share < gates.LEAST_THOUGHTS else ""
    thought = f"; {share:.0%} of calls with a thought{low}" if share is not None else ""
    line = f"{name}: {told['read']} trajectories, {sum(told['rejected'].values())} left out{f' ({lost})' if lost else ''}{thought}"
    print(terminal.line(line), file=sys.stderr)
