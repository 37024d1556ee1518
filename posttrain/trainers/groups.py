"""Groups of completions of one prompt that say nothing: all of their rewards are equal.

TRL looks at the standard deviation, in which float32 leaves a residue: seven rewards of 12345.678 have a spread of 1e-3, and
after the division by it their advantages are of the order of 1, all noise. Here the rewards themselves are compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

PRECISION = 8 * torch.finfo(torch.float32).eps
"""Weighted sums that differ by less than this share of their terms are one number that was added up in another order."""


def flat(
    rewards: Tensor, weights: Tensor, size: int, apart: bool = False, clip: Sequence[float] | None = None
) -> Tensor:
    """Which groups have no spread of reward among their judged rows.

    Args:
        rewards: (groups x size, functions) before weights; a row of NaN was not judged.
        weights: (functions,).
        apart: each function is normalised by itself (`normalize_then_sum`), so that every one of them must be constant.
        clip: bounds of the weighted sum (RLOO's `reward_clip_range`).

    Returns:
        (groups,) bool; True also where fewer than two rows were judged.
    """
    judged = ~torch.isnan(rewards).all(dim=1)
    terms = torch.nan_to_num(rewards) * weights
    values = terms if apart else terms.sum(dim=1, keepdim=True)
    if clip is not None:
        values = values.clamp(min=clip[0], max=clip[1])
    scale = terms.abs() if apart else terms.abs().sum(dim=1, keepdim=True)
    there = judged.view(-1, size, 1)
    values, scale = values.view(-1, size, values.shape[1]), scale.view(-1, size, scale.shape[1])
    low = values.masked_fill(~there, torch.inf).amin(dim=1)
    high = values.masked_fill(~there, -torch.inf).amax(dim=1)
    largest = scale.masked_fill(~there, 0.0).amax(dim=1)
    return (high - low <= PRECISION * largest).all(dim=1)
