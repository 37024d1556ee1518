"""RLOO on rollouts of our engine is TRL's RLOO on the same rollouts."""

from __future__ import annotations

import json

import pytest
import torch
from trl import RLOOConfig, RLOOTrainer

from posttrain.errors import Mistake
from posttrain.trainers.rloo import RLOO
from rollouts.records import Rollout


@pytest.mark.parametrize(
    "args", [{}, {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4, "beta": 0.0}]
)
def test_it_is_trls_rloo_on_the_same_rollouts(parts, args):
    ours = RLOO.build(parts(algorithm="rloo", args=args))
    made = []
    inner = ours._generate_single_turn

    def spy(*given):
        made.append((given[0], inner(*given)))
        return made[-1][1]

    ours._generate_single_turn = spy
    ours.train()
    other = parts(algorithm="rloo", args=args)
    theirs = RLOOTrainer(
        model=other.model,
        reward_funcs=[j.guard.make for j in other.judged],
        args=RLOOConfig(**other.arguments),
        train_dataset=other.train,
        processing_class=other.tokenizer,
        peft_config=other.peft_config,
    )
    replay = iter(made)

    def again(prompt_ids, *_):
        asked, answered = next(replay)
        assert [list(p) for p in prompt_ids] == asked
        return answered

    theirs._generate_single_turn = again
    theirs.train()
    mine = {k: v for k, v in ours.model.named_parameters() if v.requires_grad}
    for name, parameter in theirs.model.named_parameters():
        if parameter.requires_grad:
            assert torch.equal(parameter, mine[name])
    assert any(v.abs().max() > 0 for k, v in mine.items() if "lora_B" in k)


def test_it_records_what_it_trained_on(parts):
    built = parts(algorithm="rloo")
    RLOO.build(built).train()
    built.stack.close()
    rollouts = [json.loads(x) for f in sorted(built.run.rollouts.iterdir()) for x in f.read_text().splitlines()]
    assert len(rollouts) == 16
    for group in (rollouts[i : i + 4] for i in range(0, 16, 4)):
        rewards = [r["reward"] for r in group]
        for r in group:
            if r["version"] == 0:  # later ones have the KL to the reference in the reward
                others = (sum(rewards) - r["reward"]) / 3
                assert r["advantage"] == pytest.approx(r["reward"] - others, abs=1e-4)


def test_a_strategy_that_changes_the_prompt_is_refused(parts):
    class Other:
        def run(self, asks, session):
            return [Rollout(a.row.row_id, a.sample, 0, [7], [8], [-1.0], [1], "stop") for a in asks]

    built = parts(algorithm="rloo")
    built.strategy = Other()
    with pytest.raises(Mistake, match="rloo needs one that asks the row's own prompt"):
        RLOO.build(built).train()
