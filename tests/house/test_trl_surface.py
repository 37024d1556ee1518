"""What we lean on in TRL, method by method: a new TRL that moves one fails here, with its name."""

from __future__ import annotations

import inspect

import pytest
import trl

RESUMED = {
    "_maybe_log_save_evaluate": ["tr_loss", "grad_norm", "model", "trial", "epoch"],
    "_save_checkpoint": ["model", "trial"],
    "_load_rng_state": ["checkpoint"],
    "_load_optimizer_and_scheduler": ["checkpoint"],
    "get_train_dataloader": [],
    "get_batch_samples": ["epoch_iterator", "num_batches", "device"],
    "train": ["resume_from_checkpoint"],
}
"""Of transformers, by which a run goes on exactly; for every trainer."""


SURFACE = {
    "GRPOTrainer": {
        "_generate_and_score_completions": ["inputs"],
        "_prepare_inputs": ["generation_batch"],
        "training_step": ["model", "inputs", "num_items_in_batch"],
        "_get_per_token_logps_and_entropies": ["model", "input_ids", "attention_mask", "logits_to_keep", "batch_size"],
        "_compute_loss": ["model", "inputs"],
        "_get_train_sampler": ["dataset"],
        "_calculate_rewards": ["inputs", "prompts", "completions", "completion_ids_list"],
        "get_high_entropy_mask": ["entropies", "mask", "threshold"],
        **RESUMED,
    },
    "RLOOTrainer": {
        "_generate_and_score_completions": ["inputs"],
        "_tokenize_prompts": ["prompts"],
        "_generate_single_turn": ["prompt_ids", "images", "multimodal_fields"],
        "_calculate_rewards": ["inputs", "prompts", "completions", "completion_ids_list"],
        "_get_per_token_logps_and_entropies": ["model", "input_ids", "attention_mask", "logits_to_keep", "batch_size"],
        "_prepare_inputs": ["generation_batch"],
        "training_step": ["model", "inputs", "num_items_in_batch"],
        **RESUMED,
    },
    "SFTTrainer": {"training_step": [], **RESUMED},
    "DPOTrainer": {
        "training_step": [],
        **RESUMED,
        "_compute_loss": ["model", "inputs", "return_outputs"],
    },
}


@pytest.mark.parametrize(("trainer", "method"), [(t, m) for t, methods in SURFACE.items() for m in methods])
def test_the_method_is_there_with_its_parameters(trainer, method):
    found = getattr(getattr(trl, trainer), method, None)
    assert found is not None, f"trl.{trainer}.{method} is gone"
    parameters = [p for p in inspect.signature(found).parameters if p not in ("self", "args", "kwargs")]
    wanted = SURFACE[trainer][method]
    assert parameters[: len(wanted)] == wanted


def test_every_override_is_listed():
    """No trainer of ours overrides a TRL method that is not in the table above."""
    from posttrain.trainers.dpo import DPO
    from posttrain.trainers.grpo import GRPO
    from posttrain.trainers.rloo import RLOO
    from posttrain.trainers.sft import SFT

    for ours in (GRPO, RLOO, SFT, DPO):
        theirs = next(c for c in ours.__mro__ if c.__module__.startswith("trl."))
        mine = [c for c in ours.__mro__ if c.__module__.startswith("posttrain.")]
        overridden = {
            name
            for c in mine
            for name in vars(c)
            if not name.startswith("__") and callable(getattr(theirs, name, None))
        }
        assert overridden <= SURFACE[theirs.__name__].keys(), ours.__name__


def test_rollout_func_and_attributes():
    assert "rollout_func" in inspect.signature(trl.GRPOTrainer.__init__).parameters
    source = inspect.getsource(trl.GRPOTrainer)
    for attribute in ("self._metrics", "self.reward_weights", "self._tokenizer", "self.num_generations_eval"):
        assert attribute in source, attribute
    assert "self.rollout_func(prompts, self)" in source
