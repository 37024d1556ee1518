"""What `accelerate launch -m posttrain.train RECIPE [key=value ...]` runs: the life of a run, top to bottom."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

from posttrain import exits, shadow
from posttrain.errors import Alarm
from posttrain.launch import read_words

LONGEST_WAIT = timedelta(hours=2)
"""How long one process waits for another (while the first trains a miniature, or evaluates) before it gives up."""


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
    signal.signal(signal.SIGTERM, terminated)
    world = join_world()

    from posttrain import assemble, bookkeeping, preflight
    from posttrain.evaluation import BENCHMARKS
    from posttrain.recipe.check import check
    from posttrain.schedule import Schedule
    from posttrain.trainers.state import keeping

    kind = assemble.trainer_class(recipe)
    check(recipe, kind.Config, loaded, benchmarks=BENCHMARKS)
    claimed = bookkeeping.claim(world, loaded, launch)
    run = claimed.run
    with bookkeeping.status(world, claimed) as status, ExitStack() as stack:
        parts = assemble.parts(recipe, run, stack)
        bookkeeping.plan(world, run, parts)
        trainer = assemble.trainer(kind, parts)
        schedule = Schedule(recipe, run, parts, trainer)
        parts.after_step.extend(schedule.during())
        preflight.run(trainer, parts, world, "off" if launch.no_preflight else recipe.preflight)
        schedule.evaluate("before")
        try:
            with keeping(trainer):
                trainer.train(resume_from_checkpoint=str(claimed.start.folder) if claimed.start else None)
        finally:
            status.steps, status.rollouts = trainer.state.global_step, bookkeeping.rollouts(trainer)
        bookkeeping.result(run, trainer)
        schedule.evaluate("after")
    if world.is_main_process:
        bookkeeping.finish(run)


def quiet_process() -> None:
    """Settings of this process alone: nothing is sent anywhere that the recipe did not ask for."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # Names that TRL still uses and transformers has renamed; nothing that the reader of a run could mend.
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*deprecated", category=FutureWarning)


def terminated(number: int, frame: Any) -> None:
    """Pre-emption ends a run in order: servers are told, files are closed, `status.json` says so."""
    raise Alarm("the process was told to end (SIGTERM)")


def join_world() -> Any:
    """The processes of this launch, with a patience that covers the longest stretch in which only one works."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available(), timeout=LONGEST_WAIT)


if __name__ == "__main__":
    sys.exit(main())
