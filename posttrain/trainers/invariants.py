"""What must hold while a run goes on, and the line with which a run ends when it does not.

A trainer reports what it does (`generated`, `consumes`, `loss`), transformers' callbacks say when a step begins and ends,
and the follower says when the engine has new weights. Findings are settled between processes where all of them pass, so
that all end together instead of waiting for the one that found something.

| name | when | what |
|---|---|---|
| tokens | each generation, each micro-batch | what is trained on is what the engine sampled |
| ledger | each optimiser step | completions issued = finished = trained + dropped + waiting |
| finite | each generation, each optimiser step | rewards, advantages, log-probs, loss, gradient |
| parity | each sync | the engine's log-probs are the trainer's |
| seeds | the first sync of an online run | one seed repeats, another differs |
| frozen | start, before each checkpoint, end | the weights that nothing trains |
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, gather_object
from transformers import TrainerCallback

from posttrain.errors import Alarm
from posttrain.trainers import draws, finite, parity, tokens
from posttrain.trainers.frozen import Frozen
from posttrain.trainers.ledger import TICKET, Ledger, Sample
from posttrain.trainers.parity import Parity
from posttrain.trainers.timing import Meter
from rollouts.prompts import encode
from rollouts.records import Rollout
from rollouts.seeds import derive

SKIPPED_IN_A_ROW = 20
"""float16's loss scaling halves its factor at each overflow: from 65536 it is below 1 after 17."""

MENDS = {
    "tokens": "let the strategy mark (mask 1) only tokens that session.engine sampled, and change no ids after that",
    "ledger": "take out what changes the trainer's batches; the run can go on from its last checkpoint",
    "rewards": "bound the reward function",
    "numbers": "lower trainer.args.learning_rate, or use model.dtype float32 or bfloat16; remove checkpoints that have diverged already",
    "parity": "compare what the engine serves with the recipe (model.name, model.revision, model.dtype, adapter); "
    "watch.parity sets the limit",
    "seeds": "mend the engine (rollouts.engine): each request's seed alone must decide what is drawn",
    "frozen": "take out what writes into the base model (a merged adapter, a callback), and remove checkpoints younger than "
    "that step: they were trained on the changed weights",
}


