"""Kills training runs at random places, starts the same command again, and compares what comes out with an unbroken run.

    python scripts/kill_and_resume.py [--kills N] [--seed S] [--quick] [--out DIR]

For each arm (algorithm, processes, batch geometry) one run is left in peace, and its passes through each place are counted. Then,
again and again, a place, a pass and a process are drawn, a run is killed there (SIGKILL; SIGTERM now and then) and the
same command is given once more, which may be killed a second time. Compared are the tensors of the final adapter, every number in
metrics.jsonl that is no time, and every rollout. Writes resume.json and resume.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FRAGILE = ROOT / "tests/end_to_end/fragile.py"
TIMES = ("time", "runtime", "per_second")

ONLINE = [
    f"rollouts.strategy={FRAGILE}:Strategy", f"rewards=[{{use: '{FRAGILE}:letters'}}]", "data.train.with={n: 24}",
    "rollouts.sampling.max_tokens=12", "trainer.args.num_generations=4", "trainer.args.per_device_train_batch_size=4",
]  # fmt: skip
OFFLINE = ["data.train.limit=12", "trainer.args.per_device_train_batch_size=4"]

ARMS: dict[str, dict[str, Any]] = {
    "grpo, mid-batch": {
        "algorithm": "GRPO",
        "settings": [*ONLINE, "trainer.args.steps_per_generation=4", "trainer.args.gradient_accumulation_steps=2",
                     "trainer.args.num_iterations=2", "trainer.args.logging_steps=3"],
    },
    "grpo, two processes": {
        "algorithm": "GRPO",
        "processes": 2,
        "settings": [*ONLINE, "trainer.args.steps_per_generation=4", "trainer.args.gradient_accumulation_steps=2"],
    },
    "grpo, several epochs": {"algorithm": "GRPO", "settings": [*ONLINE, "data.train.with={n: 3}"]},
    "rloo": {"algorithm": "RLOO", "settings": ONLINE},
    "sft": {"algorithm": "SFT", "settings": OFFLINE},
    "dpo": {"algorithm": "DPO", "settings": OFFLINE},
}  # fmt: skip

QUICK = [
    ("grpo, mid-batch", [("generation", 2, 0, "KILL"), ("parts", 1, 0, "KILL")]),
    ("grpo, mid-batch", [("backward", 11, 0, "TERM")]),
    ("grpo, two processes", [("optimizer", 3, 1, "KILL")]),
    ("grpo, two processes", [("backward", 11, 1, "KILL")]),
    ("dpo", [("log", 6, 0, "KILL")]),
]
"""One of each kind: twice in one run, by pre-emption, one of two processes between two writes and in mid-step, without rollouts."""


def command(arm: str, name: str) -> list[str]:
    """The command line of a run of an arm; the same again goes on."""
    algorithm, processes = ARMS[arm]["algorithm"], ARMS[arm].get("processes", 1)
    recipe = {"SFT": "arithmetic_sft", "DPO": "arithmetic_dpo"}.get(algorithm, "arithmetic_grpo")
    launch = ["-m", "posttrain.train"]
    if processes > 1:
        config = ["--config_file", str(ROOT / "recipes/accelerate/cpu.yaml"), "--num_processes", str(processes)]
        launch = ["-m", "accelerate.commands.launch", *config, *launch]
    return [
        sys.executable, *launch, str(ROOT / f"recipes/{recipe}.yaml"), f"trainer.algorithm={FRAGILE}:{algorithm}",
        "evaluation=[]", "trainer.args.max_steps=7", "checkpoints.every=2", *ARMS[arm]["settings"], f"run.name={name}",
        "--no-preflight",
    ]  # fmt: skip


def start(
    arm: str, name: str, folder: Path, kill: tuple[str, int, int, str] | None = None
) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "FRAGILE")}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "FRAGILE_COUNTS": str(folder / f"{name}.counts")}
    if kill is not None:
        place, count, rank, signal = kill
        environment |= {"FRAGILE": f"{place}:{count}:{rank}", "FRAGILE_SIGNAL": signal}
    return subprocess.run(command(arm, name), cwd=folder, env=environment, capture_output=True, text=True, check=False)


def compare(one: Path, other: Path) -> dict[str, int]:
    """How many tensors, logged values and rollout files differ between two finished runs."""
    import torch
    from safetensors.torch import load_file

    a, b = (load_file(run / "adapter/adapter_model.safetensors") for run in (one, other))
    logs = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (one, other)]
    values = abs(len(logs[0]) - len(logs[1]))
    for x, y in zip(*logs, strict=False):
        values += sum(x.get(k) != y.get(k) for k in x.keys() | y.keys() if not any(t in k for t in TIMES))
    files = [{f.name: f.read_bytes() for f in (run / "rollouts").glob("*.jsonl")} for run in (one, other)]
    return {
        "tensors": len(a),
        "differing_tensors": sum(k not in b or not torch.equal(a[k], b[k]) for k in a) + len(b.keys() - a.keys()),
        "differing_values": values,
        "differing_rollouts": sum(files[0].get(n) != files[1].get(n) for n in files[0].keys() | files[1].keys()),
    }


def broken(arm: str, whole: Path, name: str, folder: Path, kills: list[tuple[str, int, int, str]]) -> dict[str, Any]:
    """A run that is killed as often as `kills` says, and then left in peace: what came of it."""
    began, went_on, lines = time.monotonic(), [], []
    for kill in kills:
        ended = start(arm, name, folder, kill)
        said = [line for line in ended.stderr.splitlines() if "posttrain: " in line]
        lines.append(said[-1][:300] if said else f"(nothing; the process ended with {ended.returncode})")
    last = start(arm, name, folder)
    done = (
        last.returncode == 0 or "this run is done" in last.stderr
    )  # it may have ended before the pass that was drawn
    launches = [json.loads(line) for line in (folder / "runs" / name / "launches.jsonl").read_text().splitlines()]
    went_on = [launch["resumed_from"] for launch in launches]
    found = compare(whole, folder / "runs" / name) if done else {}
    return {
        "arm": arm, "kills": [":".join(map(str, kill)) for kill in kills], "resumed_from": went_on, "lines": lines,
        "code": last.returncode if not done else 0, "error": "" if done else last.stderr[-1500:],
        **found, "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def drawn(random_: random.Random, counts: dict[str, int], processes: int) -> list[tuple[str, int, int, str]]:
    """One kill, or two in a row, at places that the unbroken run passed through."""
    kills = []
    for _ in range(random_.choice((1, 1, 2))):
        place = random_.choice(sorted(counts))
        signal = "TERM" if random_.random() < 0.2 else "KILL"
        rank = 0 if place in ("seal",) else random_.randrange(processes)
        kills.append((place, random_.randint(1, counts[place]), rank, signal))
    return kills


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=60, help="broken runs (default 60, about 45 minutes on 2 cores)")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--quick", action="store_true", help="one broken run of each kind")
    options.add_argument("--out", type=Path, default=ROOT / "scripts/results")
    given = options.parse_args()
    random_, rows, whole = random.Random(given.seed), [], {}
    arms = [arm for arm, _ in QUICK] if given.quick else list(ARMS)
    with tempfile.TemporaryDirectory(prefix="kill-and-resume-") as place:
        folder = Path(place)
        for arm in dict.fromkeys(arms):
            name = f"whole-{list(ARMS).index(arm)}"
            ended = start(arm, name, folder)
            if ended.returncode:
                print(ended.stderr[-3000:], file=sys.stderr)
                return 1
            counts = json.loads((folder / f"{name}.counts").read_text())
            whole[arm] = (folder / "runs" / name, counts)
            print(f"{arm}: unbroken, passes {counts}", flush=True)
        plan = (
            QUICK
            if given.quick
            else [
                (arm, drawn(random_, whole[arm][1], ARMS[arm].get("processes", 1)))
                for arm in (arms[i % len(arms)] for i in range(given.kills))
            ]
        )
        for i, (arm, kills) in enumerate(plan):
            rows.append(broken(arm, whole[arm][0], f"broken-{i}", folder, kills))
            print(json.dumps(rows[-1]), flush=True)
            bad = write(rows, given)
    print(f"{len(rows)} runs, {bad} that differ; {given.out / 'resume.md'}")
    return 1 if bad else 0


def write(rows: list[dict[str, Any]], given: argparse.Namespace) -> int:
    """Write what is known so far; how many runs differ."""
    bad = [r for r in rows if r["code"] or r["differing_tensors"] or r["differing_values"] or r["differing_rollouts"]]
    given.out.mkdir(parents=True, exist_ok=True)
    record = {
        "command": sys.argv,
        "runs": len(rows),
        "kills": sum(len(r["kills"]) for r in rows),
        "bad": len(bad),
        "rows": rows,
    }
    (given.out / "resume.json").write_text(json.dumps(record, indent=1) + "\n")
    lines = [
        "# Killed and started again", "",
        f"{record['runs']} runs, killed {record['kills']} times in all (place:pass:process:signal), each compared with an unbroken run. "
        f"{len(bad)} differ.", "",
        "| arm | killed at | went on from step | differing tensors | differing values | differing rollout files | s |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for r in rows:
        steps = ", ".join("–" if s is None else str(s) for s in r["resumed_from"])
        differ = (
            f"{r['differing_tensors']} of {r['tensors']} | {r['differing_values']} | {r['differing_rollouts']}"
            if not r["code"]
            else "failed | | "
        )
        lines.append(f"| {r['arm']} | {' then '.join(r['kills'])} | {steps} | {differ} | {r['seconds']:g} |")
    (given.out / "resume.md").write_text("\n".join(lines) + "\n")
    return len(bad)


if __name__ == "__main__":
    sys.exit(main())
