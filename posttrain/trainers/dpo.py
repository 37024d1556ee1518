"""DPO: TRL's `DPOTrainer` in our frame. Rows: `prompt`, `chosen`, `rejected`.

TRL's losses of pairs are means over pairs, which the cut of a step into micro-batches does not change, but for `sft`: a mean
over the chosen tokens of a micro-batch. Here it is the mean over those of the step, on all processes (`get_batch_samples`
counts them, `_compute_loss` puts the term right). `aot` and `aot_unpaired` sort the pairs of a micro-batch; a recipe may not
accumulate over them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from trl import DPOConfig, DPOTrainer

from posttrain.trainers.offline import Offline
from posttrain.trainers.parts import Parts
from posttrain.trainers.reference import anchor


class DPO(Offline, DPOTrainer):
    """Direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290) and TRL's other pair losses."""

    Config = DPOConfig
    _chosen_tokens: Tensor | None = None
    """Of the micro-batches of this optimiser step, on all processes; no shape."""

    @classmethod
    def build(cls, parts: Parts) -> Any:
        """A trainer of `parts`, ready to train."""
        trainer = super().build(parts)
        anchor(trainer, parts)
        return trainer

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        samples, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if "sft" in self.loss_types:
            mine = sum(int(_chosen(batch["completion_mask"]).sum()) for batch in samples)
            count = torch.tensor(float(mine), device=device)
            self._chosen_tokens = self.accelerator.reduce(count, reduction="sum")
        return samples, items

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        steps, processes = self.current_gradient_accumulation_steps, self.accelerator.num_processes
        if "sft" not in self.loss_types or not self.model.training or steps == processes == 1:
            return super()._compute_loss(model, inputs, return_outputs)
        seen = []

        def listening(*args: Any, **kwargs: Any) -> Any:
            seen.append(model(*args, **kwargs))
            return seen[-1]

        mask = _chosen(inputs["completion_mask"])
        loss = super()._compute_loss(listening, inputs, return_outputs)
        logps = seen[0].log_probs[:, -mask.shape[1] :].chunk(2, dim=0)[0]
        total = -(logps * mask).sum()
        # The trainer divides by `steps`, and averages over processes.
        wanted = total * steps * processes / self._chosen_tokens.clamp(min=1.0)
        weight = sum(w for name, w in zip(self.loss_types, self.loss_weights, strict=True) if name == "sft")
        right = weight * (wanted - total / mask.sum().clamp(min=1))
        return (loss[0] + right, loss[1]) if return_outputs else loss + right


def _chosen(completion_mask: Tensor) -> Tensor:
    """The tokens of the chosen answers, as predicted: (pairs, T - 1). A batch is all chosen, then all rejected ones."""
    return completion_mask[..., 1:].chunk(2, dim=0)[0]
