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
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    folder = Path(str(adapter.start_from))
    rank = rank_of(folder, "adapter.start_from")
    if rank != adapter.r:
        raise Mistake(f"adapter.r: {adapter.r}, but the adapter in {folder} has rank {rank}; write r: {rank}")
    try:
        loaded = PeftModel.from_pretrained(model, str(folder), is_trainable=True)
        with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
            there = set(file.keys())
    except (ValueError, TypeError, KeyError, AttributeError, OSError, RuntimeError, SafetensorError) as error:
        said = " ".join(str(error).split())[:240]
        raise Mistake(f"adapter.start_from: PEFT cannot load the adapter in {folder}: {said}") from error
    # PEFT only warns of weights that are not there, and trains new ones in their place.
    wanted = set(get_peft_model_state_dict(loaded, save_embedding_layers=False))
    if missing := sorted(wanted - there):
        raise Mistake(
            f"adapter.start_from: {folder} lacks {len(missing)} of the {len(wanted)} weights of its adapter on this model "
            f"(the first: {missing[0]}); is it whole, and was it made for this model?"
        )
    return loaded


def rank_of(folder: Path, where: str) -> int:
    """The rank of the adapter in a folder whose weights are safetensors. `where` begins the message.

    Raises:
        Mistake: no adapter that PEFT saved, or one with pickled weights, which could run code.
    """
    from rollouts.engines import adapters as served
    from rollouts.records import EngineError

    if not (folder / "adapter_config.json").is_file():
        raise Mistake(f"{where}: {folder} holds no adapter_config.json; give a folder that PEFT (or a run) saved")
    try:
        served.check_weights(str(folder), where)
        return int(served.read_config(str(folder), where)["r"])
    except EngineError as error:
        raise Mistake(str(error)) from error


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
