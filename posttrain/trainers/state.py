"""Going on exactly: checkpoints that hold the whole state of a trainer, and one from the middle of a step when a run must end.

A mixin in front of a TRL trainer. It overrides, each for one reason:
- `_maybe_log_save_evaluate`: after an optimiser step is logged, note the boundary; then what is due (evaluations), then save;
- `_save_checkpoint` (of `Saving`): this process's part beside transformers' files;
- `train`, `_load_rng_state`: go back to the noted state where transformers goes back to its own, which lacks TRL's buffer of
  rollouts, what was not logged yet, and the state of our own parts;
- `_load_optimizer_and_scheduler`: on several CPU processes, where transformers' own fails;
- `get_train_dataloader`: keep the sampler, so that the order of a later epoch is that of an unbroken run. (TRL's sampler
  draws an order each time it is iterated, so in a new process the first order would come again.)
- `get_batch_samples`: no step more when all were taken; transformers looks only after one.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import TrainerCallback

from posttrain import checkpoints, resume, terminal
from posttrain.errors import Alarm, Ended, Mistake
from posttrain.rundir import write_atomic
from posttrain.trainers import boundary as bounds
from posttrain.trainers.boundary import Boundary, Stateful
from posttrain.trainers.saving import Saving
from posttrain.trainers.spare import Spare

PATIENCE = 60.0
"""Seconds that the main process waits for the parts of the others when a run must end."""


class Resumable(Saving):
    """Boundaries, exact resume and emergency checkpoints for any TRL trainer."""

    stateful: dict[str, Stateful]
    """What else has state: name -> object. Fill it before `train`."""
    boundary: Boundary | None = None
    """The last one between two optimiser steps."""

    def make_resumable(self) -> None:
        """Called once, right after TRL's constructor, before callbacks that look at a state which may be restored."""
        self.stateful = {}
        self._from: Boundary | None = None
        self._returning = False
        self._manifest: checkpoints.Manifest | None = None
        self.order: Any = None
        """The sampler of the training rows."""
        self._at: dict[str, Any] = {"closed": False, "evaluate": False, "last": [None, None], "epoch": None}
        """Of the boundary: whether the end of its epoch was seen to, whether rows are still to be evaluated, the norm of the
        gradient and the learning rate of the step, and the random streams with which the epoch began."""
        self._began: dict[str, torch.Tensor] = {}
        """The tensors of `_at["epoch"]`."""
        self._changing = threading.Lock()
        """Held while an optimiser step changes the weights, until its boundary is noted."""
        self._stepping = False
        """It is held for that, and not by whoever saves."""
        self._fallen = False
        """Whether the training loop has ended by an exception: then the step in flight will never be done."""
        self._emergency = threading.Lock()
        self._kept: tuple[Path | None, str] | None = None
        self._spare: Spare | None = None
        self.add_callback(_Return(self))

    def settled(self) -> None:
        """Called when every other callback was added."""
        self.add_callback(_Change(self))

    # -- a run goes on ---------------------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: Any = None, **kwargs: Any) -> Any:
        """As transformers' own; from a checkpoint of ours, exactly.

        Raises:
            Alarm: the checkpoint is not what its manifest says, or the folder of the run is gone.
        """
        if resume_from_checkpoint:
            folder = Path(resume_from_checkpoint)
            self._manifest = checkpoints.whole(folder)
            if self._manifest is None:
                raise Alarm(f"{folder}: {checkpoints.examine(folder)}; the same command goes on from an older one")
            self.boundary = self._from = Boundary.read(folder, self.accelerator.process_index)
            self._returning = True
            self.args.eval_on_start = False  # that was before the first step
        if self.accelerator.process_index != 0 and not bounds.sharded(self):
            self._spare = Spare(self.parts.run, self.accelerator.process_index)
            self._spare.clear()
        try:
            with self.parts.run.there():
                done = super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        except BaseException:
            self._fallen = True
            raise
        if self._spare is not None:
            self._spare.clear()
        return done

    def _restore(self) -> None:
        """When transformers has loaded all that is its own, before the first batch."""
        if self._from is None or self._manifest is None:
            return
        bounds.load_adapter(self, self._manifest.folder)
        found = bounds.digest(self)
        if found != self._manifest.weights:
            raise Alarm(
                f"{self._manifest.folder}: the weights that were loaded are not those that were saved (digest {found or 'none'}, "
                f"saved {self._manifest.weights or 'none'}); begin anew with --restart"
            )
        bounds.restore(self, self._from, self.stateful)
        bounds.restore_reference(self, self._manifest.folder)
        self._at = {name: self._from.plain[name] for name in self._at}
        self._began = {k: v for k, v in self._from.tensors.items() if k.startswith("epoch/")}
        if self.parts.follower is not None:
            self.parts.follower.forget()
        bounds.restore_random(self._from.plain["random"], self._from.tensors, "random", None)
        self._catch_up()
        # What was made up for has drawn numbers, as it did in an unbroken run.
        self._from.plain["random"] |= bounds.random_state(self._from.tensors, "random", None)

    def _catch_up(self) -> None:
        """What an unbroken run did after this boundary and before the next batch."""
        step = int(self.state.global_step)
        if self.accelerator.is_main_process:  # what was logged of it before the cut goes, it will be logged again
            resume.cut_lines(self.parts.run, step, sum(entry.get("step") == step for entry in self.state.log_history))
        epoch = self.state.epoch or 0.0
        # The processes were stopped at one step, but perhaps not at one moment of it.
        open_, evaluate = zip(*gather_object([(not self._at["closed"], self._at["evaluate"])]), strict=True)
        closing, evaluate = epoch == int(epoch) and any(open_), any(evaluate)
        if evaluate or (closing and self.args.eval_strategy == "epoch"):
            self.parts.run.rollout_file(step, self.accelerator.process_index).unlink(missing_ok=True)
        if evaluate:
            self._evaluate_rows()
        for due in self.parts.after_step:
            due(self.state)
        if closing:
            self.control = self.callback_handler.on_epoch_end(self.args, self.state, self.control)
            self._maybe_log_save_evaluate(
                self._tr_loss, None, self.model_wrapped, None, int(epoch) - 1, None, time.time(), learning_rate=None
            )

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if self._from is None:
            return super()._load_rng_state(checkpoint)
        return bounds.restore_random(self._from.plain["random"], self._from.tensors, "random", None)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or self.accelerator.device.type != "cpu" or bounds.sharded(self):
            return super()._load_optimizer_and_scheduler(checkpoint)
        # Of several CPU processes transformers 5.17 asks torch for the place "cpu:0", which it does not know.
        for thing, name in ((self.optimizer, "optimizer.pt"), (self.lr_scheduler, "scheduler.pt")):
            thing.load_state_dict(torch.load(Path(checkpoint) / name, map_location="cpu", weights_only=True))

    def get_train_dataloader(self) -> Any:
        loader = super().get_train_dataloader()
        at = getattr(loader, "batch_sampler", None)
        while hasattr(at, "batch_sampler"):
            at = at.batch_sampler
        self.order = getattr(at, "sampler", None)
        return loader

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return [], None
        return super().get_batch_samples(*args, **kwargs)

    def _begin_epoch(self, epoch: int) -> None:
        """The order of the rows of `epoch` (from 0) is that of an unbroken run, whatever stream it is drawn from."""
        if hasattr(self.order, "set_epoch"):
            self.order.set_epoch(epoch)
        if self._from is not None and self._returning:
            self._returning = False
            if (began := self._at["epoch"]) is not None and began["epoch"] == epoch:
                # transformers draws the order anew, skips what was trained on, and then calls `_load_rng_state`.
                return bounds.restore_random(began, self._began, "epoch", self.order)
            bounds.restore_random(self._from.plain["random"], self._from.tensors, "random", self.order)
        self._began = {}
        self._at["epoch"] = {"epoch": epoch, **bounds.random_state(self._began, "epoch", self.order)}
        self._at["closed"] = False

    # -- a step ends -----------------------------------------------------------------------------------------------------

    def _maybe_log_save_evaluate(
        self, tr_loss: Any, grad_norm: Any, model: Any, trial: Any, *args: Any, **kwargs: Any
    ):
        saving, evaluating = self.control.should_save, self.control.should_evaluate
        self.control.should_save = self.control.should_evaluate = False
        if self._stepping:
            self._at["last"] = [bounds.number(grad_norm), kwargs.get("learning_rate")]
        elif grad_norm is None:  # the end of an epoch in which this process took no step
            grad_norm, kwargs["learning_rate"] = self._at["last"]
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, *args, **kwargs)
        # transformers calls this once more at the end of an epoch.
        self._at |= {"closed": not self._stepping, "evaluate": evaluating}
        self._note()
        if stepped := self._stepping:
            self._stepping = False
            self._changing.release()
        if evaluating:
            self._evaluate_rows()
        if stepped:
            for due in self.parts.after_step:
                due(self.state)
        if saving:
            self._save_checkpoint(model, trial)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)

    def _evaluate_rows(self) -> None:
        """transformers' evaluation of the held-out rows, and nothing else of what may be due."""
        logging, self.control.should_log, self.control.should_evaluate = self.control.should_log, False, True
        super()._maybe_log_save_evaluate(self._tr_loss, None, self.model_wrapped, None, 0, None, time.time())
        self.control.should_log = logging
        self._at["evaluate"] = False
        self._note()

    def _note(self) -> None:
        self.boundary = bounds.take(self, self.stateful, **self._at)
        self.boundary.tensors |= self._began
        if self._spare is not None:
            if (recorder := getattr(self, "recorder", None)) is not None:
                recorder.flush()  # whoever takes it counts on the rollouts of the steps before
            self._spare.write(self.boundary)

    def write_parts(self, folder: Path) -> None:
        if (recorder := getattr(self, "recorder", None)) is not None:
            recorder.flush()  # the rollouts of the steps that this checkpoint is beyond
        self._note()
        self.boundary.write(folder, self.accelerator.process_index)
        bounds.write_reference(self, folder)

    def checkpoint_facts(self, folder: Path) -> dict[str, Any]:
        return {"weights": bounds.digest(self), "ledger": self._ledger()}

    def _ledger(self) -> dict[str, Any]:
        ledger = getattr(self.invariants, "ledger", None)
        if ledger is None:
            return {}
        return {k: v for k, v in ledger.state_dict().items() if isinstance(v, int | str)}

    # -- a run must end --------------------------------------------------------------------------------------------------

    def emergency(self, reason: str, absent: Collection[int] = ()) -> tuple[Path | None, str]:
        """A whole checkpoint of the last boundary, from anywhere in a step and from any thread.

        No process waits for another in a collective, so it works when some are gone: each writes its own part, and the
        main one seals the checkpoint when all parts are there. Calling it again gives the same answer.

        Args:
            absent: processes that are known to be gone, whose parts are not waited for.

        Returns:
            The folder (None if there is no checkpoint of the last step), and a clause that says what is kept.
        """
        with self._emergency:
            if self._kept is None:
                try:
                    self._kept = self._keep(reason, absent)
                except Exception as error:  # whatever it is, the run is ending for another reason, which must be told
                    self._kept = (None, f"the state of the last step could not be saved ({error}); {self._older()}")
            return self._kept

    def _keep(self, reason: str, absent: Collection[int]) -> tuple[Path | None, str]:
        if self.boundary is None or self.boundary.step == 0:
            return None, "no optimiser step was finished, so there is nothing to keep"
        if self.parts.run.gone:
            return None, "what was kept went with it"
        if bounds.sharded(self):
            return None, f"a sharded model cannot be saved in mid-step; {self._older()}"
        over = self._fallen or threading.current_thread() is threading.main_thread()
        if not self._changing.acquire(timeout=0 if over else 30):
            return None, f"the step had begun to change the weights; {self._older()}"
        try:
            return self._write_emergency(self.boundary, reason, absent)
        finally:
            self._changing.release()

    def _write_emergency(self, boundary: Boundary, reason: str, absent: Collection[int]) -> tuple[Path | None, str]:
        folder = checkpoints.folder_of(self.parts.run, boundary.step)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        kept = f"the state of step {boundary.step} is kept in {folder}"
        if checkpoints.whole(folder) is not None:
            return folder, kept
        run, step = self.parts.run, boundary.step
        if lost := [r for r in absent if not (_has_part(folder, r, step) or Spare(run, r).has(step))]:
            names = ", ".join(map(str, sorted(lost)))
            return None, f"the state of step {boundary.step} went with process {names}; {self._older()}"
        if rank == 0:
            for stale in folder.glob("[!.]*"):
                # The others may have written their parts, or be about to.
                if stale.is_file() and not stale.name.startswith("posttrain-r"):
                    stale.unlink()
        boundary.write(folder, rank)
        if rank != 0:
            return folder, f"process {rank} has written its part of step {boundary.step}"
        try:
            self._save(str(folder))
            self._save_optimizer_and_scheduler(str(folder))
            self._save_scaler(str(folder))
            bounds.write_reference(self, folder)
            write_atomic(folder / "trainer_state.json", boundary.state_text())
            self._await_parts(folder, step, set(range(world)) - set(absent))
            missing = [r for r in range(world) if not (_has_part(folder, r, step) or Spare(run, r).take(folder, step))]
            if missing:
                checkpoints.discard(folder)
                names = ", ".join(map(str, missing))
                return None, f"process {names} left no state of step {boundary.step}; {self._older()}"
            checkpoints.seal(
                folder,
                step=boundary.step,
                world=world,
                reason=f"stopped: {reason}",
                metric=checkpoints.measure(self.parts.run, self.parts.recipe.checkpoints.metric, boundary.step),
                **self.checkpoint_facts(folder),
            )
        except Exception as error:
            checkpoints.discard(folder)
            if (trouble := checkpoints.disk_trouble(error)) is None:
                raise
            return None, f"{trouble}, so the state of step {boundary.step} is lost; {self._older()}"
        return folder, kept

    def _await_parts(self, folder: Path, step: int, ranks: Collection[int]) -> None:
        """Until these processes have written their state of `step`, at most for `PATIENCE`."""
        until = time.monotonic() + PATIENCE
        while not all(_has_part(folder, r, step) for r in ranks) and time.monotonic() < until:
            time.sleep(0.1)

    def _older(self) -> str:
        found = checkpoints.newest(self.parts.run) if self.accelerator.is_main_process else None
        return f"the checkpoint of step {found.step} is kept" if found else "there is no older checkpoint"


