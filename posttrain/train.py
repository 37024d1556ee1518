"""What `accelerate launch -m posttrain.train RECIPE [key=value ...]` runs: the life of a run, top to bottom."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Collection
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

from posttrain import exits, shadow
from posttrain.launch import Launch, read_words
from posttrain.watch import Limits, Watch

LONGEST_WAIT = 7200.0
"""Seconds for which one process waits in a collective for another (while the first trains a miniature, or evaluates). The watch
ends a run that stands still long before, and knows why; this is for when there is no watch."""


def main(argv: list[str] | None = None) -> int:
    """Train what a recipe says. Exit codes: 0 done, 2 the user's mistake, 3 stopped by an alarm, 1 our fault."""
    return exits.guarded(lambda: train(sys.argv[1:] if argv is None else argv))


def train(words: list[str]) -> None:
    """The life of a run."""
    shadow.refuse()
    launch = read_words(words)
    from posttrain import models
    from posttrain.recipe import read

    loaded = read(launch.recipe, launch.overrides)  # a mistake in the file shows before torch is imported
    recipe = loaded.recipe
    models.trust_remote_code(launch.trust_remote_code)
    quiet_process()
    limits = Limits(recipe.watch.stall, recipe.watch.deadline)
    with Watch(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")), limits=limits) as watch:
        _train(launch, loaded, watch)


def _train(launch: Launch, loaded: Any, watch: Watch) -> None:
    recipe = loaded.recipe
    world = join_world(recipe.watch.deadline)
    watch.meet()

    from posttrain import assemble, bookkeeping, preflight
    from posttrain.evaluation import BENCHMARKS
    from posttrain.evaluation.adaptive import entry
    from posttrain.recipe.check import check
    from posttrain.schedule import Schedule
    from posttrain.trainers import TRAINERS, lean

    if recipe.trainer.algorithm in TRAINERS:
        lean.without_vllm()
    from posttrain.trainers.state import keeping

    kind = assemble.trainer_class(recipe)
    check(recipe, kind.Config, loaded, benchmarks=BENCHMARKS, bank=entry.check_bank)
    claimed = bookkeeping.claim(world, loaded, launch)
    run = claimed.run
    watch.know(run=run)
    with bookkeeping.status(world, claimed) as status, ExitStack() as stack:
        watch.doing("loading")
        parts = assemble.parts(recipe, run, stack)
        bookkeeping.plan(world, run, parts)
        trainer = assemble.trainer(kind, parts)
        schedule = Schedule(recipe, run, parts, trainer)
        parts.after_step += [watch.at_boundary, *schedule.during()]
        watch.doing("the preflight")
        preflight.run(trainer, parts, world, "off" if launch.no_preflight else recipe.preflight)
        watch.doing("the evaluation before")
        schedule.evaluate("before")
        watch.know(
            place=lambda: (parts.timer.phase, trainer.state.global_step),
            boundary=lambda: -1 if trainer.boundary is None else trainer.boundary.step,
            save=lambda reason, absent: keep(trainer, reason, absent),
            facts=lambda: {"steps": trainer.state.global_step, "rollouts": bookkeeping.rollouts(trainer)},
        )
        try:
            with keeping(trainer), watch.kept():
                trainer.train(resume_from_checkpoint=str(claimed.start.folder) if claimed.start else None)
        finally:
            status.steps, status.rollouts = trainer.state.global_step, bookkeeping.rollouts(trainer)
        run.check()
        watch.doing("the result")
        bookkeeping.result(run, trainer)
        watch.doing("the evaluation after")
        schedule.evaluate("after")
    if world.is_main_process:
        bookkeeping.finish(run)
    # Left to the interpreter's end, the threads of a process group may abort a run that is done.
    world.destroy_process_group()


def quiet_process() -> None:
    """Settings of this process alone: nothing is sent anywhere that the recipe did not ask for."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # Names that TRL still uses and transformers has renamed; nothing that the reader of a run could mend.
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*deprecated", category=FutureWarning)


def keep(trainer: Any, reason: str, absent: Collection[int]) -> tuple[Path | None, str]:
    """Where the state of the last step is kept when the run must end, and a clause that says so."""
    folder, clause = trainer.emergency(reason, absent)
    if folder is not None and trainer.accelerator.is_main_process:
        clause += "; the same command goes on from there"
    return folder, clause


def join_world(deadline: float) -> Any:
    """The processes of this launch, with a patience that covers the longest stretch in which only one works."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(seconds=max(LONGEST_WAIT, 2 * deadline)))


if __name__ == "__main__":
    sys.exit(main())
