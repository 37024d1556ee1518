"""GRPO: TRL's `GRPOTrainer` on rollouts from our engines.

Adds to TRL: rollouts through `rollout_func` (any engine, any strategy, policy version checked), rewards in a guard,
importance-sampling correction without TRL's own vLLM (so that it works for every engine), records, phase times.
Overrides besides those of `Online` and `WholeStep`: `_generate_and_score_completions`, to put the correction into the
advantages.

Why into the advantages: every loss of TRL 1.16 is positively homogeneous in the advantage (min(rA, clip(r)A), -wA log p,
the sapo gate depends on its sign alone), so a factor w >= 0 on A is the factor w on the policy loss, token by token, and
TRL documents advantages of shape (N, T). `vespo` folds the weight into its own gate instead and reads it from the batch.
"""

from __future__ import annotations

from typing import Any

import torch
from trl import GRPOConfig, GRPOTrainer

from posttrain.errors import Mistake
from posttrain.trainers import scaffolds
from posttrain.trainers.correction import Correction, mismatch, mismatch_metrics
from posttrain.trainers.log import callbacks
from posttrain.trainers.online import Online, bridge_of
from posttrain.trainers.parts import Parts
from posttrain.trainers.scorer import Scorer
from posttrain.trainers.window import WholeStep


class GRPO(WholeStep, Online, GRPOTrainer):
    """Group relative policy optimization (Shao et al. 2024, arXiv 2402.03300) and its relatives by `loss_type`."""

    Config = GRPOConfig

    @classmethod
    def build(cls, parts: Parts) -> GRPO:
        """A trainer of `parts`, ready to train.

        Raises:
            Mistake: settings that contradict each other.
        """
        args = cls.Config(**parts.arguments)
        wanted = parts.recipe.rollouts.correction
        # Of samples drawn under another prompt, the usual weights would measure the prompt, not the sampler.
        none_due = parts.engine.same_numerics or scaffolds.shows_more(parts.strategy)
        correction = Correction.of(wanted.mode, wanted.clip_max, wanted.clip_min, none_due)
        if correction and args.loss_type == "vespo" and not correction.mode.startswith("token"):
            raise Mistake(
                "rollouts.correction.mode: loss_type vespo takes a token_* mode (it forms the sequence weight)"
            )
        bridge = bridge_of(parts)
        scorer = Scorer(parts.judged, parts.run, parts.timer)
        trainer = cls(
            model=parts.model,
            reward_funcs=scorer.columns(),
            args=args,
            train_dataset=parts.train,
            eval_dataset=parts.eval,
            processing_class=parts.tokenizer,
            peft_config=parts.peft_config,
            rollout_func=bridge,
            callbacks=[*callbacks(parts), *parts.callbacks],
        )
        trainer.attach(parts, bridge, scorer)
        trainer.look_at_whole_steps()
        trainer.correction = correction
        return trainer

    correction: Correction | None = None

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        if self.correction is not None and self.model.training:
            self._correct(output)
        return output

    def _correct(self, output: dict[str, Any]) -> None:
        mask = output["completion_mask"]
        if "tool_mask" in output:
            mask = mask * output["tool_mask"]
        sampler = output["sampling_per_token_logps"]
        if self._scaffolded:
            # The sampler's own prompt, so that the ratio is that of two computations of one number; the loss goes on with
            # the row's prompt and its own old log-probs.
            seen = scaffolds.seen_batch(self.bridge.made, self._tokenizer.pad_token_id, self.accelerator.device)
            old = self._log_probs(output, *seen)
        else:
            if "old_per_token_logps" not in output:
                output["old_per_token_logps"] = self._log_probs(output, output["prompt_ids"], output["prompt_mask"])
            old = output["old_per_token_logps"]
        weights = self.correction.weights(old, sampler, mask)
        if self.loss_type == "vespo":
            output["importance_sampling_ratio"] = torch.where(mask.bool(), weights, torch.ones_like(weights))
        else:
            output["advantages"] = output["advantages"].unsqueeze(1) * weights
        sums = mismatch(old, sampler, weights, mask)
        gathered = {k: self.accelerator.gather(v.reshape(1)) for k, v in sums.items()}
        total = {k: (v.max() if k == "gap_max" else v.sum()).item() for k, v in gathered.items()}
        for name, value in mismatch_metrics(total).items():
            self._metrics["train"][name].append(value)

    def _log_probs(self, output: dict[str, Any], prompt_ids: torch.Tensor, prompt_mask: torch.Tensor) -> torch.Tensor:
        """Of the batch's completions after these prompts, by the policy as it is; (N, T), no gradient."""
        with torch.no_grad():
            logps, _, _ = self._get_per_token_logps_and_entropies(
                self.model,
                torch.cat([prompt_ids, output["completion_ids"]], dim=1),
                torch.cat([prompt_mask, output["completion_mask"]], dim=1),
                output["completion_ids"].size(1),
                batch_size=self.args.per_device_train_batch_size,
            )
        return logps