def _has_part(folder: Path, rank: int, step: int) -> bool:
    try:
        return json.loads(bounds.plain_of(folder, rank).read_text())["step"] == step
    except (OSError, ValueError, KeyError):
        return False


class _Return(TrainerCallback):
    """When transformers has gone back to a checkpoint, and when it begins an epoch."""

    def __init__(self, trainer: Resumable):
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer._restore()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer._begin_epoch(int((state.epoch or 0.0) + 1e-6))


class _Change(TrainerCallback):
    """The last to hear that an optimiser step is about to change the weights: the others may still stop it."""

    def __init__(self, trainer: Resumable):
        self.trainer = trainer

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer._changing.acquire()
        self.trainer._stepping = True


@contextmanager
def keeping(trainer: Resumable) -> Iterator[None]:
    """Whatever ends the training in this block, the state of the last step is kept, and the line that says why it ended says
    so too. Errors of ours go on as they are, with a line before their traceback."""
    try:
        yield
    except (Mistake, Ended, GeneratorExit):  # what the watch ended is kept already, and its line says so
        raise
    except BaseException as error:
        folder, clause = trainer.emergency(f"{type(error).__name__}: {error}")
        if not trainer.accelerator.is_main_process:
            raise
        if folder is not None:
            clause += "; the same command goes on from there"
        if isinstance(error, Alarm):
            raise Alarm(f"{error}; {clause}") from error
        print(f"posttrain: {terminal.clean(clause)}", file=sys.stderr, flush=True)
        raise
