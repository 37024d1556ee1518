"""What `accelerate launch -m posttrain.train RECIPE [key=value ...]` runs: the life of a run, top to bottom."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from typing import Any

from posttrain import exits, shadow
from posttrain.errors import Mistake

LONGEST_WAIT = timedelta(hours=2)
"""How long one process waits for another (while the first trains a miniature, or evaluates) before it gives up."""


def main(argv: list[str] | None = None) -> int:
    """Train what a recipe says. Exit codes: 0 done, 2 the user's mistake, 3 stopped by an alarm, 1 our fault."""
    return exits.guarded(lambda: train(sys.argv[1:] if argv is None else argv))


def train(words: list[str]) -> None:
    shadow.refuse()
    if not words or words[0].startswith("-"):
        raise Mistake("usage: accelerate launch -m posttrain.train RECIPE [key=value ...]")
    from posttrain.recipe.reading import read

    loaded = read(words[0], words[1:])
    quiet_process()
    world = join_world()

    from posttrain import assemble, bookkeeping
    from posttrain.schedule import Schedule
    from posttrain.recipe.check import check

    recipe = loaded.recipe
    kind = assemble.trainer_class(recipe)
    check(recipe, kind.Config)
    run = bookkeeping.claim(world, loaded)
    with bookkeeping.status(world, run) as status:
        parts = assemble.parts(recipe, run)
        bookkeeping.plan(world, run, parts)
        schedule = Schedule(recipe, run, parts)
        parts.callbacks.extend(schedule.callbacks())
        trainer = kind.build(parts)
        try:
            schedule.evaluate(trainer, "before")
            trainer.train(resume_from_checkpoint=bookkeeping.checkpoint(recipe, run))
            status.steps = trainer.state.global_step
            bookkeeping.result(run, trainer)
            schedule.evaluate(trainer, "after")
        finally:
            status.rollouts = bookkeeping.rollouts(trainer)
            for close in reversed(parts.closing):
                close()
    if world.is_main_process:
        bookkeeping.finish(run)


def quiet_process() -> None:
    """Settings of this process alone: nothing is sent anywhere that the recipe did not ask for."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def join_world() -> Any:
    """The processes of this launch, with a patience that covers the longest stretch in which only one works."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available(), timeout=LONGEST_WAIT)


if __name__ == "__main__":
    sys.exit(main())
