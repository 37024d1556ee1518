"""One gradient, in however many micro-batches an optimiser step is computed.

TRL's losses are sums over rows or tokens with a divisor that the cut does not change, but for three terms that look at one
micro-batch alone. Here they look at all micro-batches of the step, on all processes:

- loss type `bnpo` divides by the tokens of the step (TRL: by those of each micro-batch, so that a row's weight depends on
  its neighbours); in one micro-batch on one process the two are the same;
- `top_entropy_quantile` takes the quantile over the tokens of the step (at the cost of a pass without gradient);
- the entropy bonus is the mean over the tokens of the step.

The balancing loss of a mixture of experts (`router_aux_loss_coef`) is not linear in the batch and stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from posttrain.errors import Mistake

NO_ENTROPY = -1e9
"""Fills up what processes exchange; an entropy is at least 0."""


@dataclass
class Window:
    """The micro-batches of one optimiser step, over all processes."""

    tokens: Tensor
    """Under the loss mask; no shape."""
    threshold: Tensor | None
    """Least entropy of a token that the policy loss sees (nats); None = all are seen."""
    seen: Tensor
    """Tokens that the policy loss sees; no shape."""


class WholeStep:
    """A mixin in front of TRL's `GRPOTrainer`. It overrides `_compute_loss`, `get_high_entropy_mask`, and
    `_get_per_token_logps_and_entropies` to keep the entropies of the micro-batch that is being trained on."""

    _window: Window | None = None
    _entropies: Tensor | None = None
    _by_tokens: bool = False
    _whole: bool = False
    """Some term needs the whole step. Until `look_at_whole_steps` has said so, every loss is TRL's."""

    def look_at_whole_steps(self) -> None:
        """Called once, after TRL's constructor.

        Raises:
            Mistake: a term needs the whole step, and a generation batch does not hold whole steps.
        """
        args = self.args
        self._by_tokens = self.loss_type == "bnpo"
        named = [
            name
            for name, on in (
                ("loss_type: bnpo", self._by_tokens),
                ("top_entropy_quantile", self.top_entropy_quantile < 1.0),
                ("entropy_coef", self._entropy_bonus_enabled),
            )
            if on
        ]
        self._whole = bool(named)
        if named and args.steps_per_generation % args.gradient_accumulation_steps:
            raise Mistake(
                f"trainer.args.steps_per_generation: {args.steps_per_generation} is no multiple of "
                f"gradient_accumulation_steps {args.gradient_accumulation_steps}, so a generation batch does not hold whole "
                f"optimiser steps, whose tokens {' and '.join(named)} must count; use a multiple"
                + (", or loss_type: dapo" if named == ["loss_type: bnpo"] else "")
            )
        if self._by_tokens:
            self.loss_type = "dapo"  # the same sum, divided by `num_items_in_batch`, which is set below

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        if not self._whole or not self.model.training:
            return super()._compute_loss(model, inputs)
        steps, every = self.args.gradient_accumulation_steps, self.args.steps_per_generation
        if self._window is None or self._step % steps == 0:
            self._window = self._look(model, steps, every)
        if self._by_tokens:
            inputs = {**inputs, "num_items_in_batch": self._window.tokens * every / steps}
        coefficient = self._coefficient() if self._entropy_bonus_enabled else 0.0
        loss = super()._compute_loss(model, inputs)
        if coefficient:
            loss = loss + coefficient * self._misplaced_bonus(inputs, self._window, steps)
        self._entropies = None
        return loss

    def get_high_entropy_mask(self, entropies: Tensor, mask: Tensor, threshold: float) -> Tensor:
        if self._window is None or self._window.threshold is None or not self.model.training:
            return super().get_high_entropy_mask(entropies, mask, threshold)
        return (entropies >= self._window.threshold) & mask.bool()

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        made = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        if torch.is_grad_enabled():
            self._entropies = made[1]
        return made

    def _look(self, model: Any, steps: int, every: int) -> Window:
        at = self._step % every
        batches = self._buffered_inputs[at - at % steps :][:steps]
        masks = [_mask(batch) for batch in batches]
        tokens = torch.stack([mask.sum() for mask in masks]).sum()
        tokens = self.accelerator.reduce(tokens.float(), reduction="sum")
        if self.top_entropy_quantile >= 1.0:
            return Window(tokens, None, tokens)
        found = []
        with torch.no_grad():
            for batch, mask in zip(batches, masks, strict=True):
                _, entropies, _ = self._get_per_token_logps_and_entropies(
                    model,
                    torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
                    torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
                    batch["completion_ids"].size(1),
                    compute_entropy=True,
                )
                found.append(entropies[mask.bool()].float())
        mine = self.accelerator.pad_across_processes(torch.cat(found), dim=0, pad_index=NO_ENTROPY)
        all_of_them = self.accelerator.gather(mine)
        all_of_them = all_of_them[all_of_them != NO_ENTROPY]
        if not all_of_them.numel():
            return Window(tokens, tokens.new_zeros(()), tokens)
        threshold = torch.quantile(all_of_them, 1 - self.top_entropy_quantile)
        return Window(tokens, threshold, (all_of_them >= threshold).sum())

    def _coefficient(self) -> float:
        """Of the entropy bonus in this step, as TRL is about to apply it."""
        if self.use_adaptive_entropy and self._last_world_entropy > self.args.entropy_target:
            return 0.0
        return self.entropy_coef

    def _misplaced_bonus(self, inputs: dict[str, Any], window: Window, steps: int) -> Tensor | float:
        """What TRL's bonus (mean over the micro-batch, over `steps`) has too much of, against the mean over the step."""
        processes = self.accelerator.num_processes
        if steps == processes == 1:
            return 0.0
        mask, entropies = _mask(inputs), self._entropies
        if window.threshold is not None:
            mask = mask * (entropies >= window.threshold)
        total = (entropies * mask).sum()
        return total / mask.sum().clamp(min=1.0) / steps - total * processes / window.seen.clamp(min=1.0)


def _mask(inputs: dict[str, Any]) -> Tensor:
    mask = inputs["completion_mask"]
    return mask * inputs["tool_mask"] if "tool_mask" in inputs else mask
