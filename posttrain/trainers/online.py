"""What GRPO and RLOO share: rollouts from an engine, guarded rewards, records of both, and phase times.

A mixin in front of a TRL trainer. It overrides, each for one reason:
- `_generate_and_score_completions`: keep the rows beside the prompts; silence flat groups; tell a strategy that learns what its
  samples got; measure scaffolds; leave out truncated rows; record rollouts with their advantages;
- `_calculate_rewards`: keep the rewards of all processes, in which flat groups are found;
- `_get_per_token_logps_and_entropies`, `_prepare_inputs`, `training_step`: time them, and report to the invariants;
- and what `Resumable` does.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from accelerate.utils import gather_object

from posttrain.trainers import groups, scaffolds
from posttrain.trainers.bridge import Bridge
from posttrain.trainers.extras import bounded
from posttrain.trainers.follow import Follower
from posttrain.trainers.invariants import Invariants
from posttrain.trainers.log import connect
from posttrain.trainers.parts import Parts
from posttrain.trainers.record import Recorder
from posttrain.trainers.reference import anchor
from posttrain.trainers.scorer import Scorer
from posttrain.trainers.state import Resumable, Stateful


class Online(Resumable):
    """State and overrides shared by the trainers that sample from the policy while they train."""

    kl_in_reward: bool = False
    """The trainer takes the KL off the rewards instead of adding it to the loss."""
    parts: Parts
    bridge: Bridge
    scorer: Scorer
    recorder: Recorder
    invariants: Invariants | None = None
    _without_truncated: bool = False
    _rewards: torch.Tensor | None = None
    """Of the last batch of all processes: (rows, functions), before weights; NaN = not judged."""
    _scaffolded: bool = False
    """Whether any rollout of the last batch, of all processes, was drawn under another prompt than its own."""
    _micro: dict[str, Any] | None = None
    """The micro-batch that is being trained on, and ..."""
    _logps: torch.Tensor | None = None
    """... the policy's log-probs of its completions."""

    def attach(self, parts: Parts, bridge: Bridge, scorer: Scorer) -> None:
        """Called once, right after TRL's constructor."""
        self.parts = parts
        self.bridge = bridge
        self.scorer = scorer
        self.recorder = Recorder(parts.run, self.accelerator.process_index)
        parts.stack.callback(self.recorder.close)
        parts.follower = bridge.follower
        self.make_resumable()
        anchor(self, parts)
        if self.mask_truncated_completions:
            # TRL tells a truncated row by its last token, and leaves its reward in the baseline of its group.
            self.mask_truncated_completions, self._without_truncated = False, True
            scorer.left_out = self._truncated
        for name in ("grpo", "rloo"):
            logging.getLogger(f"trl.trainer.{name}_trainer").addFilter(_known_already)
        connect(self, parts)
        if parts.invariants:
            self.invariants = Invariants(self, parts, online=True)
            self.add_callback(self.invariants)
            bridge.asked = self.invariants.asked
            bridge.follower.synced = self.invariants.synced
            self.stateful["invariants"] = self.invariants
        self.stateful |= {"scorer": scorer, "recorder": self.recorder}
        for name, part in (("strategy", parts.strategy), ("engine", parts.engine)):
            if isinstance(part, Stateful):
                self.stateful[name] = part
        self.settled()

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self.bridge.rows = [dict(row) for row in inputs]
        output = super()._generate_and_score_completions(inputs)
        self._silence_flat_groups(output)
        if self.model.training:
            self._teach()
            self._look_at_scaffolds(output)
        if self._without_truncated:
            self._leave_out(output, torch.tensor(self._truncated(), device=self.accelerator.device))
        if self.invariants is not None:
            bridge = self.bridge
            self.invariants.generated(output, bridge.made, bridge.sampled, self.scorer, self.model.training)
        self._record(output)
        return output

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
        self._rewards = super()._calculate_rewards(*args, **kwargs)
        return self._rewards

    def _silence_flat_groups(self, output: dict[str, Any]) -> None:
        training = self.model.training
        size = self.num_generations if training else self.num_generations_eval
        flat = groups.flat(
            self._rewards,
            self.reward_weights.to(self._rewards.device),
            size,
            apart=getattr(self, "multi_objective_aggregation", "") == "normalize_then_sum",
            clip=getattr(self, "reward_clip_range", None),
        )
        shares = self._metrics["train" if training else "eval"]["frac_reward_zero_std"]
        shares[-1:] = [flat.float().mean().item()]
        if self.kl_in_reward and self.beta != 0.0:
            return  # the penalty differs between rows of one reward
        rows = len(output["advantages"])
        mine = slice(self.accelerator.process_index * rows, (self.accelerator.process_index + 1) * rows)
        output["advantages"][flat.repeat_interleave(size)[mine]] = 0.0

    def _teach(self) -> None:
        """A strategy that learns hears what the samples of all processes got."""
        learn = getattr(self.parts.strategy, "learn", None)
        if learn is None:
            return
        rewards = (self._rewards * self.reward_weights.to(self._rewards.device)).sum(dim=1).tolist()
        names = gather_object([rollout.row_id for rollout in self.bridge.made])
        learn(names, [_finite(reward) for reward in rewards])

    def _look_at_scaffolds(self, output: dict[str, Any]) -> None:
        if not scaffolds.tells(self.parts.strategy):
            return
        made, group = self.bridge.made, self.num_generations
        mine = scaffolds.sums(made, output["advantages"], group).float().to(self.accelerator.device)
        total = self.accelerator.reduce(mine, reduction="sum").cpu()
        for name, value in scaffolds.metrics(total).items():
            self._metrics["train"][name].append(value)
        self._scaffolded = scaffolds.shows_more(self.parts.strategy) and bool(total[group, 1] > 0)
        if not self._scaffolded:
            return
        output[scaffolds.LEVEL] = scaffolds.levels(made).to(self.accelerator.device)
        if getattr(self.parts.strategy, "drops_negative", False):
            scaffolds.drop_negative(output["advantages"], made)

    def _measure_gap(self) -> None:
        """How far the prompt of the loss is from the one that was sampled under, on the first pass over a batch."""
        inputs, logps, self._logps = self._micro, self._logps, None
        if inputs is None or logps is None or not {scaffolds.LEVEL, "sampling_per_token_logps"} <= inputs.keys():
            return
        mine = scaffolds.gap_sums(inputs, logps.detach(), self.num_generations).to(self.accelerator.device)
        for name, value in scaffolds.gap_metrics(self.accelerator.reduce(mine, reduction="sum")).items():
            self._metrics["train"][name].append(value)

    def _truncated(self) -> list[bool]:
        return [rollout.finish != "stop" for rollout in self.bridge.made]

    def _leave_out(self, output: dict[str, Any], rows: torch.Tensor) -> None:
        for name in ("completion_mask", "tool_mask"):
            if name in output:
                output[name][rows] = 0
        if "old_logps" in output:
            output["old_logps"][rows] = 0.0  # a sum over no tokens, as the other side of the ratio will be
        mask = output["completion_mask"]
        if "tool_mask" in output:
            mask = mask * output["tool_mask"]
        if "num_items_in_batch" in output:
            output["num_items_in_batch"] = self.accelerator.gather(mask.sum()).sum()

    def _record(self, output: dict[str, Any]) -> None:
        mode = "train" if self.model.training else "eval"
        rollouts = self.bridge.made
        truncated = torch.tensor([float(r.finish == "length") for r in rollouts], device=self.accelerator.device)
        self._metrics[mode]["completions/truncated"].append(self.accelerator.gather(truncated).mean().item())
        if mode == "train":
            self._metrics[mode]["policy_version"].append(float(rollouts[0].version))
        weights = self.reward_weights.tolist()
        advantages = output["advantages"]
        if advantages.dim() > 1:
            advantages = advantages[:, 0]
        texts = self._tokenizer.batch_decode([r.completion_ids for r in rollouts], skip_special_tokens=True)
        records = []
        for i, rollout in enumerate(rollouts):
            scores, faults = self.scorer.scores[i], self.scorer.faults[i]
            judged = None not in scores.values()
            reward = sum(w * s for w, s in zip(weights, scores.values(), strict=True)) if judged else None
            records.append(
                {
                    "step": int(self.state.global_step),
                    "phase": mode,
                    "row_id": rollout.row_id,
                    "sample": rollout.sample,
                    "version": rollout.version,
                    "prompt": self.bridge.rows[i]["prompt"],
                    "completion": texts[i],
                    "rewards": scores,
                    "reward": reward,
                    "advantage": _finite(advantages[i].item()),
                    "finish": rollout.finish,
                    "prompt_tokens": len(rollout.prompt_ids),
                    "completion_tokens": len(rollout.completion_ids) if any(rollout.mask) else 0,
                    "faults": faults,
                    **_told("info", rollout.info),
                    **_told("extras", self.scorer.extras[i]),
                    **(_tokens(rollout) if self.parts.recipe.rollouts.keep_tokens else {}),
                }
            )
        self.recorder.write(int(self.state.global_step), mode, records)

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled():
            made = super()._get_per_token_logps_and_entropies(*args, **kwargs)
            self._logps = made[0] if isinstance(made, tuple) else None
            return made
        with self.parts.timer("logprobs"):
            return super()._get_per_token_logps_and_entropies(*args, **kwargs)

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        with self.parts.timer("other"):
            inputs = super()._prepare_inputs(generation_batch)
            if self.invariants is not None and self.model.training:
                self.invariants.consumes(inputs)
            self._micro = inputs if self.model.training else None
            return inputs

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        every = self.args.steps_per_generation * self.num_iterations
        first_pass = self._step % every < self.args.steps_per_generation
        with self.parts.timer("training"):
            loss = super().training_step(*args, **kwargs)
        if first_pass:
            self._measure_gap()
        self._micro = self._logps = None
        if self.invariants is not None:
            self.invariants.loss(loss)
        return loss


def _known_already(record: logging.LogRecord) -> bool:
    """False for TRL's warning about a row without a reward, which prints all of the row: `faults.jsonl` and `rollouts/`
    have it."""
    return "All reward functions returned None" not in str(record.msg)


def bridge_of(parts: Parts) -> Bridge:
    """The bridge from a trainer of `parts` to its engine."""
    return Bridge(
        engine=parts.engine,
        strategy=parts.strategy,
        sampling=parts.sampling,
        tokenizer=parts.tokenizer,
        run_seed=parts.recipe.run.seed,
        follower=Follower(parts.engine, parts.run, parts.timer),
        timer=parts.timer,
        template_kwargs=dict(parts.recipe.model.template_args),
    )


def _tokens(rollout: Any) -> dict[str, Any]:
    kept = {name: list(getattr(rollout, name)) for name in ("prompt_ids", "completion_ids", "logprobs", "mask")}
    # The log-probs are conditioned on what the engine saw.
    return kept if rollout.seen_ids is None else {**kept, "seen_ids": list(rollout.seen_ids)}


def _told(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """Under `name`, if there is anything."""
    return {name: {str(k): bounded(v) for k, v in values.items()}} if values else {}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
