"""One batch, in 1, 2, 4 or 8 micro-batches: one gradient. Whole trainings; gradients as the optimiser is about to see them.

Answers differ in length (stop strings), so that a divisor which depends on the cut shows. The second gradient is of a pass
over the same rollouts with moved weights, so that ratios are not 1.
"""

from __future__ import annotations

import json

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import DPOTrainer, GRPOTrainer

from posttrain.errors import Mistake
from posttrain.trainers.dpo import DPO
from posttrain.trainers.grpo import GRPO
from posttrain.trainers.rloo import RLOO
from posttrain.trainers.sft import SFT
from rollouts.records import Sampling

CUTS = (1, 2, 4, 8)
EQUAL = 3e-6
"""Largest relative difference of two gradients that are one but for float32's order of addition. The second gradient is of
weights that already differ by such a rounding, and is given ten times as much."""


class Gradients(TrainerCallback):
    def __init__(self):
        self.seen = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        trained = [p.grad.flatten().clone() for p in model.parameters() if p.requires_grad]
        self.seen.append(torch.cat(trained))


def differences(runs):
    """Per step: the largest relative difference to the run in one micro-batch."""
    whole, *others = runs
    assert all(len(run) == len(whole) > 0 for run in others)
    return [max(((run[i] - whole[i]).norm() / whole[i].norm()).item() for run in others) for i in range(len(whole))]


def varied(completions, **_):
    """A number that has nothing to do with the length."""
    return [sum(c[0]["content"].encode()) % 7 / 7 for c in completions]


def online(parts, cut, kind=GRPO, algorithm="grpo", **args):
    """Gradients of two passes over one generation batch in `cut` micro-batches; by TRL's own losses if `kind` says so."""
    built = parts(
        algorithm=algorithm,
        rewards=[varied],
        args={"per_device_train_batch_size": 8 // cut, "gradient_accumulation_steps": cut, "max_grad_norm": 0,
              "max_steps": 2, "num_iterations": 2, "learning_rate": 1e-2, **args},
    )  # fmt: skip
    built.sampling = Sampling(max_tokens=16, stop=("a", "e", "1"))
    gradients = Gradients()
    built.callbacks.append(gradients)
    kind.build(built).train()
    built.stack.close()
    records = [json.loads(x) for f in built.run.rollouts.iterdir() for x in f.read_text().splitlines()]
    assert len(records) == 8
    assert len({r["completion_tokens"] for r in records}) > 3
    return gradients.seen


class Theirs(GRPO):
    """TRL's own losses on our rollouts: what is put right in ours is left out."""

    def look_at_whole_steps(self):
        self._whole = False


LOSSES = {
    "grpo": {},
    "bnpo": {},
    "dr_grpo": {},
    "dapo": {},
    "cispo": {"epsilon_high": 5.0},
    "luspo": {"importance_sampling_level": "sequence"},
    "sapo": {},
    "vespo": {},
}


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_of_grpo(parts, loss):
    first, second = differences([online(parts, cut, loss_type=loss, beta=0.05, **LOSSES[loss]) for cut in CUTS])
    assert first < EQUAL
    assert second < 10 * EQUAL


@pytest.mark.parametrize(
    "args",
    [
        {"loss_type": "dapo", "entropy_coef": 0.1},
        {"loss_type": "grpo", "entropy_coef": 0.1, "entropy_target": 3.0, "use_adaptive_entropy": True},
        {"loss_type": "dapo", "top_entropy_quantile": 0.5},
        {"loss_type": "bnpo", "top_entropy_quantile": 0.4, "entropy_coef": 0.05},
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "delta": 1.5},
        {"loss_type": "dapo", "scale_rewards": "batch", "mask_truncated_completions": True},
    ],
    ids=lambda a: ",".join(f"{k}={v}" for k, v in a.items()),
)
def test_every_term_of_grpo(parts, args):
    first, second = differences([online(parts, cut, **args) for cut in CUTS])
    assert first < EQUAL
    assert second < 10 * EQUAL


@pytest.mark.parametrize(
    "args",
    [
        {"loss_type": "bnpo"},
        {"loss_type": "grpo", "top_entropy_quantile": 0.5},
        {"loss_type": "grpo", "entropy_coef": 1.0},
    ],
    ids=lambda a: ",".join(f"{k}={v}" for k, v in a.items()),
)
def test_terms_whose_gradient_depends_on_the_cut_in_trl(parts, args):
    whole, cut = (online(parts, n, kind=Theirs, **args) for n in (1, 4))
    assert differences([whole, cut])[0] > 0.01
    ours = online(parts, 1, **args)
    assert differences([whole, ours])[0] < EQUAL  # in one micro-batch nothing has changed