class Invariants(TrainerCallback):
    """The checks of one trainer; `online`: it samples while it trains. `seconds` holds what each check has cost."""

    def __init__(self, trainer: Any, parts: Any, online: bool):
        self.trainer = trainer
        self.parts = parts
        self.seconds = Meter()
        self.frozen = Frozen()
        self.parity = _parity(trainer, parts)
        self.online = online
        self.ledger = Ledger(getattr(trainer, "num_iterations", 1))
        self._probed = not online
        self._found: tuple[str, str] | None = None
        self._due = 0
        self._in_loss: Any = 0
        self._now: list[int] = []
        self._skipped = 0

    # -- what the trainer reports -----------------------------------------------------------------------------------

    def asked(self, count: int) -> None:
        """`count` training completions are asked for."""
        self.ledger.issue(count)

    def generated(
        self, output: dict[str, Any], rollouts: Sequence[Rollout], sampled: dict[Any, Any], scorer: Any, training: bool
    ) -> None:
        """TRL has made a batch of `rollouts`: compare the two, and give every row its ticket.

        Raises:
            Alarm: the batch is not what was sampled, or holds what is no number.
        """
        with self.seconds("tokens"):
            for rollout in rollouts:
                if wrong := tokens.untrue(rollout, sampled):
                    self._note("tokens", f"row {rollout.row_id}, sample {rollout.sample}: {wrong}")
                    break
            if found := tokens.unlike(output, rollouts):
                self._note("tokens", f"{_of(rollouts, found[0])}: {found[1]}")
        with self.seconds("finite"):
            if found := finite.reward_fault(scorer.scores, self.trainer.reward_weights.tolist()):
                self._note("rewards", f"{_of(rollouts, found[0])}: {found[1]}")
            elif found := finite.batch_fault(output):
                self._note("numbers", f"{_of(rollouts, found[0])}: {found[1]}")
        if training:
            with self.seconds("ledger"):
                self._enter(output, rollouts, scorer)
        self._settle()

    def _enter(self, output: dict[str, Any], rollouts: Sequence[Rollout], scorer: Any) -> None:
        live = output["completion_mask"].any(dim=1).tolist()
        samples = [
            Sample(
                row_id=rollout.row_id,
                sample=rollout.sample,
                version=rollout.version,
                tokens=sum(rollout.mask),
                left_out="masked" if not alive else "unjudged" if None in scores.values() else None,
            )
            for rollout, alive, scores in zip(rollouts, live, scorer.scores, strict=True)
        ]
        tickets, wrong = self.ledger.finish(samples)
        if wrong:
            self._note("ledger", wrong)
        output[TICKET] = torch.tensor(tickets)

    def consumes(self, inputs: dict[str, Any]) -> None:
        """A training pass over this micro-batch begins."""
        with self.seconds("ledger"):
            self._now = inputs[TICKET].tolist()
            due, wrong = self.ledger.consume(self._now)
            if wrong:
                self._note("ledger", wrong)
        with self.seconds("tokens"):
            self._due += due
            self._in_loss = self._in_loss + tokens.in_the_loss(inputs)

    def loss(self, value: Any) -> None:
        """The loss of a micro-batch."""
        with self.seconds("finite"):
            if not bool(torch.isfinite(value)):
                rows = self.ledger.names(self._now)
                self._note("numbers", f"the loss is {value.item():g}{f', of {rows}' if rows else ''}")

    # -- when ---------------------------------------------------------------------------------------------------------

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        with self.seconds("frozen"):
            if wrong := self.frozen.take(self.trainer):
                self._note("frozen", wrong)
        if self.online and (wrong := self._imbalance()):
            self._note("ledger", wrong)
        self._settle()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        with self.seconds("tokens"):
            if self.online and (seen := int(self._in_loss)) != self._due:
                self._note("tokens", f"{seen} tokens are in the loss of this step, {self._due} were sampled for it")
            self._due, self._in_loss = 0, 0
        with self.seconds("finite"):
            # With float16, overflow is how the loss scale is found: such a step is skipped.
            if self.trainer.accelerator.scaler is None:
                trained = [p for p in self.trainer.model.parameters() if p.requires_grad]
                norm = finite.gradient_norm(trained).item()
                if not np.isfinite(norm):
                    self._note("numbers", "the gradient is not finite")
        self._settle()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        skipped = self.trainer.accelerator.optimizer_step_was_skipped
        self._skipped = self._skipped + 1 if skipped else 0
        if self._skipped >= SKIPPED_IN_A_ROW:
            self._note(
                "numbers", f"{self._skipped} steps in a row were skipped because the gradient overflowed float16"
            )
        with self.seconds("ledger"):
            if self.online:
                self.ledger.commit(applied=not skipped)
                if wrong := self._imbalance():
                    self._note("ledger", wrong)
        if control.should_save:  # before it is written: a checkpoint of a run gone wrong is worse than none
            self._check_frozen()
        self._settle()
        self._measure(control.should_log)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        norm = (logs or {}).get("grad_norm")
        if norm is not None and not np.isfinite(norm) and self.trainer.accelerator.scaler is None:
            # Each gradient is finite and their norm is not: clipping has made all of them 0.
            self._note("numbers", f"the norm of the gradient is {norm:g}")
            self._settle()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._check_frozen()
        self._settle()

    def synced(self, trainer: Any, version: int) -> None:
        """The engine has just been given the trainer's weights. Every process calls this together.

        Raises:
            Alarm: it serves something else, or does not draw by its seeds.
        """
        if self.parity is None:
            return
        engine = self.parts.engine
        main = trainer.accelerator.is_main_process
        with self.seconds("parity"), _randomness_kept(), self.parts.follower.lend(trainer) as model:
            answer = [self.parity.ask() if main or not engine.shared else None]
            if engine.shared:
                broadcast_object_list(answer)
            now_and_then = version & (version - 1) == 0  # versions 0, 1, 2, 4, 8, ...: to know what the check can see
            gap = self.parity.compare(model, *answer[0], lambda doubt: self._any(doubt) or now_and_then)
            if wrong := self.parity.judge(gap):
                self._note(
                    "parity", f"the engine ({type(engine).__name__}) after the sync of version {version}: {wrong}"
                )
        if not self._probed:
            self._probed = True
            if main or not engine.shared:
                with self.seconds("seeds"), _randomness_kept():
                    seed = self.parts.recipe.run.seed
                    if wrong := draws.probe(engine, self.parity.prompt, self.parts.sampling, seed):
                        self._note("seeds", f"the engine ({type(engine).__name__}): {wrong}")
        self._settle()

    # -- findings -----------------------------------------------------------------------------------------------------

    def _note(self, name: str, text: str) -> None:
        self._found = self._found or (name, text)

    def _settle(self) -> None:
        """All processes come here together, and all stop if one has found something.

        Raises:
            Alarm: one has.
        """
        accelerator = self.trainer.accelerator
        found = self._found
        if accelerator.num_processes > 1:
            with self.seconds("settling"):
                if not self._any(found is not None):
                    return
                each = gather_object([found])
            rank, found = next((i, f) for i, f in enumerate(each) if f is not None)
            where = f" on process {rank}"
        else:
            where = ""
        if found is not None:
            name, text = found
            raise Alarm(
                f"invariant {name} broken{where} at step {self.trainer.state.global_step}: {text}; {MENDS[name]}"
            )

    def _any(self, mine: bool) -> bool:
        """True on all processes if it is on one."""
        accelerator = self.trainer.accelerator
        if accelerator.num_processes == 1:
            return mine
        flag = torch.tensor([float(mine)], device=accelerator.device)
        return bool(accelerator.reduce(flag, reduction="sum").any())

    def _imbalance(self) -> str | None:
        trainer = self.trainer
        held = [batch[TICKET].tolist() for batch in trainer._buffered_inputs or [] if TICKET in batch]
        return self.ledger.imbalance(trainer._step, trainer.args.steps_per_generation, held)

    def _check_frozen(self) -> None:
        with self.seconds("frozen"):
            if wrong := self.frozen.check(int(self.trainer.state.global_step)):
                self._note("frozen", wrong)

    def _measure(self, due: bool) -> None:
        """Hand the numbers to TRL's own metrics. Those of the ledger are totals, so a list of one is no mean."""
        if not due:
            return
        metrics = self.trainer._metrics["train"]
        with self.seconds("ledger"):
            if self.online:
                book = self.ledger
                mine = [book.issued, book.finished, book.trained, sum(book.dropped.values()), book.waiting,
                        book.sampled_tokens, book.trained_tokens]  # fmt: skip
                accelerator = self.trainer.accelerator
                if accelerator.num_processes > 1:
                    total = torch.tensor(mine, dtype=torch.int64, device=accelerator.device)
                    mine = accelerator.reduce(total, reduction="sum").tolist()
                for name, value in zip(NAMES, mine, strict=True):
                    metrics[f"ledger/{name}"] = [value]
        if self.parity is not None and self.parity.last is not None:
            metrics["parity/gap"] = [self.parity.last.engine]
            if self.parity.effect is not None:
                metrics["parity/effect"] = [self.parity.effect]

    # -- state --------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Plain data (JSON). Call it between two optimiser steps."""
        return {
            "ledger": self.ledger.state_dict(),
            "frozen": self.frozen.state_dict(),
            "parity": None if self.parity is None else self.parity.state_dict(),
            "skipped": self._skipped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.ledger.load_state_dict(state["ledger"])
        self.frozen.load_state_dict(state["frozen"])
        if self.parity is not None and state["parity"] is not None:
            self.parity.load_state_dict(state["parity"])
        self._skipped = int(state["skipped"])


NAMES = ("issued", "finished", "trained", "dropped", "waiting", "sampled_tokens", "trained_tokens")


def _of(rollouts: Sequence[Rollout], row: int) -> str:
    return f"row {rollouts[row].row_id}, sample {rollouts[row].sample}"


def _parity(trainer: Any, parts: Any) -> Parity | None:
    """None where there is no engine, or no prompt to ask it."""
    prompt = _first_prompt(parts)
    if parts.engine is None or prompt is None:
        return None
    recipe, args = parts.recipe, trainer.args
    coarser = "bfloat16" if getattr(args, "bf16", False) else "float16" if getattr(args, "fp16", False) else None
    dtype = coarser or recipe.model.dtype
    ids = encode(parts.tokenizer, prompt, **dict(recipe.model.template_args))[: parity.PROMPT_TOKENS]
    usual = parity.tolerance(dtype, parts.engine.same_numerics)
    limit = usual if recipe.watch.parity is None else recipe.watch.parity
    return Parity(parts.engine, ids, derive(recipe.run.seed, "parity"), limit, rounding=usual / 10)


def _first_prompt(parts: Any) -> Any:
    """Of the first row of the data; `messages` of supervised data end with an answer, which is left out."""
    row = next(iter(parts.train), None) or {}
    if row.get("prompt"):
        return row["prompt"]
    messages = row.get("messages")
    return messages[:-1] or None if messages else None


@contextmanager
def _randomness_kept() -> Iterator[None]:
    """The trainer's random streams are where they were, whatever an engine does."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[torch.cuda.current_device()] if torch.cuda.is_available() else []):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
