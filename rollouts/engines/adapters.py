"""PEFT adapters as vLLM takes them: what it can serve, which rank it must reserve, and the name of one version."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rollouts.records import EngineError

ALLOWED_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of vLLM's max_lora_rank."""

PREFIX = "posttrain-"
_NAME = re.compile(r"^posttrain-(?P<run>.+)-v(?P<version>\d+)-(?P<hash>[0-9a-f]{12})$")


def reserved_rank(rank: int) -> int:
    """The smallest max_lora_rank of vLLM that holds an adapter of `rank`.

    Raises:
        EngineError: there is none.
    """
    for allowed in ALLOWED_RANKS:
        if rank <= allowed:
            return allowed
    raise EngineError(f"vLLM serves adapters up to rank {ALLOWED_RANKS[-1]}, this one has {rank}; lower adapter.r")


MUTATING = ("pissa", "corda", "olora", "loftq", "lora_ga")
"""Beginnings of PEFT's initialisations that take their share out of the base weights: what they leave is another base."""


def changes_base(config: Mapping[str, Any]) -> bool:
    """True if this adapter fits only the base weights that PEFT made for it in memory, not the base model on disk."""
    init = config.get("init_lora_weights", True)
    return isinstance(init, str) and init.lower().startswith(MUTATING)


def obstacle(config: Mapping[str, Any]) -> str | None:
    """Why vLLM would serve something else than PEFT makes of this adapter configuration; None = it will not.

    vLLM refuses some of these itself and silently ignores the others. Initialisations that change the base weights
    (PiSSA and its kin) make engine base + adapter another model than the trainer's.
    """
    if config.get("peft_type", "LORA") != "LORA":
        return f"peft_type {config['peft_type']}"
    for key in ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "lora_bias", "target_parameters"):
        if config.get(key):
            return f"{key}: {config[key]}"
    if config.get("bias", "none") != "none":
        return f"bias: {config['bias']}"
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower() != "gaussian":
        return f"init_lora_weights: {init}, which changes the base weights"
    targets = config.get("target_modules") or ()
    if not isinstance(targets, str):
        embedded = {"lm_head", "embed_tokens"} & {str(t).rsplit(".", 1)[-1] for t in targets}
        if embedded:
            return f"target_modules with {', '.join(sorted(embedded))}"
    return None


def read_config(directory: str, engine: str) -> dict[str, Any]:
    """The configuration of a LoRA adapter in PEFT's format.

    Raises:
        EngineError: there is none, or it is none.
    """
    file = Path(directory) / "adapter_config.json"
    try:
        config = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise EngineError(
            f"{engine}: {file} cannot be read ({type(error).__name__}); is it a PEFT adapter?"
        ) from error
    rank = config.get("r") if isinstance(config, dict) else None
    if type(rank) is not int or rank < 1:
        raise EngineError(f"{engine}: {file} is no configuration of a LoRA adapter: it has no rank `r`")
    return config


def check_weights(directory: str, engine: str) -> None:
    """Refuse an adapter whose weights are not safetensors: a pickle is a program.

    Raises:
        EngineError
    """
    folder = Path(directory)
    if not (folder / "adapter_model.safetensors").is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        why = "its weights are pickled, which can run code" if pickled else "it holds no adapter_model.safetensors"
        raise EngineError(f"{engine}: adapter {directory}: {why}; save it with PEFT's safe_serialization=True")


def check(directory: str, rank: int | None, engine: str) -> None:
    """Refuse an adapter that the engine would not serve as it is.

    Raises:
        EngineError
    """
    config = read_config(directory, engine)
    check_weights(directory, engine)
    if rank is None:
        raise EngineError(f"{engine}: it was started without adapters, but {directory} is to be served; set lora_rank")
    if config["r"] > rank:
        raise EngineError(f"{engine}: adapter {directory} has rank {config['r']}, the engine was made for {rank}")
    reason = obstacle(config)
    if reason:
        raise EngineError(
            f"{engine}: vLLM cannot serve this adapter faithfully ({reason}); change the `adapter` section, or use "
            "engine: transformers"
        )


def fingerprint(directory: str) -> str:
    """Twelve hexadecimal digits of the adapter's weights and configuration."""
    digest = hashlib.blake2b(digest_size=6)
    for name in ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"):
        file = Path(directory) / name
        if file.is_file():
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def served_name(run_id: str, version: int, directory: str) -> str:
    """`posttrain-<run>-v<version>-<fingerprint>`.

    vLLM keys its prefix cache by the adapter's name. With the weights in the name, blocks of other weights cannot be
    taken for these, not even when a resumed run trains a version a second time.
    """
    return f"{PREFIX}{run_id}-v{version}-{fingerprint(directory)}"


def run_of(name: str) -> str | None:
    """The run whose adapter is served under `name`; None if no run of ours named it."""
    match = _NAME.match(name)
    return match["run"] if match else None


def version_of(name: str) -> int | None:
    match = _NAME.match(name)
    return int(match["version"]) if match else None
