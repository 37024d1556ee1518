"""Importance weights against TRL's own, inside TRL's own losses."""

from __future__ import annotations

import math

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from posttrain.errors import Mistake
from posttrain.trainers.correction import Correction, mismatch, mismatch_metrics

N, P, T = 4, 5, 7


@pytest.fixture(scope="module")
def trl(tiny, tmp_path_factory):
    """A bare TRL trainer that believes it has vLLM, so that it applies `importance_sampling_ratio` itself."""

    def make(**fields):
        args = GRPOConfig(
            output_dir=str(tmp_path_factory.mktemp("out")),
            use_cpu=True,
            bf16=False,
            report_to=[],
            per_device_train_batch_size=N,
            num_generations=2,
            max_completion_length=T,
            gradient_checkpointing=False,
            **fields,
        )
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32),
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            args=args,
            train_dataset=Dataset.from_dict({"prompt": ["a", "b"]}),
            processing_class=AutoTokenizer.from_pretrained(tiny),
        )
        trainer.current_gradient_accumulation_steps = 1
        return trainer

    return make


def batch(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(T) < torch.tensor([T, T - 2, 3, 1])[:, None]).long()
    return {
        "prompt_ids": torch.randint(6, 200, (N, P), generator=generator),
        "prompt_mask": torch.ones(N, P, dtype=torch.long),
        "completion_ids": torch.randint(6, 200, (N, T), generator=generator),
        "completion_mask": mask,
        "advantages": torch.tensor([1.5, -0.7, 0.3, -1.1]),
        "num_items_in_batch": mask.sum(),
        "ref_per_token_logps": -4 + torch.randn(N, T, generator=generator) * 0.1,
    }


@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo"])
@pytest.mark.parametrize("mode", ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"])
@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_a_factor_on_the_advantage_is_trls_factor_on_the_loss(trl, loss_type, mode, beta):
    level = "sequence" if loss_type == "luspo" else "token"
    trainer = trl(loss_type=loss_type, beta=beta, importance_sampling_level=level, epsilon_high=0.3)
    inputs = batch()
    model = trainer.model
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    with torch.no_grad():
        old = trainer._get_per_token_logps_and_entropies(model, ids, attention, T)[0]
    # The trainer has moved since the rollouts were made, and the sampler was never quite the trainer.
    noise = torch.Generator().manual_seed(1)
    inputs["old_per_token_logps"] = old + 0.1 * torch.randn(N, T, generator=noise)
    sampler = inputs["old_per_token_logps"] + 0.2 * torch.randn(N, T, generator=noise)
    weights = Correction(mode, clip_max=1.2, clip_min=0.8).weights(
        inputs["old_per_token_logps"], sampler, inputs["completion_mask"]
    )
    assert (weights == 0).any() or mode.endswith("truncate"), "the case should clip something"

    def gradient(trl_does_it: bool):
        given = dict(inputs)
        if trl_does_it:
            trainer.use_vllm, trainer.vllm_importance_sampling_correction = True, True
            given["importance_sampling_ratio"] = weights
        else:
            trainer.use_vllm = False
            given["advantages"] = inputs["advantages"][:, None] * weights
        model.zero_grad()
        loss = trainer._compute_loss(model, given)
        loss.backward()
        return loss.detach(), [p.grad.clone() for p in model.parameters()]

    loss, grads = gradient(trl_does_it=True)
    ours, our_grads = gradient(trl_does_it=False)
    torch.testing.assert_close(ours, loss)
    for mine, theirs in zip(our_grads, grads, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    assert any(g.abs().max() > 0 for g in grads)


@pytest.mark.parametrize("mode", ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"])
def test_bounds(mode):
    old = torch.zeros(2, 3)
    sampler = -torch.tensor([[0.1, 0.2, 5.0], [math.log(1.5), -5.0, 7.0]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 0]])
    weights = Correction(mode, clip_max=1.4, clip_min=0.9).weights(old, sampler, mask)
    expected = {
        "token_truncate": [[math.exp(0.1), math.exp(0.2), 1.0], [1.4, 0.9, 1.0]],
        "token_mask": [[math.exp(0.1), math.exp(0.2), 1.0], [0.0, 0.0, 1.0]],
        "sequence_truncate": [[math.exp(0.3)], [0.9]],
        "sequence_mask": [[math.exp(0.3)], [0.0]],
    }[mode]
    torch.testing.assert_close(weights, torch.tensor(expected))


@given(st.integers(1, 4000), st.floats(-0.2, 0.2))
@settings(max_examples=50, deadline=None)
def test_the_geometric_mask_does_not_depend_on_the_length(length, gap):
    """A constant gap per token keeps or drops a sequence alike at every length; the product would not."""
    correction = Correction.of("geometric_mask", None, None, same_numerics=False)
    old = torch.zeros(1, length, dtype=torch.float64)
    weights = correction.weights(old, old - gap, torch.ones(1, length))
    assert bool((weights > 0).all()) == (1 / 1.05 <= math.exp(gap) <= 1.05)


def test_a_missing_sampler_log_prob_weighs_one():
    sampler = torch.tensor([[float("nan"), -2.0]])
    weights = Correction("token_truncate", 2.0).weights(torch.tensor([[-1.0, -1.9]]), sampler, torch.ones(1, 2))
    torch.testing.assert_close(weights, torch.tensor([[1.0, math.exp(0.1)]]))


def test_auto_corrects_only_where_sampler_and_trainer_differ():
    assert Correction.of("auto", None, None, same_numerics=True) is None
    assert Correction.of("auto", None, None, same_numerics=False) == Correction("token_truncate", 2.0)
    assert Correction.of("off", None, None, same_numerics=False) is None
    with pytest.raises(Mistake, match="clip_min"):
        Correction.of("token_mask", 1.0, 1.5, same_numerics=False)


def test_mismatch_metrics_by_hand():
    old = torch.tensor([[-1.0, -2.0, 0.0]])
    sampler = torch.tensor([[-1.5, -1.9, 9.0]])
    weights = torch.tensor([[2.0, 0.0, 7.0]])
    sums = {k: v.item() for k, v in mismatch(old, sampler, weights, torch.tensor([[1, 1, 0]])).items()}
    metrics = mismatch_metrics(sums)
    assert metrics["sampling/sampling_logp_difference/mean"] == pytest.approx(0.3)
    assert metrics["sampling/sampling_logp_difference/max"] == pytest.approx(0.5)
    assert metrics["sampling/importance_sampling_ratio/mean"] == pytest.approx(1.0)
    assert metrics["sampling/dropped"] == pytest.approx(0.5)
    assert metrics["sampling/ess"] == pytest.approx(0.5)  # one of two tokens carries everything
