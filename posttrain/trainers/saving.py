"""Writing one checkpoint with all processes, so that it is whole or not there, and a full disk costs it alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list, gather_object

from posttrain import checkpoints
from posttrain.checkpoints import Manifest
from posttrain.errors import Alarm

MOST_FAILED = 3
"""Checkpoints that the disk may refuse in a row before the run stops."""

log = logging.getLogger("posttrain.checkpoints")


class Saving:
    """A mixin in front of a TRL trainer: its checkpoints are sealed, kept by the recipe's rule, and cost nothing but themselves
    when the disk is full."""

    def write_parts(self, folder: Path) -> None:
        """What this process adds to transformers' own files in a checkpoint."""

    def checkpoint_facts(self, folder: Path) -> dict[str, Any]:
        """On the main process: what the manifest says besides (`weights`, `ledger`)."""
        return {}

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        def write(folder: Path) -> None:
            super(Saving, self)._save_checkpoint(model, trial)  # type: ignore[misc]
            self.write_parts(folder)

        save(self, write, facts=self.checkpoint_facts)


def save(
    trainer: Any,
    write: Callable[[Path], None],
    *,
    reason: str = "schedule",
    facts: Callable[[Path], dict[str, Any]] = lambda folder: {},
) -> Manifest | None:
    """The sealed checkpoint of the current step, or None if the disk did not take it. All processes call it together.

    Args:
        write: writes this process's part into the folder.
        facts: on the main process, when all parts are there: more arguments of `checkpoints.seal` (`weights`, `ledger`).

    Raises:
        What `write` raises, unless it is the disk's doing: then what was written is removed, the checkpoint before stays,
        the log says so, and the run goes on to the next one. `trainer.parts.failed_saves` counts.
        Alarm: that was the third in a row.
    """
    parts, accelerator = trainer.parts, trainer.accelerator
    rules = parts.recipe.checkpoints
    step = int(trainer.state.global_step)
    folder = checkpoints.folder_of(parts.run, step)
    there: list[Any] = [None]
    if accelerator.is_main_process:
        there[0] = checkpoints.whole(folder)
        if there[0] is None:
            checkpoints.discard(folder)  # what an earlier attempt left, if anything
    broadcast_object_list(there)
    if there[0] is not None:
        return there[0]
    trouble = _tried(lambda: write(folder))
    # Also the point up to which all parts are written.
    everyone = [t for t in gather_object([trouble]) if t is not None]
    answer: list[Any] = [None, everyone[0] if everyone else None]
    if accelerator.is_main_process and not everyone:

        def seal() -> None:
            metric = checkpoints.measure(parts.run, rules.metric, step)
            answer[0] = checkpoints.seal(
                folder, step=step, world=accelerator.num_processes, reason=reason, metric=metric, **facts(folder)
            )

        answer[1] = _tried(seal)
    broadcast_object_list(answer)
    manifest, trouble = answer
    if trouble is not None:
        parts.failed_saves += 1
        parts.failed_in_a_row += 1
        if accelerator.is_main_process:
            checkpoints.discard(folder)
            before = checkpoints.newest(parts.run)
            kept = f"the one of step {before.step} stays" if before else "there is none before it"
            after = f"the next try is in {rules.every} steps" if reason == "schedule" else "nothing more is tried"
            log.warning("the checkpoint of step %d was not saved: %s; %s, %s", step, trouble, kept, after)
        if parts.failed_in_a_row >= MOST_FAILED:
            raise Alarm(
                f"{parts.failed_in_a_row} checkpoints in a row could not be saved ({trouble}), and what is trained on from here may "
                "be lost; make room, and the same command goes on from the last whole one"
            )
        return None
    parts.failed_in_a_row = 0
    if accelerator.is_main_process:
        checkpoints.rotate(parts.run, rules.keep, rules.keep_best, rules.best)
    return manifest


def _tried(do: Callable[[], None]) -> str | None:
    """What kept the disk from taking it; None if nothing did."""
    try:
        do()
    except Exception as error:
        if (trouble := checkpoints.disk_trouble(error)) is None:
            raise
        return trouble
    return None
