"""RLOO: TRL's `RLOOTrainer` on rollouts from our engines.

TRL 1.16 gives RLOO no `rollout_func`, so besides those of `Online` this overrides `_tokenize_prompts` and
`_generate_single_turn`, the two steps of TRL's generation that know about engines, and hands what a strategy tells of its
rollouts on to the rewards (`_calculate_rewards`), as `rollout_func` would. There is no importance-sampling
correction here: TRL's RLOO recomputes the old log-probs and takes the sampler to be the trainer.
"""

from __future__ import annotations

from typing import Any

from trl import RLOOConfig, RLOOTrainer

from posttrain.errors import Alarm, Mistake
from posttrain.trainers.log import callbacks
from posttrain.trainers.online import Online, bridge_of
from posttrain.trainers.parts import Parts
from posttrain.trainers.scorer import Scorer
from rollouts.prompts import encode


class RLOO(Online, RLOOTrainer):
    """REINFORCE leave-one-out (Ahmadian et al. 2024, arXiv 2402.14740)."""

    Config = RLOOConfig
    kl_in_reward = True

    @classmethod
    def build(cls, parts: Parts) -> RLOO:
        """A trainer of `parts`, ready to train."""
        bridge = bridge_of(parts)
        scorer = Scorer(parts.judged, parts.run, parts.timer)
        trainer = cls(
            model=parts.model,
            reward_funcs=scorer.columns(),
            args=cls.Config(**parts.arguments),
            train_dataset=parts.train,
            eval_dataset=parts.eval,
            processing_class=parts.tokenizer,
            peft_config=parts.peft_config,
            callbacks=[*callbacks(parts), *parts.callbacks],
        )
        trainer.attach(parts, bridge, scorer)
        return trainer

    def _tokenize_prompts(self, prompts: list[Any]) -> Any:
        template_args = self.bridge.template_kwargs
        return [encode(self.bridge.tokenizer, prompt, **template_args) for prompt in prompts], None, {}

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], images: Any, multimodal_fields: Any
    ) -> list[list[int]]:
        rollouts = self.bridge.roll([row["prompt"] for row in self.bridge.rows], self)
        empty = next((r for r in rollouts if not any(r.mask)), None)
        if empty is not None:
            raise Alarm(
                f"row {empty.row_id}, sample {empty.sample}: the completion is empty, and rloo cannot leave its tokens out; "
                "mend the engine or the strategy, or use grpo"
            )
        if any(r.prompt_ids != list(ids) or 0 in r.mask for r, ids in zip(rollouts, prompt_ids, strict=True)):
            raise Mistake(
                "rollouts.strategy: algorithm rloo needs one that asks the row's own prompt in one turn; use grpo"
            )
        return [r.completion_ids for r in rollouts]

    def _calculate_rewards(self, inputs: list[dict[str, Any]], *rest: Any) -> Any:
        told = self.bridge.told()
        rows = [{**row, **{name: told[name][i] for name in told}} for i, row in enumerate(inputs)]
        return super()._calculate_rewards(rows, *rest)
