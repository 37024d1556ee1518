"""What a trainer does about rollouts that were drawn under another prompt than its loss has (`Rollout.seen_ids`).

The loss itself needs nothing: the bridge hands on `prompt_ids`, the prompt alone. Here is what looks at both: the batch for the
correction's extra forward, and the numbers that say how far the two prompts are apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rollouts.records import Rollout

LEVEL = "scaffold_level"
"""Key in a batch: i = 1..G of a sample in its group where it was scaffolded, else 0; shape (N,)."""


def shows_more(strategy: Any) -> bool:
    """True if samples of this strategy are drawn under prompts that the loss does not have."""
    return bool(getattr(strategy, "shows_more", False))


def tells(strategy: Any) -> bool:
    """True if there are scaffolds to be measured, in the loss or not."""
    return shows_more(strategy) or callable(getattr(strategy, "longest", None))


def levels(rollouts: Sequence[Rollout]) -> Tensor:
    """`LEVEL` of each rollout, (N,)."""
    return torch.tensor([0 if r.seen_ids is None else r.sample + 1 for r in rollouts])


def seen_batch(rollouts: Sequence[Rollout], pad_id: int, device: Any) -> tuple[Tensor, Tensor]:
    """Ids and mask, (N, P), of the prompts that the engine saw, padded left as TRL pads prompts."""
    width = max(len(r.asked_ids) for r in rollouts)
    ids = torch.full((len(rollouts), width), pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, r in enumerate(rollouts):
        ids[i, width - len(r.asked_ids) :] = torch.tensor(r.asked_ids, dtype=torch.long)
        mask[i, width - len(r.asked_ids) :] = 1
    return ids.to(device), mask.to(device)


def drop_negative(advantages: Tensor, rollouts: Sequence[Rollout]) -> None:
    """Zero, in place, the advantages below 0 of scaffolded rollouts; shape (N,). Tokens that only the scaffold made likely are
    then not pushed further down."""
    scaffolded = (levels(rollouts) > 0).to(advantages.device)
    advantages[scaffolded & (advantages < 0)] = 0.0


def sums(rollouts: Sequence[Rollout], advantages: Tensor, group: int) -> Tensor:
    """What `metrics` is made of, to be added over processes: shape (G + 1, 6), float64.

    Row i < G holds, of the samples i + 1 of their groups: count, sum of advantages; the last row, of all rollouts: count, how
    many were scaffolded, sum of their ratios, sum of their scaffold's tokens, how many were looked at for leaks, how many leak.
    """
    total = torch.zeros(group + 1, 6, dtype=torch.float64)
    for rollout, advantage in zip(rollouts, advantages.tolist(), strict=True):
        info = rollout.info
        total[rollout.sample % group, :2] += torch.tensor([1.0, advantage], dtype=torch.float64)
        seen = float(bool(info.get("scaffold_shown")))
        ratio, tokens = float(info.get("scaffold_ratio", 0.0)), float(info.get("scaffold_tokens", 0))
        leak = info.get("scaffold_leak")
        row = [1.0, seen, ratio, tokens, float(leak is not None), float(bool(leak))]
        total[group] += torch.tensor(row, dtype=torch.float64)
    return total


def metrics(total: Tensor) -> dict[str, float]:
    """`scaffold/*` of a batch from the `sums` of all processes."""
    *by_sample, (count, seen, ratio, tokens, looked_at, leaked) = total.tolist()
    found = {"scaffold/shown": seen / count, "scaffold/ratio": ratio / count, "scaffold/tokens": tokens / count}
    if looked_at:
        found["scaffold/leak"] = leaked / looked_at
    for i, (n, advantage, *_) in enumerate(by_sample, 1):
        if n:
            found[f"scaffold/advantage/{i}"] = advantage / n
    return found


def gap_sums(inputs: dict[str, Any], logps: Tensor, group: int) -> Tensor:
    """Of a micro-batch, per level: tokens and the sum of ln mu(o|q,R_S) - ln pi_old(o|q) over them; (G, 2), to be added over
    processes.

    Args:
        inputs: TRL's micro-batch, with `LEVEL` and `sampling_per_token_logps`.
        logps: (N, T) of the policy under the prompt of the loss; TRL's old log-probs are taken instead where it has them.
    """
    mask = inputs["completion_mask"] * inputs.get("tool_mask", 1)
    old = inputs.get("old_per_token_logps")
    gap = (inputs["sampling_per_token_logps"] - (logps if old is None else old)).detach()
    known = mask.bool() & ~torch.isnan(gap)
    total = gap.new_zeros(group, 2, dtype=torch.float32)
    for i in range(group):
        mine = known & (inputs[LEVEL] == i + 1)[:, None]
        total[i, 0] = mine.sum()
        total[i, 1] = gap[mine].float().sum()
    return total


def gap_metrics(total: Tensor) -> dict[str, float]:
    """`scaffold/gap/<i>` of the levels that have tokens."""
    return {f"scaffold/gap/{i}": s / n for i, (n, s) in enumerate(total.tolist(), 1) if n}
