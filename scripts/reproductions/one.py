"""One run of a reproduction, in a process of its own: python one.py FOLDER, whose `spec.json` says what it is.

It trains what users launch, a recipe of the shelf with overrides, and measures the result. A run that was cut goes on from its last
checkpoint.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from reproductions import lanes, measure  # noqa: E402
from reproductions.arms import BATCH, BY_NAME, FIFTH, Spec  # noqa: E402

from posttrain import exits, rundir, train  # noqa: E402
from posttrain.errors import Alarm  # noqa: E402
from posttrain.miniature import behaviours  # noqa: E402

LEAST = 0.8
"""Score above which the control imitates an answer."""
SFT_EPOCHS = 2


def main(folder: Path) -> None:
    spec = Spec(**json.loads((folder / lanes.SPEC).read_text(encoding="utf-8")))
    began = time.monotonic()
    if spec.arm == "base" and hasattr(os, "sched_setaffinity"):
        # A base is trained with as many threads as the process may have cores: one, here, the lane's own.
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(os.environ.get(lanes.LANE, "0")) % len(cores)]})
    base = Path(behaviours.base(seed=spec.seed, eps=spec.eps, show=False))
    try:
        found: dict[str, Any] = {} if spec.arm == "base" else trained(spec, folder)
    except Alarm as alarm:  # numbers that are not finite, say: what a rate or an arm came to
        rundir.write_json(folder / lanes.MEASURED, {"spec": spec.to_json(), "stopped": str(alarm)})
        return
    adapter = None if spec.arm == "base" else folder / "run" / "adapter"
    found |= measure.measured(base, adapter, spec.joint, spec.seed, spec.samples, spec.questions)
    if spec.arm == "base":
        made = json.loads((base / "made.json").read_text(encoding="utf-8"))
        found["base_seconds"] = made["seconds"]
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    rundir.write_json(
        folder / lanes.MEASURED,
        {
            "spec": spec.to_json(),
            **found,
            "seconds": round(time.monotonic() - began, 1),
            "cpu_seconds": round(sum(u.ru_utime + u.ru_stime for u in used), 1),
        },
    )


def trained(spec: Spec, folder: Path) -> dict[str, Any]:
    """Train an arm, unless it is trained already; its curve and what was seen on the way."""
    spent = 0
    if BY_NAME[spec.arm].control:
        spent = round(FIFTH * spec.steps)
        _imitate(spec, folder, spent * BATCH)
    recipe, changes = recipe_of(spec, folder, spent)
    if not _done(folder / "run"):
        train.train([str(recipe), *changes, "--no-preflight"])
    return seen(folder / "run", _benchmark(spec), spent)


def recipe_of(spec: Spec, folder: Path, spent: int) -> tuple[Path, list[str]]:
    """The recipe of an arm, and the overrides that make it this run. `spent`: steps whose rollouts are used up already."""
    arm = BY_NAME[spec.arm]
    evaluation = {
        "benchmark": _benchmark(spec), "every": spec.every, "samples": spec.on_the_way, "temperature": 1.0,
        "limit": spec.questions,
    }  # fmt: skip
    changes = [
        "run.name=run",
        *_common(spec, folder),
        f"data.train.with.seed={spec.seed}",
        f"data.train.with.joint={str(spec.joint).lower()}",
        f"trainer.args.max_steps={spec.steps - spent}",
        f"trainer.args.learning_rate={spec.rate}",
        "checkpoints.keep=1",
        f"evaluation={json.dumps([evaluation])}",
        *([f"adapter.start_from={folder / 'sft' / 'adapter'}"] if spent else []),
        *arm.words,
    ]
    return ROOT / "recipes" / ("rubric_ruscarl.yaml" if arm.scaffold else "rubric_grpo.yaml"), changes


def _benchmark(spec: Spec) -> str:
    return "behaviours_joint" if spec.joint else "behaviours"


def _common(spec: Spec, folder: Path) -> list[str]:
    return [
        f"run.directory={folder}",
        f"run.seed={spec.seed}",
        f"model.with.seed={spec.seed}",
        f"model.with.eps={spec.eps}",
    ]


def seen(run: Path, benchmark: str, spent: int) -> dict[str, Any]:
    """From a finished run's own records: `curve` = [rollouts, mean score, share of full marks] of each evaluation; `gap` = [step,
    nats a token] by which the scaffold made its samples likelier than they are without, mean over levels; largest gradient norm."""
    curve = []
    steps = [line for line in rundir.read_lines(run / "metrics.jsonl") if line.get("phase") == "train"]
    last = max((line["step"] for line in steps), default=0)
    for result in (run / "evaluation").glob(f"*-{benchmark}/result.json"):
        found = json.loads(result.read_text(encoding="utf-8"))
        step = {"before": 0, "after": last}.get(found["when"])
        step = int(found["when"].removeprefix("step-")) if step is None else step
        values = found["metrics"]
        curve.append([(spent + step) * BATCH, values["points"]["value"], values["accuracy"]["value"]])
    gaps = []
    for line in steps:
        levels = [value for key, value in line.items() if key.startswith("scaffold/gap/")]
        if levels:
            gaps.append([line["step"], round(sum(levels) / len(levels), 5)])
    norms = [line["grad_norm"] for line in steps if isinstance(line.get("grad_norm"), int | float)]
    return {
        "curve": sorted({point[0]: point for point in curve}.values()),
        "gap": gaps,
        "grad_norm_max": max(norms, default=None),
    }


def _imitate(spec: Spec, folder: Path, rollouts: int) -> None:
    """Supervised training on what the base answers under the whole rubric: so many answers, those above `LEAST` imitated."""
    if _done(folder / "sft"):
        return
    rows = folder / "scaffolded.jsonl"
    if not rows.exists():
        base = Path(behaviours.base(seed=spec.seed, eps=spec.eps, show=False))
        made = measure.scaffolded_answers(base, spec.joint, spec.seed, max(64, rollouts), LEAST)
        rundir.write_atomic(rows, "".join(json.dumps(one) + "\n" for one in made))
    size = sum(1 for _ in rows.open(encoding="utf-8"))
    recipe = folder / "sft.yaml"
    recipe.write_text(
        json.dumps(
            {
                "model": {"name": "miniature/behaviours"},
                "adapter": {"r": 16, "lora_alpha": 32},
                "data": {"train": {"path": str(rows)}},
                "trainer": {
                    "algorithm": "sft",
                    "args": {
                        "per_device_train_batch_size": BATCH,
                        "max_steps": max(1, SFT_EPOCHS * size // BATCH),
                        "learning_rate": spec.rate,
                        "lr_scheduler_type": "constant",
                    },
                },
                "run": {"name": "sft"},
            },
            indent=2,
        ),
        encoding="utf-8",
    )
    # In a process of its own: one process trains once.
    made = subprocess.run(
        [sys.executable, "-m", "posttrain.train", str(recipe), *_common(spec, folder)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    if made.returncode:
        sys.exit(made.returncode)


def _done(run: Path) -> bool:
    return rundir.RunDir(run).state == "done"


if __name__ == "__main__":
    sys.exit(exits.guarded(lambda: main(Path(sys.argv[1]))))
