"""What SFT and DPO share: no rollouts while they train, but the same log, run directory and evaluation.

A mixin in front of a TRL trainer; it overrides `training_step`, to time it and to look at the loss, and what `Resumable` does.
"""

from __future__ import annotations

from typing import Any

from posttrain.trainers.follow import Follower
from posttrain.trainers.invariants import Invariants
from posttrain.trainers.log import callbacks, connect
from posttrain.trainers.parts import Parts
from posttrain.trainers.state import Resumable


class Offline(Resumable):
    """Shared by the trainers that learn from a fixed data set."""

    parts: Parts
    invariants: Invariants | None = None

    @classmethod
    def build(cls, parts: Parts) -> Any:
        """A trainer of `parts`, ready to train."""
        trainer = cls(
            model=parts.model,
            args=cls.Config(**parts.arguments),
            train_dataset=parts.train,
            eval_dataset=parts.eval,
            processing_class=parts.tokenizer,
            peft_config=parts.peft_config,
            callbacks=[*callbacks(parts), *parts.callbacks],
        )
        trainer.parts = parts
        trainer.make_resumable()
        connect(trainer, parts)
        if parts.engine is not None:
            parts.follower = Follower(parts.engine, parts.run, parts.timer)
        if parts.invariants:
            trainer.invariants = Invariants(trainer, parts, online=False)
            trainer.add_callback(trainer.invariants)
            if parts.follower is not None:
                parts.follower.synced = trainer.invariants.synced
            trainer.stateful["invariants"] = trainer.invariants
        trainer.settled()
        return trainer

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        with self.parts.timer("training"):
            loss = super().training_step(*args, **kwargs)
        if self.invariants is not None:
            self.invariants.loss(loss)
        return loss
