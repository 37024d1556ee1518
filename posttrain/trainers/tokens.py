"""Trained tokens == sampled tokens, compared at two seams: engine to rollouts, and rollouts to TRL's batch.

No text is compared, and nothing is encoded again: ids only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rollouts.records import Completion, Engine, Policy, Rollout, Sampling


class Heard:
    """An engine that is listened to: every call goes on to it, and what it sampled after which prompt is noted."""

    def __init__(self, engine: Engine):
        self.engine = engine
        self.sampled: dict[tuple[int, ...], list[Completion]] = defaultdict(list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def generate(
        self, prompt_ids: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        made = self.engine.generate(prompt_ids, sampling, seeds)
        for ids, completion in zip(prompt_ids, made, strict=True):
            self.sampled[tuple(ids)].append(completion)
        return made

    def sync(self, policy: Policy, *, publish: bool = True) -> None:
        self.engine.sync(policy, publish=publish)

    def close(self) -> None:
        self.engine.close()


def untrue(rollout: Rollout, sampled: dict[tuple[int, ...], list[Completion]]) -> str | None:
    """What is wrong with a rollout: every token under mask 1 must have been sampled after exactly the tokens before it
    (`Rollout.seen_ids` where the engine was shown another prompt), and carry the sampler's own log-prob. A strategy may cut a completion short (and ask on from there), and write tokens of
    its own under mask 0.
    """
    ids, mask, values = rollout.completion_ids, rollout.mask, rollout.logprobs
    if not ids or not len(ids) == len(mask) == len(values):
        return f"it has {len(ids)} tokens, {len(mask)} mask entries and {len(values)} log-probs"
    asked = rollout.asked_ids
    for made in sampled.get(tuple(asked), ()):
        if made.ids == ids and made.logprobs == values and 0 not in mask:
            return None
    end = len(ids)
    asked_at = {len(prompt) - len(asked) for prompt in sampled}
    reached, furthest, todo = set(), 0, [0]
    while todo:
        at = todo.pop()
        while at < end and not mask[at]:
            at += 1
        if at == end:
            return None
        if at in reached:
            continue
        reached.add(at)
        furthest = max(furthest, at)
        stop = next((i for i in range(at, end) if not mask[i]), end)
        for made in sampled.get((*asked, *ids[:at]), ()):
            size = 0
            while size < min(len(made.ids), stop - at) and (made.ids[size], made.logprobs[size]) == (
                ids[at + size],
                values[at + size],
            ):
                size += 1
                if at + size == stop or at + size in asked_at:
                    todo.append(at + size)
    return (
        f"its token {furthest} (id {ids[furthest]}) is marked as the policy's, and the engine did not sample it there"
    )


def unlike(output: dict[str, Any], rollouts: Sequence[Rollout]) -> tuple[int, str] | None:
    """The first row of TRL's batch that is not what was sampled, and how it differs.

    Args:
        output: TRL's `prompt_ids`, `prompt_mask` (N, P), padded left; `completion_ids`, `completion_mask` and, if some
            tokens are not the policy's, `tool_mask` (N, C), padded right. A row whose completion mask is empty was taken
            out of the loss on purpose (truncated).
    """
    prompts, completions = [r.prompt_ids for r in rollouts], [r.completion_ids for r in rollouts]
    there = output["prompt_mask"].bool()
    if found := _differs(output["prompt_ids"], there, _real(prompts, there, left=True), prompts, "prompt"):
        return found
    seen = output["completion_mask"].bool()
    real = _real(completions, seen)
    live = seen.any(dim=1)
    if found := _differs(output["completion_ids"], seen | ~live[:, None] & real, real, completions, "completion"):
        return found
    written = [r.mask for r in rollouts]
    if "tool_mask" in output:
        mask = output["tool_mask"] * live[:, None]
        wanted = torch.zeros_like(mask).masked_scatter(real, _flat(written, mask)) * live[:, None]
        wrong = ((mask != wanted) & real).any(dim=1)
    else:
        wrong = torch.tensor([0 in m for m in written], device=seen.device) & live
    if wrong.any():
        return int(wrong.nonzero()[0]), "its loss mask is not that of the rollout"
    return None


def in_the_loss(inputs: dict[str, Any]) -> Tensor:
    """Tokens under the loss mask of a micro-batch, as TRL's losses form it. On the batch's device, no shape."""
    mask = inputs["completion_mask"]
    return (mask * inputs["tool_mask"] if "tool_mask" in inputs else mask).sum()


def _real(rows: Sequence[Sequence[int]], like: Tensor, left: bool = False) -> Tensor:
    """Where the tokens of `rows` belong in a padded batch of the shape of `like`."""
    lengths = torch.tensor([len(row) for row in rows], device=like.device)[:, None]
    places = torch.arange(like.shape[1], device=like.device)[None]
    return places >= like.shape[1] - lengths if left else places < lengths


def _flat(rows: Sequence[Sequence[int]], like: Tensor) -> Tensor:
    return torch.tensor([x for row in rows for x in row], dtype=like.dtype, device=like.device)


def _differs(
    ids: Tensor, mask: Tensor, real: Tensor, rows: Sequence[Sequence[int]], what: str
) -> tuple[int, str] | None:
    if ids.shape[0] != len(rows):
        return 0, f"{len(rows)} rows were sampled, {ids.shape[0]} are trained on"
    if mask.shape != real.shape or not torch.equal(mask, real):
        row = int((mask != real).any(dim=1).nonzero()[0])
        return row, f"{int(mask[row].sum())} tokens of its {what} are trained on, {len(rows[row])} were sampled"
    wanted = _flat(rows, ids)
    if torch.equal(ids[real], wanted):
        return None
    row = int((ids != torch.zeros_like(ids).masked_scatter(real, wanted)).logical_and(real).any(dim=1).nonzero()[0])
    return row, f"the ids of its {what} are not those that were sampled"
