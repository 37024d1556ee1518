"""From a recipe (or a command line) to a rollout engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posttrain import models
from posttrain.imports import Use, resolve_path
from posttrain.recipe.schema import Adapter, Model
from rollouts.engines import ENGINES
from rollouts.records import Engine, EngineSpec


def spec(
    model: Model, tokenizer: Any, *, adapter: Adapter | None = None, lora_rank: int | None = None, run_id: str = "run"
) -> EngineSpec:
    """What an engine must know of `model`. `lora_rank`: the largest rank to be loaded, absent = the adapter's own."""
    config = models.load_config(model)
    rank = lora_rank if lora_rank is not None else adapter.r if adapter else None
    return EngineSpec(
        model=models.locate(model),
        eos_ids=models.eos_ids(tokenizer, models.load_generation_config(model)),
        pad_id=tokenizer.pad_token_id,
        max_model_len=models.max_length(model, config),
        dtype=model.dtype,
        revision=model.revision,
        lora_rank=rank,
        run_id=run_id,
        attention=model.attention,
        trust_remote_code=models.allows_code(),
    )


def build(use: str, arguments: Mapping[str, Any], spec: EngineSpec, where: str = "rollouts.engine") -> Engine:
    """The engine named `use` (short name or import path), constructed with `spec` and its own options."""
    return Use(resolve_path(use, ENGINES, f"{where}.use"), dict(arguments), where).build(spec=spec)
