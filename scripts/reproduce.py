"""A published method against its plain baseline on a miniature, at equal budget: table, plot, verdicts.

    python scripts/reproduce.py ruscarl [--seeds N] [--quick] [--plan] [--work DIR] [--out DIR]

The plan and the time it is expected to take come first. Every finished run is kept in DIR; the same command goes on with the rest.
Writes scripts/results/NAME.json, .md and .png; with --quick (the machinery in a few minutes, no claim) into DIR.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import time
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from reproductions import arms, figures, plot, words  # noqa: E402
from reproductions.lanes import Failed, Lanes  # noqa: E402

from posttrain import exits, rundir  # noqa: E402
from posttrain.errors import Mistake  # noqa: E402

NAMES = ("ruscarl",)
LANES = 2
VERSIONS = ("torch", "transformers", "trl", "peft")
START, STEP, SAMPLE, BASE = 20.0, 0.55, 0.002, 100.0
"""Seconds of one thread, for the estimate: of a start, a step, a sample of an evaluation, a base."""


def main(argv: list[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("name", choices=NAMES)
    options.add_argument("--seeds", type=int, help="reported seeds, at least 2 (3)")
    options.add_argument("--quick", action="store_true", help="a shortened form that checks the machinery")
    options.add_argument("--plan", action="store_true", help="say what would be run, and stop")
    options.add_argument("--work", help="folder of the runs (runs/reproduce-NAME)")
    options.add_argument("--out", help="folder of the results (scripts/results; with --quick the work folder)")
    given = options.parse_args(argv)
    size = arms.QUICK if given.quick else arms.FULL
    if given.seeds is not None:
        if given.seeds < 2:
            raise Mistake("--seeds: at least 2, or nothing is known of the spread between seeds")
        size = replace(size, seeds=given.seeds)
    work = Path(given.work or ROOT / "runs" / f"reproduce-{given.name}{'-quick' if given.quick else ''}")
    out = Path(given.out) if given.out else work if given.quick else ROOT / "scripts" / "results"
    say_plan(size, work)
    if not given.plan:
        command = f"scripts/reproduce.py {' '.join(sys.argv[1:] if argv is None else argv)}"
        reproduce(given.name, size, work, out, command, given.quick)


def expected(spec: arms.Spec) -> float:
    """Seconds of one thread that a run takes."""
    answers = spec.questions * (spec.samples + 2)
    if spec.arm == "base":
        return BASE + SAMPLE * answers
    way = spec.questions * spec.on_the_way * (2 + spec.steps // spec.every)
    return START + STEP * spec.steps + SAMPLE * (answers + way)


def say_plan(size: arms.Size, work: Path) -> None:
    first, tuning = arms.bases(size), arms.tuning(size)
    rest = arms.reported(size, dict.fromkeys(size.arms, size.rates[0]))
    seconds = sum(map(expected, [*first, *tuning, *rest])) / LANES
    print(
        f"{len(first)} base models; {len(tuning)} runs of {size.tuning_steps} steps for the rates (seed {arms.TUNING_SEED}); "
        f"{len(rest)} runs of {size.steps} steps ({words.plan(rest)}), seeds 1 to {size.seeds}"
    )
    print(
        f"{LANES} at a time, one thread each: about {seconds / 60:.0f} minutes on {LANES} idle cores, if none is there yet; in {work}",
        flush=True,
    )


def reproduce(name: str, size: arms.Size, work: Path, out: Path, command: str, quick: bool) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    lanes = Lanes(work, ROOT / "scripts" / "reproductions" / "one.py", LANES)
    try:
        bases = lanes.run(arms.bases(size), expected)
        tuned = lanes.run(arms.tuning(size), expected)
        rates = figures.picked(tuned)
        print("rates: " + ", ".join(f"{arm} {rate:g}" for arm, rate in rates.items()), flush=True)
        runs = lanes.run(arms.reported(size, rates), expected)
        if lost := next((one for one in runs if one.get("stopped")), None):
            name_of = arms.Spec(**lost["spec"]).name
            raise Failed(
                f"{name_of}: stopped ({lost['stopped']}); see {work / name_of}, and remove it to begin it anew"
            )
    except (Failed, ValueError) as error:
        raise Mistake(f"{error}; the same command goes on") from error
    record = {
        "name": name,
        **figures.collected(runs, bases),
        "rates": {
            f"{one['spec']['arm']}/{one['spec']['rate']:g}": None if one.get("stopped") else figures.mean(one["score"])
            for one in tuned
        },
        "quick": quick,
        "size": asdict(size),
        "command": command,
        "seconds_of_runs": sum(one["cpu_seconds"] for one in (*bases, *tuned, *runs) if "cpu_seconds" in one),
        "machine": machine(),
        "versions": {package: metadata.version(package) for package in VERSIONS},
        "made": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    rundir.write_json(out / f"{name}.json", record)
    rundir.write_atomic(out / f"{name}.md", words.page(record))
    plot.draw(record, out / f"{name}.png")
    print(f"verdict: {record['verdict']}; written to {out / name}.json, .md and .png")


def _interrupt(number: int, frame: Any) -> None:
    """What was started is ended too, whoever asks for it."""
    raise KeyboardInterrupt


def machine() -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    except OSError:
        pass
    return {"cpu": cpu, "cores": os.cpu_count(), "system": f"{platform.system()} {platform.release()}"}


if __name__ == "__main__":
    sys.exit(exits.guarded(main))
