"""Keeping an engine at the trainer's version: adapter sync.

Only the adapter travels. Nothing is ever merged into the base weights, so the frozen base cannot drift (TRL merges into
it and takes it out again at each step, which in bf16 changes it for good).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from trl.distributed import DistributedBackend
from trl.models.utils import unwrap_model_for_generation

from posttrain import adapters
from posttrain.errors import Mistake
from posttrain.rundir import RunDir
from rollouts.records import Engine, Policy

KEEP_VERSIONS = 2


class Follower:
    """Gives `engine` the trainer's weights whenever they have changed. Every process calls `follow` together."""

    def __init__(self, engine: Engine, run: RunDir, timer: Callable[[str], AbstractContextManager[None]]):
        self.engine = engine
        self.run = run
        self.timer = timer
        self.synced: Callable[[Any, int], None] | None = None
        """Called with the trainer and the version after every sync, by every process."""
        self._served: int | None = None
        self._lent: Any = None
        self._serving: ExitStack | None = None
        """Ends what was lent."""

    def forget(self) -> None:
        """The engine's weights are taken to be unknown: the next `follow` gives it the trainer's, whatever their version."""
        self._served = None

    def follow(self, trainer: Any) -> int:
        """The version (optimiser steps taken) that the engine now serves.

        Raises:
            Mistake: the engine needs files and this way of training cannot give them.
        """
        version = int(trainer.state.global_step)
        if version == self._served:
            return version
        with self.timer("sync"):
            policy = Policy(version, borrow=lambda: self.lend(trainer))
            if not self.engine.same_numerics:
                policy = self._saved(trainer, version)
            main = trainer.accelerator.is_main_process
            if not self.engine.shared:
                self.engine.sync(policy)
            else:
                if main:
                    self.engine.sync(policy)
                trainer.accelerator.wait_for_everyone()
                if not main:
                    self.engine.sync(policy, publish=False)
            self._served = version
            if main:
                self._rotate(version)
            if self.synced is not None:
                self.synced(trainer, version)
        return version

    @contextmanager
    def serving(self, trainer: Any) -> Iterator[int]:
        """`follow`, for as long as the engine is asked: one that samples with the trainer's own module is lent it once for
        all that."""
        with ExitStack() as stack:
            if self.engine.same_numerics:
                self._serving = stack
                stack.callback(setattr, self, "_serving", None)
            yield self.follow(trainer)

    @contextmanager
    def lend(self, trainer: Any) -> Iterator[Any]:
        """The live module, gathered if it is sharded, in evaluation mode, gradient checkpointing off. Inside, it can be lent again
        at no cost."""
        if self._lent is not None:
            yield self._lent
            return
        with ExitStack() as alone:
            stack = self._serving or alone
            self._lent = stack.enter_context(_lend(trainer))
            stack.callback(setattr, self, "_lent", None)
            yield self._lent

    def _saved(self, trainer: Any, version: int) -> Policy:
        model = trainer.accelerator.unwrap_model(trainer.model_wrapped)
        target = self.run.adapter_version(version)
        if adapters.is_peft(model):
            adapters.save(model, target, trainer.accelerator)
            return Policy(version, adapter_dir=str(target.resolve()))
        if trainer.accelerator.num_processes > 1:
            raise Mistake(
                "rollouts.engine: full fine-tuning on several processes cannot follow the policy through files yet; "
                "give the recipe an `adapter`, or use engine: transformers"
            )
        adapters.save_whole(model, trainer.processing_class, target)
        return Policy(version, state_dir=str(target.resolve()))

    def _rotate(self, newest: int) -> None:
        versions = sorted(self.run.adapters.glob("v[0-9]*"))
        for old in versions[:-KEEP_VERSIONS]:
            if int(old.name[1:]) < newest:
                shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _lend(trainer: Any) -> Iterator[Any]:
    with (
        unwrap_model_for_generation(
            trainer.model_wrapped,
            trainer.accelerator,
            gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs,
        ) as model,
        DistributedBackend(trainer.accelerator).summon_full_params(trainer.model_wrapped, recurse=False),
        torch.no_grad(),
    ):
        training = model.training
        model.eval()
        try:
            yield model
        finally:
            model.train(training)
