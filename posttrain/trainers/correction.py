"""Importance weights for a sampler that is not quite the trainer.

With the trainer's log-probs `old` of the sampled tokens under the weights that made them, and the sampler's own `mu`,
the per-token ratio is w_t = exp(old_t - mu_t). `token_*` uses w_t, `sequence_*` the product over the sequence.
`geometric_mask` truncates w_t and drops whole sequences by the product's T-th root, which does not grow with the length
(Liu & Li 2025, "When speed kills stability"; the product's variance grows with T, so a bound on it unlearns long answers).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain.errors import Mistake

CLIP_MAX = {
    "token_truncate": 2.0,
    "token_mask": 2.0,
    "sequence_truncate": 3.0,
    "sequence_mask": 3.0,
    "geometric_mask": 1.05,
}


@dataclass(frozen=True)
class Correction:
    """A mode and its bounds; `weights` turns log-probs into factors of the policy loss."""

    mode: str
    clip_max: float
    clip_min: float | None = None

    @classmethod
    def of(cls, mode: str, clip_max: float | None, clip_min: float | None, same_numerics: bool) -> Correction | None:
        """The correction a recipe asks for; None = none is due.

        Raises:
            Mistake: the bounds are empty.
        """
        if mode == "auto":
            mode = "off" if same_numerics else "token_truncate"
        if mode == "off":
            return None
        upper = CLIP_MAX[mode] if clip_max is None else clip_max
        lower = 1.0 / upper if clip_min is None and mode == "geometric_mask" else clip_min
        if lower is not None and lower >= upper:
            raise Mistake(f"rollouts.correction: clip_min {lower:g} must be below clip_max {upper:g}")
        return cls(mode, upper, lower)

    def weights(self, old: Tensor, sampler: Tensor, mask: Tensor) -> Tensor:
        """Factors of the loss.

        Args:
            old: (N, T) trainer log-probs under the weights that made the rollouts, nats.
            sampler: (N, T) the sampler's; NaN where it gave none (that token's ratio is 1).
            mask: (N, T) 1 where the policy wrote a token that is trained on.

        Returns:
            (N, T) for the token modes and `geometric_mask`, (N, 1) for `sequence_*`; no gradient.
        """
        difference = torch.nan_to_num((old.detach() - sampler) * mask, nan=0.0)
        if self.mode == "geometric_mask":
            mean = difference.sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)
            token = difference.exp().clamp(max=CLIP_MAX["token_truncate"])
            return token.masked_fill(self._outside(mean.exp()), 0.0)
        if self.mode.startswith("sequence"):
            difference = difference.sum(-1, keepdim=True)
        ratio = difference.exp()
        if self.mode.endswith("truncate"):
            return ratio.clamp(min=self.clip_min, max=self.clip_max)
        return ratio.masked_fill(self._outside(ratio), 0.0)

    def _outside(self, ratio: Tensor) -> Tensor:
        outside = ratio > self.clip_max
        return outside if self.clip_min is None else outside | (ratio < self.clip_min)


def mismatch(old: Tensor, sampler: Tensor, weights: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Sums from which the mismatch metrics are made; add them over processes, then call `mismatch_metrics`.

    Shapes as in `Correction.weights`.
    """
    known = mask.bool() & ~torch.isnan(sampler)
    gap = (old - sampler)[known].abs().float()
    applied = (weights * mask if weights.shape[1] > 1 else weights)[mask.bool() if weights.shape[1] > 1 else ...]
    applied = applied.float().flatten()
    zero = old.new_zeros((), dtype=torch.float32)
    return {
        "gap": gap.sum() if gap.numel() else zero,
        "gap_count": zero + gap.numel(),
        "gap_max": gap.max() if gap.numel() else zero,
        "w": applied.sum(),
        "w2": applied.square().sum(),
        "w_count": zero + applied.numel(),
        "w_zero": (applied == 0).sum().float(),
    }


def mismatch_metrics(sums: dict[str, float]) -> dict[str, float]:
    """The `sampling/*` metrics: mean and largest |old - mu|, mean weight, share dropped, effective sample size.

    ESS = (mean w)^2 / mean w^2, a share of 1 (Kong 1992).
    """
    count = max(sums["w_count"], 1.0)
    mean, mean_square = sums["w"] / count, sums["w2"] / count
    return {
        "sampling/sampling_logp_difference/mean": sums["gap"] / max(sums["gap_count"], 1.0),
        "sampling/sampling_logp_difference/max": sums["gap_max"],
        "sampling/importance_sampling_ratio/mean": mean,
        "sampling/dropped": sums["w_zero"] / count,
        "sampling/ess": mean * mean / mean_square if mean_square > 0 else 0.0,
    }
