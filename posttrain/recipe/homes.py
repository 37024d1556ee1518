"""Settings that have exactly one home in a recipe, and the translation of those homes into TRL's arguments.

TRL's configuration classes take everything: directories, sampling, engine, weights. In a recipe each of these has a
place of its own, and giving it under `trainer.args` as well is an error that names the place.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from posttrain.errors import Mistake
from posttrain.imports import load_object
from posttrain.recipe.schema import Recipe
from posttrain.recipe.text import Path as Keys
from posttrain.rundir import RunDir

_SAMPLING = "rollouts.sampling"
_ENGINE = "rollouts.engine"
_LAUNCH = "the accelerate file (accelerate launch --config_file ...)"
_ALONE = "nowhere: posttrain sets it"

HOMES: dict[str, str] = {
    # where results go, and what all randomness comes from
    "output_dir": "run.directory and run.name",
    "overwrite_output_dir": "the command line (--restart)",
    "logging_dir": "run.directory and run.name",
    "run_name": "run.name",
    "seed": "run.seed",
    "data_seed": "run.seed",
    "report_to": "run.report_to",
    "resume_from_checkpoint": "nowhere: the same command again goes on where the run was cut",
    # checkpoints
    "save_strategy": "checkpoints.every",
    "save_steps": "checkpoints.every",
    "save_total_limit": "checkpoints.keep",
    "save_on_each_node": _ALONE,
    "save_only_model": "nowhere: a checkpoint holds all that a resume needs",
    "load_best_model_at_end": "checkpoints.keep_best",
    "metric_for_best_model": "checkpoints.metric",
    "greater_is_better": "checkpoints.best",
    "ignore_data_skip": _ALONE,
    "enable_jit_checkpoint": "nowhere: SIGTERM saves",
    "restore_callback_states_from_checkpoint": _ALONE,
    # how tokens are drawn
    "max_completion_length": f"{_SAMPLING}.max_tokens",
    "temperature": f"{_SAMPLING}.temperature",
    "top_p": f"{_SAMPLING}.top_p",
    "top_k": f"{_SAMPLING}.top_k",
    "min_p": f"{_SAMPLING}.min_p",
    "repetition_penalty": f"{_SAMPLING}.repetition_penalty",
    "generation_kwargs": _SAMPLING,
    # prompts
    "max_prompt_length": "data.train.max_prompt_tokens",
    "chat_template_kwargs": "model.template_args",
    "chat_template_path": "model.chat_template",
    "dataset_name": "data.train.hub",
    "dataset_config": "data.train.config",
    "dataset_train_split": "data.train.split",
    "dataset_text_field": "data.train.columns",
    # who draws them
    "use_vllm": f"{_ENGINE} (vllm or vllm-server)",
    "vllm_mode": f"{_ENGINE} (vllm or vllm-server)",
    "vllm_server_base_url": f"{_ENGINE}.with.urls",
    "vllm_server_host": f"{_ENGINE}.with.urls",
    "vllm_server_port": f"{_ENGINE}.with.urls",
    "vllm_group_port": "nowhere: only the adapter travels to the engine",
    "vllm_importance_sampling_correction": "rollouts.correction.mode",
    "vllm_importance_sampling_mode": "rollouts.correction.mode",
    "vllm_importance_sampling_clip_max": "rollouts.correction.clip_max",
    "vllm_importance_sampling_cap": "rollouts.correction.clip_max",
    "vllm_importance_sampling_clip_min": "rollouts.correction.clip_min",
    "vllm_max_model_length": "model.max_length",
    "use_transformers_continuous_batching": _ENGINE,
    "transformers_continuous_batching_config": _ENGINE,
    "use_transformers_paged": _ENGINE,
    "cache_implementation": _ENGINE,
    "ds3_gather_for_generation": _ENGINE,
    "max_tool_calling_iterations": "rollouts.strategy.with",
    # rewards, model, adapter
    "reward_weights": "rewards[i].weight",
    "reward_funcs": "rewards",
    "model_init_kwargs": "model (dtype, attention, revision)",
    "model_name_or_path": "model.name",
    "dtype": "model.dtype",
    "torch_dtype": "model.dtype",
    "attn_implementation": "model.attention",
    "trust_remote_code": "the command line (--trust-remote-code)",
    "use_peft": "adapter",
    "peft_config": "adapter",
    "lora_r": "adapter.r",
    "lora_alpha": "adapter.lora_alpha",
    "lora_dropout": "adapter.lora_dropout",
    "lora_target_modules": "adapter.target_modules",
    # processes and sharding
    "fsdp": _LAUNCH,
    "fsdp_config": _LAUNCH,
    "deepspeed": _LAUNCH,
    "parallelism_config": _LAUNCH,
    "ddp_backend": _LAUNCH,
    "ddp_timeout": _LAUNCH,
    "use_cpu": "nowhere: an accelerator is used where there is one; hide it with CUDA_VISIBLE_DEVICES=",
    # what follows from the rest
    "do_train": _ALONE,
    "do_eval": "trainer.args.eval_strategy",
    "do_predict": _ALONE,
    "local_rank": _ALONE,
    "remove_unused_columns": _ALONE,
    "label_names": _ALONE,
    "dataset_kwargs": _ALONE,
}
"""Key of `trainer.args` → where a recipe says it."""

ADAPTER_HOMES: dict[str, str] = {
    "task_type": _ALONE,
    "peft_type": _ALONE,
    "inference_mode": _ALONE,
    "auto_mapping": _ALONE,
    "base_model_name_or_path": "model.name",
    "revision": "model.revision",
}
"""Key of `adapter` → where a recipe says it."""


def home(key: str) -> str | None:
    """The home of a key of `trainer.args`; None = it is at home there."""
    if key in HOMES:
        return HOMES[key]
    return f"{_ENGINE}.with" if key.startswith("vllm_") else None


def misplaced(recipe: Recipe) -> Iterator[tuple[Keys, str]]:
    """Every setting that is not at home: its path, and where it belongs."""
    for key in recipe.trainer.args:
        if (place := home(key)) is not None:
            yield ("trainer", "args", key), _belongs(place)
    for key in recipe.adapter.model_extra or {} if recipe.adapter else {}:
        if key in ADAPTER_HOMES:
            yield ("adapter", key), _belongs(ADAPTER_HOMES[key])


def _belongs(place: str) -> str:
    if place.startswith("nowhere: "):
        return f"does not belong in a recipe ({place.removeprefix('nowhere: ')}); leave it out"
    return f"belongs in {place}"


CONFIGS = {"grpo": "trl:GRPOConfig", "rloo": "trl:RLOOConfig", "sft": "trl:SFTConfig", "dpo": "trl:DPOConfig"}
"""The TRL configuration class behind each short name of `trainer.algorithm`."""


def config_class(recipe: Recipe) -> Any:
    """The class that `trainer.args` are fields of. Imports TRL.

    Raises:
        Mistake: the trainer that the recipe names does not exist or has no `Config`.
    """
    algorithm = recipe.trainer.algorithm
    if algorithm in CONFIGS:
        return load_object(CONFIGS[algorithm])
    found = load_object(algorithm, "trainer.algorithm")
    config = getattr(found, "Config", None)
    if not (isinstance(config, type) and dataclasses.is_dataclass(config)):
        raise Mistake(f"trainer.algorithm: {algorithm} has no `Config`, the TRL configuration class of its arguments")
    return config


def trl_arguments(
    recipe: Recipe, run: RunDir | None = None, *, config: Any = None, accelerator: bool | None = None
) -> dict[str, Any]:
    """Keyword arguments of the trainer's TRL configuration class.

    Our defaults < the recipe's homes < nothing: `trainer.args` cannot hold a key that has a home, so they override
    the defaults only.

    Args:
        run: where the run is; absent = the folder that the recipe names.
        config: the configuration class; absent = `config_class(recipe)`.
        accelerator: whether there is one; absent = what torch finds.
    """
    config = config or config_class(recipe)
    run = run or RunDir(Path(recipe.run.directory) / recipe.run.name)
    if accelerator is None:
        accelerator = has_accelerator()
    fields = {f.name: f for f in dataclasses.fields(config) if f.init}
    known = {
        **_defaults(recipe, fields, accelerator),
        **_from_run(recipe, run, accelerator),
        **_from_rollouts(recipe),
    }
    return {**{k: v for k, v in known.items() if k in fields}, **recipe.trainer.args}


def has_accelerator() -> bool:
    """True if torch sees a device other than the CPU (and accelerate was not told to ignore it)."""
    import os

    import torch

    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):
        return False
    return torch.accelerator.is_available()


def _from_run(recipe: Recipe, run: RunDir, accelerator: bool) -> dict[str, Any]:
    return {
        "output_dir": str(run.checkpoints),
        "run_name": recipe.run.name,
        "seed": recipe.run.seed,
        "data_seed": recipe.run.seed,
        "report_to": list(recipe.run.report_to) or "none",
        "use_cpu": not accelerator,
        "save_strategy": "steps" if recipe.checkpoints.every else "no",
        "save_steps": recipe.checkpoints.every or 500,
        "save_total_limit": None,
    }


def _from_rollouts(recipe: Recipe) -> dict[str, Any]:
    sampling = recipe.rollouts.sampling
    return {
        "max_completion_length": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p or None,
        "repetition_penalty": sampling.repetition_penalty,
        "reward_weights": [reward.weight for reward in recipe.rewards] or None,
        "chat_template_kwargs": dict(recipe.model.template_args) or None,
    }


DEFAULTS: dict[str, str] = {
    "logging_steps": "1: a step of RL is long and every one is worth a line (TRL: 10)",
    "learning_rate": "under an adapter, 10 times TRL's value, which is meant for full fine-tuning",
    "bf16": "false where there is no accelerator or it has no bfloat16; elsewhere TRL's true",
    "gradient_checkpointing": "false on a CPU, where memory is not short and recomputing is; elsewhere TRL's true",
    "dataloader_pin_memory": "false on a CPU, where there is nothing to pin for",
    "disable_tqdm": "true where the output is not a terminal, so that logs hold no progress bars",
    "max_length": "sft, dpo: model.max_length, or no cut (TRL: 1024, which silently cuts off the ends of long answers)",
}
"""Arguments whose default differs from TRL's, and why. Given under `trainer.args`, they are as given."""


def _defaults(recipe: Recipe, fields: dict[str, Any], accelerator: bool) -> dict[str, Any]:
    values: dict[str, Any] = {
        "logging_steps": 1,
        "disable_tqdm": not sys.stderr.isatty(),
        "max_length": recipe.model.max_length,
    }
    if recipe.adapter is not None and "learning_rate" in fields:
        values["learning_rate"] = 10 * fields["learning_rate"].default
    if not accelerator:
        values |= {"bf16": False, "gradient_checkpointing": False, "dataloader_pin_memory": False}
    elif not _has_bfloat16() or recipe.trainer.args.get("fp16"):
        values["bf16"] = False
    return values


def _has_bfloat16() -> bool:
    import torch

    return not torch.cuda.is_available() or torch.cuda.is_bf16_supported()
