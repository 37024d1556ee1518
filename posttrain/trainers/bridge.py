"""Between TRL's call for completions and the rollout engine: TRL's `rollout_func`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from posttrain.errors import Mistake
from posttrain.trainers.follow import Follower
from posttrain.trainers.timing import Timer
from posttrain.trainers.tokens import Heard
from rollouts.records import (
    Ask,
    Completion,
    Engine,
    Progress,
    Rollout,
    Row,
    Sampling,
    Session,
    StaleRollout,
    Strategy,
)

RESERVED = frozenset({"prompt_ids", "completion_ids", "logprobs", "env_mask", "logprob_token_ids"})


def progress(trainer: Any) -> Progress:
    """Where a TRL trainer is, in rollout iterations.

    With u = steps_per_generation x num_iterations / gradient_accumulation_steps optimiser steps on one generation batch,
    s = global_step // u + 1 and S = ceil(max_steps / u). Where u is no whole number, the micro-steps that TRL counts tell
    apart the batches that are generated within one optimiser step.
    """
    args = trainer.args
    micro = args.steps_per_generation * trainer.num_iterations
    u = Fraction(micro, args.gradient_accumulation_steps)
    steps = math.ceil(trainer.state.max_steps / u)
    done = trainer.state.global_step // u if u.denominator == 1 else trainer._step // micro
    return Progress(min(int(done) + 1, steps), steps)


def _group(trainer: Any) -> int:
    return trainer.num_generations if trainer.model.training else trainer.num_generations_eval


@dataclass
class Bridge:
    """Answers a batch of prompts with rollouts of exactly the trainer's version.

    TRL hands `rollout_func` the prompts only, so the trainer leaves the whole rows in `rows` first.
    """

    engine: Engine
    strategy: Strategy
    sampling: Sampling
    tokenizer: Any
    run_seed: int
    follower: Follower
    timer: Timer
    template_kwargs: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    """The batch of this process as TRL's data loader gave it: every prompt repeated once a sample, in order."""
    made: list[Rollout] = field(default_factory=list)
    """The last batch's rollouts, for whoever records them."""
    sampled: dict[tuple[int, ...], list[Completion]] = field(default_factory=dict)
    """What the engine sampled for them: prompt ids -> completions."""
    asked: Callable[[int], None] | None = None
    """Called with the number of training completions before they are asked for."""

    def __call__(self, prompts: Sequence[Any], trainer: Any) -> dict[str, Any]:
        """TRL's contract: lists of `prompt_ids`, `completion_ids`, `logprobs`, an `env_mask` where some tokens are not
        the policy's, and every key of `Rollout.info` as a list for the rewards."""
        rollouts = self.roll(prompts, trainer)
        output: dict[str, Any] = {
            "prompt_ids": [r.prompt_ids for r in rollouts],
            "completion_ids": [r.completion_ids for r in rollouts],
            "logprobs": [r.logprobs for r in rollouts],
        }
        if any(0 in r.mask for r in rollouts):
            output["env_mask"] = [r.mask for r in rollouts]
        return output | self.told()

    def told(self) -> dict[str, list[Any]]:
        """What the strategy tells of the last batch (`Rollout.info`), a list a name: the rewards get it.

        Raises:
            Mistake: a name is that of a column, which would be overwritten for the rewards.
        """
        names = sorted({key for r in self.made for key in r.info} - RESERVED)
        columns = {name for row in self.rows for name in row}
        if taken := next((name for name in names if name in columns), None):
            raise Mistake(
                f"rollouts.strategy: tells {taken} of its rollouts, which is a column of the rows, too, and the rewards would get it in "
                f"place of that; rename the column with data.train.columns, or the strategy's {taken}"
            )
        return {name: [r.info.get(name) for r in self.made] for name in names}

    def roll(self, prompts: Sequence[Any], trainer: Any) -> list[Rollout]:
        """One rollout for each prompt of this process.

        Raises:
            StaleRollout: the engine answered with another version than the trainer's.
        """
        asks = self._asks(prompts, trainer)
        training = trainer.model.training
        heard = Heard(self.engine)
        session = Session(
            heard,
            self.tokenizer,
            self.sampling,
            self.run_seed,
            template_kwargs=self.template_kwargs,
            progress=progress(trainer) if training else None,
            group=_group(trainer),
            training=training,
        )
        with self.follower.serving(trainer) as version:
            if self.asked is not None and training:
                self.asked(len(asks))
            with self.timer("generation"):
                rollouts = self.strategy.run(asks, session)
        if len(rollouts) != len(asks):
            raise ValueError(f"the strategy returned {len(rollouts)} rollouts for {len(asks)} asks")
        rollouts = [rollout if rollout.completion_ids else self._filled(rollout) for rollout in rollouts]
        for ask, rollout in zip(asks, rollouts, strict=True):
            if rollout.version != version:
                raise StaleRollout(
                    f"row {ask.row.row_id}: made by version {rollout.version} of the policy, the trainer is at {version}"
                )
        self.made, self.sampled = rollouts, heard.sampled
        return rollouts

    def _filled(self, rollout: Rollout) -> Rollout:
        """TRL reads the last token of every completion: an empty one gets an EOS that is not the policy's."""
        eos = self.tokenizer.eos_token_id
        return replace(rollout, completion_ids=[eos], logprobs=[0.0], mask=[0])

    def _asks(self, prompts: Sequence[Any], trainer: Any) -> list[Ask]:
        group = _group(trainer)
        # A group may be spread over processes, which hold consecutive parts of the global batch.
        offset = trainer.accelerator.process_index * len(prompts)
        return [
            Ask(
                Row(
                    row_id=str(row.get("row_id", f"row-{offset + i}")),
                    prompt=prompt,
                    columns={k: v for k, v in row.items() if k not in ("prompt", "row_id")},
                ),
                sample=(offset + i) % group,
            )
            for i, (prompt, row) in enumerate(zip(prompts, self.rows, strict=True))
        ]
