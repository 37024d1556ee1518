"""PEFT adapters: make the configuration, save one version whole and atomically, from any kind of sharding."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from posttrain.errors import Mistake
from posttrain.recipe.schema import Adapter


def is_peft(model: Any) -> bool:
    from peft import PeftModel

    return isinstance(model, PeftModel)


def config(adapter: Adapter) -> Any:
    """The `peft.LoraConfig` of a recipe's `adapter`."""
    from peft import LoraConfig

    fields = adapter.model_dump(exclude={"start_from"})
    return LoraConfig(**fields, task_type="CAUSAL_LM")


def attach_existing(model: Any, adapter: Adapter) -> Any:
    """`model` with the adapter of `adapter.start_from`, trainable.

    Raises:
        Mistake: the folder holds no PEFT adapter, or one of another rank.
    """
    from peft import PeftConfig, PeftModel

    folder = Path(str(adapter.start_from))
    if not (folder / "adapter_config.json").is_file():
        raise Mistake(f"adapter.start_from: {folder} holds no adapter_config.json; give a folder that PEFT saved")
    if not (folder / "adapter_model.safetensors").is_file():
        why = "are pickled, and a pickle can run code" if (folder / "adapter_model.bin").is_file() else "are missing"
        raise Mistake(
            f"adapter.start_from: the weights in {folder} {why}; it must hold adapter_model.safetensors (save_pretrained "
            "writes it)"
        )
    try:
        found = PeftConfig.from_pretrained(str(folder))
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise Mistake(
            f"adapter.start_from: {folder}/adapter_config.json cannot be read: {' '.join(str(error).split())[:200]}"
        ) from error
    if found.r != adapter.r:
        raise Mistake(f"adapter.r: {adapter.r}, but the adapter in {folder} has rank {found.r}; write r: {found.r}")
    return PeftModel.from_pretrained(model, str(folder), is_trainable=True)


def save(model: Any, target: Path, accelerator: Any) -> None:
    """Save the active adapter of `model` (a PeftModel, unwrapped) as `target`, a folder in PEFT's own format.

    All processes take part (sharded weights are gathered, adapter weights only); the main one writes. The folder
    appears whole or not at all.
    """
    state = _gathered(model, accelerator)
    if accelerator.is_main_process:
        # PEFT reads the base model's embeddings only to decide whether they were resized; they never are here.
        _replace_folder(
            target,
            lambda folder: model.save_pretrained(
                folder, state_dict=state, safe_serialization=True, save_embedding_layers=False
            ),
        )
    accelerator.wait_for_everyone()


def save_whole(model: Any, tokenizer: Any, target: Path, state: dict[str, Any] | None = None) -> None:
    """Save a whole model and its tokenizer as `target`, whole or not at all. Call it on the main process."""

    def write(folder: str) -> None:
        model.save_pretrained(folder, state_dict=state, safe_serialization=True)
        tokenizer.save_pretrained(folder)

    _replace_folder(target, write)


def _gathered(model: Any, accelerator: Any) -> dict[str, Any]:
    """The adapter's weights, unsharded, on the CPU: parameter name -> tensor."""
    trained = {name: p for name, p in model.named_parameters() if "lora_" in name or p.requires_grad}
    with _zero3(list(trained.values()), accelerator):
        return {
            name: (p.full_tensor() if hasattr(p, "full_tensor") else p).detach().cpu().clone()
            for name, p in trained.items()
        }


def _zero3(parameters: list[Any], accelerator: Any) -> Any:
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    if plugin is None or plugin.zero_stage != 3:
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(parameters)


def _replace_folder(target: Path, write: Callable[[str], None]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        os.chmod(staging, 0o755)
        write(str(staging))
        if target.exists():
            shutil.rmtree(target)
        os.replace(staging, target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
