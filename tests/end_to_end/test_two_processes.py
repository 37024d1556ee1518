"""One optimiser step on one process and on two, from the same rollouts, is the same step."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

pytestmark = [pytest.mark.processes, pytest.mark.slow]

# Plain gradient descent: Adam's first step is the sign of the gradient, which would turn float noise into differences.
STEP = [
    "trainer.args.max_steps=1",
    "trainer.args.optim=sgd",
    "trainer.args.learning_rate=1.0",
    "trainer.args.lr_scheduler_type=constant",
    "trainer.args.max_grad_norm=1e9",
    "evaluation=[]",
    "preflight=off",
]


def weights(ended) -> dict[str, torch.Tensor]:
    assert ended.code == 0, ended.err[-3000:]
    return load_file(ended.run / "adapter" / "adapter_model.safetensors")


@pytest.mark.parametrize(
    "loss",
    [
        ["loss_type=grpo"],
        ["loss_type=bnpo", "entropy_coef=0.05", "top_entropy_quantile=0.5"],
        ["loss_type=dapo", "mask_truncated_completions=true", "multi_objective_aggregation=normalize_then_sum"],
    ],
    ids=" ".join,
)
def test_the_same_update(launch, recipes, loss):
    recipe = recipes / "arithmetic_grpo.yaml"
    step = [*STEP, *(f"trainer.args.{word}" for word in loss)]
    one = launch(recipe, *step, "trainer.args.per_device_train_batch_size=64", name="one")
    two = launch(recipe, *step, "trainer.args.per_device_train_batch_size=32", name="two", processes=2)
    accumulated = launch(recipe, *step, "trainer.args.per_device_train_batch_size=16",
                         "trainer.args.gradient_accumulation_steps=4", name="four")  # fmt: skip

    def by_sample(ended):
        return {(r["row_id"], r["sample"]): (r["completion"], r["reward"], r["version"]) for r in ended.rollouts()}

    assert len(by_sample(one)) == 64
    assert by_sample(one) == by_sample(two) == by_sample(accumulated)
    assert len({len({c for (r, _), (c, *_) in by_sample(one).items() if r == row}) for row, _ in by_sample(one)}) > 0
    base = weights(one)
    moved = [v for k, v in base.items() if "lora_B" in k]  # B starts at zero, so what it holds is the update
    assert max(v.abs().max() for v in moved) > 1e-6
    scale = max(v.abs().max().item() for v in moved)
    for other in (two, accumulated):
        found = weights(other)
        assert found.keys() == base.keys()
        worst = max((found[k] - base[k]).abs().max().item() for k in base)
        assert worst < 1e-4 * scale
    assert one.metrics("grad_norm")[0] == pytest.approx(two.metrics("grad_norm")[0], rel=1e-4)
    assert one.metrics("frac_reward_zero_std") == two.metrics("frac_reward_zero_std")
    # Both took part, and no sample of a group was drawn twice.
    assert sorted(p.name for p in (two.run / "rollouts").iterdir()) == ["000000-r0.jsonl", "000000-r1.jsonl"]
    assert len(two.rollouts()) == 64
    status = two.json("status.json")
    assert {k: status[k] for k in ("state", "error", "steps", "rollouts", "resumed_from")} == {
        "state": "done", "error": None, "steps": 1, "rollouts": 64, "resumed_from": None,
    }  # fmt: skip
