"""What a process leaves behind at every step, for the main one to take if it dies: its part of the last boundary.

All processes hold the same weights, optimiser and schedule (sharded models are not saved in mid-step); what is a process's alone
are its random streams and the rollouts that wait to be trained on. Those are small, and written to the run's folder at the end of
every step, so that a process that is killed takes nothing with it but the step in flight. Two slots: a kill in mid-write
leaves the one before whole. (Killed between the change of the weights and this, it does take the step: the main process has gone
on and has no way back. Then the last scheduled checkpoint counts.)
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path

from posttrain import checkpoints
from posttrain.rundir import RunDir
from posttrain.trainers.boundary import Boundary, plain_of, tensors_of


class Spare:
    """The slots of one process."""

    def __init__(self, run: RunDir, rank: int):
        self.run = run
        self.rank = rank

    def clear(self) -> None:
        """Away with what an earlier launch left: it may not fit what this one does."""
        for slot in (0, 1):
            for path in (plain_of(self._slot(slot), self.rank), tensors_of(self._slot(slot), self.rank)):
                path.unlink(missing_ok=True)
            with suppress(OSError):  # not empty: the slots are shared by all processes
                self._slot(slot).rmdir()
        with suppress(OSError):
            self.run.spare.rmdir()

    def write(self, boundary: Boundary) -> None:
        """Keep this boundary and the one before. A disk that does not take it costs the spare only."""
        if self.run.gone:
            return
        try:
            boundary.write(self._slot(boundary.step % 2), self.rank, durable=False)
        except Exception as error:
            if checkpoints.disk_trouble(error) is None:
                raise

    def has(self, step: int) -> bool:
        try:
            return json.loads(plain_of(self._slot(step % 2), self.rank).read_text())["step"] == step
        except (OSError, ValueError, KeyError):
            return False

    def take(self, folder: Path, step: int) -> bool:
        """Put this process's part of `step` into a checkpoint that is being written; False if there is none."""
        slot = self._slot(step % 2)
        if not self.has(step):
            return False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(tensors_of(slot, self.rank), tensors_of(folder, self.rank))
            shutil.copyfile(plain_of(slot, self.rank), plain_of(folder, self.rank))
        except OSError:
            return False
        return True

    def _slot(self, number: int) -> Path:
        return self.run.spare / str(number)
