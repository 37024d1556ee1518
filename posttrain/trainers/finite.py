"""Numbers that are no numbers, found where they arise: TRL and transformers go on with them (TRL turns the advantages of
a group with an infinite reward into zeros, transformers leaves such losses out of the logged mean)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

FLOAT32 = torch.finfo(torch.float32)
LARGEST_REWARD = math.sqrt(FLOAT32.max)
"""About 1.8e19. TRL holds rewards in float32 and squares them for the spread of a group."""


def reward_fault(scores: Sequence[Mapping[str, float | None]], weights: Sequence[float]) -> tuple[int, str] | None:
    """The first row whose reward TRL could not reckon with, and why. A row that was not judged has none."""
    for i, row in enumerate(scores):
        if None in row.values():
            continue
        total = sum(w * s for w, s in zip(weights, row.values(), strict=True))
        for name, value in [*row.items(), ("the weighted sum", total)]:
            if not math.isfinite(value) or abs(value) > LARGEST_REWARD:
                return i, f"{name} is {value:g}; rewards must stay within ±{LARGEST_REWARD:.1e}"
    return None


def batch_fault(output: Mapping[str, Any]) -> tuple[int, str] | None:
    """The first row of TRL's batch with an advantage, or a log-prob of a token in the loss, that is no number.

    Args:
        output: `advantages` (N,) or (N, T); `old_per_token_logps`, `ref_per_token_logps` (N, T) or `old_logps` (N,), as
            far as they are there; the masks (N, T).
    """
    advantages = output["advantages"]
    # An infinite advantage leaves TRL as the largest float.
    if (row := _first_row(~(advantages.abs() < FLOAT32.max / 2))) is not None:
        return row, f"its advantage is {advantages[row].flatten()[0].item():g}"
    mask = output["completion_mask"].bool()
    for key, told in (
        ("old_per_token_logps", "the trainer's log-probs of it are no finite numbers"),
        ("old_logps", "the trainer's log-prob of it is no finite number"),
        ("ref_per_token_logps", "the reference model's log-probs of it are no finite numbers"),
    ):
        values = output.get(key)
        if values is None:
            continue
        wrong = ~torch.isfinite(values)
        if (row := _first_row(wrong & mask if values.dim() > 1 else wrong)) is not None:
            return row, told
    return None


def gradient_norm(parameters: Sequence[Any]) -> Tensor:
    """Norm of the gradients of this process (before the optimiser uses them); finite iff each of them is. No shape."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients) if gradients else torch.zeros(())
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


def _first_row(wrong: Tensor) -> int | None:
    rows = wrong if wrong.dim() == 1 else wrong.any(dim=1)
    return int(rows.nonzero()[0]) if bool(rows.any()) else None
