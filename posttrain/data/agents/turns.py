"""Rows for supervised fine-tuning: one for each message of the agent, with all that came before it as the prompt.

So only what the agent wrote is trained on, with any chat template; what it saw is context. One row a trajectory is shorter to
train on (no token is seen twice), and needs a template that marks what the assistant wrote (`assistant_only_loss`).
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
from posttrain.data.agents.native import is_native, tools_in
from posttrain.data.agents.steps import CONVERTER, Trajectory
from posttrain.errors import Mistake
from posttrain.rundir import write_json

_KEYS = {"path", "name", "licence", "weight", "format", "tools"}
_COPIED = "copied context after its own turns (rows: step keeps it out of the loss)"


def sft(
    path: str | None = None,
    *,
    sources: Sequence[Mapping[str, Any]] | None = None,
    format: str = "auto",
    cap: float | None = None,
    least_thoughts: float | None = None,
    seed: int = 0,
    mix_file: str | None = None,
    style: str = "text",
    tokenizer: str | None = None,
    rows: str = "step",
) -> list[dict[str, Any]]:
    """Rows of trajectories: `row_id`, `prompt`, `completion` (messages), `source`, `licence`, `schema_version`, `converter`, `weight`.

    Trajectories that fail a gate are left out and counted by source and reason, on stderr and in `mix_file`; a row that breaks
    its schema ends it.

    Args:
        path: one file. Or `sources`: `{path, name, licence, weight, format, tools}` each; `tools` is a JSON file of definitions
            that hold for all of its trajectories.
        cap: largest share of the drawn trajectories that one source may have.
        least_thoughts: smallest share of a source's calls that come with a thought; absent = it is only told.
        mix_file: JSON file for counts, reasons, weights and the ids of what was drawn.
        style: `text` writes tools, calls and results into the turns, which every template shows; `native` leaves them to the
            template (`tool_calls`, role `tool`, a column `tools`); `auto` is native if the template of `tokenizer` shows tools.
        rows: `step`, or `trajectory`: everything from the agent's first message on is one completion, for
            `assistant_only_loss: true` (without it, SFT refuses them).

    Raises:
        Mistake: file, row, field; a source under `least_thoughts`; nothing left.
    """
    if rows not in ("step", "trajectory"):
        raise Mistake(f"rows: {rows!r} is neither step nor trajectory")
    given = _sources(path, sources, format)
    native, whole = is_native(style, tokenizer), rows == "trajectory"
    kept: dict[str, list[Trajectory]] = {}
    told: dict[str, dict[str, Any]] = {}
    for one in given:
        name = one["name"]
        read = trajectories(one["path"], format=one["format"], source=name, licence=one["licence"])
        faults = [
            gates.fault(trajectory, one["tools"]) or (_copied(trajectory) if whole else None) for trajectory in read
        ]
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
    out = []
    for one in given:
        name = one["name"]
        told[name]["drawn"] = [kept[name][i].id for i in drawn[name]]
        times: Counter[int] = Counter()
        for i in drawn[name]:
            times[i] += 1
            again = f"~{times[i]}" if times[i] > 1 else ""
            made = turns(kept[name][i], native=native, whole=whole, tools=one["tools"])
            out += [{**row, "row_id": f"{row['row_id']}{again}", "weight": one["weight"]} for row in made]
    if mix_file is not None:
        shape = {"style": "native" if native else "text", "rows": rows}
        write_json(Path(mix_file), {"converter": CONVERTER, "seed": seed, "cap": cap, **shape, "sources": told})
    return out


def turns(
    trajectory: Trajectory, *, native: bool = False, whole: bool = False, tools: Sequence[dict[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """One row for each message that the agent wrote, or (`whole`) one that ends with its last message."""
    said = chat.write(trajectory, tools or ())
    said = said if native else chat.as_text(said)
    origin = trajectory.provenance
    trained = [i for i, flag in enumerate(said.train) if flag and i]
    ends = [(trained[0], trained[-1] + 1)] if whole and trained else [(i, i + 1) for i in trained]
    return [
        {
            "row_id": f"{origin.source}:{trajectory.id}#{'all' if whole else i}",
            "prompt": said.messages[:i],
            "completion": said.messages[i:end],
            **({"tools": said.tools} if native else {}),
            "source": origin.source,
            "licence": origin.licence,
            "schema_version": f"{origin.format} {origin.schema_version}",
            "converter": origin.converter,
        }
        for i, end in ends
    ]


def _copied(trajectory: Trajectory) -> str | None:
    """Why it cannot be one row: in it, all that the assistant wrote is trained on."""
    said = chat.write(trajectory)
    first = next((i for i, flag in enumerate(said.train) if flag and i), len(said.train))
    later = zip(said.messages[first:], said.train[first:], strict=True)
    return _COPIED if any(m["role"] == "assistant" and not flag for m, flag in later) else None


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
        given = {"name": Path(one["path"]).stem, "licence": None, "weight": 1.0, "format": format, **one}
        tools = one.get("tools")
        out.append({**given, "tools": None if tools is None else tools_in(tools, f"sources.{number}.tools")})
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