@pytest.mark.parametrize("per_generation", [2, 4])
def test_updates_within_a_generation_batch(parts, per_generation):
    """Two optimiser steps on one generation batch, each in 1 or `per_generation` / 2 micro-batches."""

    def run(cut):
        return online(
            parts, 1, loss_type="bnpo", num_iterations=1, per_device_train_batch_size=4 // cut,
            gradient_accumulation_steps=cut, steps_per_generation=2 * cut, entropy_coef=0.1,
        )  # fmt: skip

    first, second = differences([run(1), run(per_generation // 2 if per_generation > 2 else 4)])
    assert first < EQUAL
    assert second < 10 * EQUAL


def test_a_generation_batch_that_holds_no_whole_steps(parts):
    built = parts(args={"loss_type": "bnpo", "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2,
                        "steps_per_generation": 3})  # fmt: skip
    with pytest.raises(Mistake, match=r"3 is no multiple of gradient_accumulation_steps 2, .* or loss_type: dapo"):
        GRPO.build(built)


@pytest.mark.parametrize("args", [{"beta": 0.0}, {"beta": 0.05, "normalize_advantages": True}], ids=str)
def test_rloo(parts, args):
    first, second = differences([online(parts, cut, RLOO, "rloo", **args) for cut in CUTS])
    assert first < EQUAL
    assert second < 10 * EQUAL


# -- rows that are there already ----------------------------------------------------------------------------------


def said(text):
    return [{"role": "assistant", "content": text}]


def asked(i):
    return [{"role": "user", "content": f"say {i}"}]


ROWS = {
    "sft": [{"row_id": f"r{i}", "prompt": asked(i), "completion": said(str(i) * (1 + i % 5))} for i in range(16)],
    "dpo": [
        {"row_id": f"r{i}", "prompt": asked(i), "chosen": said(str(i) * (1 + i % 5)), "rejected": said("no" * (i % 3))}
        for i in range(16)
    ],
}


def offline(parts, cut, kind, algorithm, **args):
    built = parts(
        rewards=[], algorithm=algorithm, args={"max_grad_norm": 0, "max_steps": 2, "learning_rate": 1e-2, **args}
    )
    # Past the recipe, which refuses some losses in more than one micro-batch.
    built.arguments |= {"per_device_train_batch_size": 8 // cut, "gradient_accumulation_steps": cut}
    built.train = Dataset.from_list(ROWS[algorithm])
    gradients = Gradients()
    built.callbacks.append(gradients)
    kind.build(built).train()
    return gradients.seen


@pytest.mark.parametrize("loss", ["nll", "dft"])
def test_sft(parts, loss):
    first, second = differences([offline(parts, cut, SFT, "sft", loss_type=loss) for cut in CUTS])
    assert first < EQUAL
    assert second < 10 * EQUAL


PAIRS = (
    *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "apo_zero", "apo_down"),
    *("discopop", "sft", "sigmoid_norm"),
)


@pytest.mark.parametrize("loss", PAIRS)
def test_dpo(parts, loss):
    args = {"label_smoothing": 0.1} if loss in ("exo_pair", "robust") else {}
    first, second = differences([offline(parts, cut, DPO, "dpo", loss_type=[loss], **args) for cut in CUTS])
    assert first < EQUAL
    assert second < 10 * EQUAL


def test_dpo_of_several_losses(parts):
    args = {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]}
    first, second = differences([offline(parts, cut, DPO, "dpo", **args) for cut in CUTS])
    assert first < EQUAL
    assert second < 10 * EQUAL


class TheirDPO(DPO):
    _compute_loss = DPOTrainer._compute_loss
    get_batch_samples = DPOTrainer.get_batch_samples


@pytest.mark.parametrize("loss", ["sft", "aot", "aot_unpaired"])
def test_pair_losses_whose_gradient_depends_on_the_cut_in_trl(parts, loss):
    """`sft` is mended, the others may not be accumulated over (tests/posttrain/trainers/test_traps_refused.py)."""
    whole, cut = (offline(parts, n, TheirDPO, "dpo", loss_type=[loss], learning_rate=1e-1) for n in (1, 4))
    assert max(differences([whole, cut])) > 0.01


def test_their_names_are_all_here():
    """Every loss type that a recipe may name is in this file."""
    from posttrain.recipe.check import CLOSED

    assert set(CLOSED["GRPOConfig"]["loss_type"]) == set(LOSSES)
    assert set(CLOSED["DPOConfig"]["loss_type"]) == {*PAIRS, "aot", "aot_unpaired"}
    assert set(CLOSED["SFTConfig"]["loss_type"]) == {"nll", "dft"}
    assert issubclass(Theirs, GRPOTrainer)
