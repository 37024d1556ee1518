"""Is there room: for the prompts in the model, for the run in memory, for its checkpoints on the disk?"""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path
from typing import Any

from posttrain import adapters, models
from posttrain import plan as planning
from posttrain.findings import Finding, bad, good, idle
from posttrain.machine import host_memory, resident
from posttrain.plan import Memory, Shape, size
from posttrain.preflight.scene import Scene
from posttrain.preflight.sharding import shards
from posttrain.scaffolding import prompt_of_loss
from posttrain.trainers.follow import KEEP_VERSIONS


def prompts_fit(scene: Scene) -> Finding:
    """The longest prompt leaves room for the longest completion, in the model and in the engine."""
    most = models.max_length(scene.recipe.model, scene.trainer.model.config)
    where = "model"
    served = getattr(scene.parts.engine, "max_len", None)
    if isinstance(served, int) and served < most:
        most, where = served, "engine"
    if not scene.online:
        return _rows_fit(scene, most)
    wanted = scene.parts.sampling.max_tokens
    longest, row = scene.longest_prompt
    told = f"longest prompt {longest} tokens ({row}) + max_tokens {wanted} = {longest + wanted}"
    if (seen := scene.parts.seen_tokens) > longest:
        longest, told = seen, f"longest prompt with its scaffold {seen} tokens + max_tokens {wanted} = {seen + wanted}"
    if longest + wanted > most:
        return bad(
            f"{told} is more than the {where}'s {most}: such completions would be cut short",
            f"lower rollouts.sampling.max_tokens, or set data.train.max_prompt_tokens: {max(most - wanted, 1)}",
        )
    return good(f"{told} of {most}")


def _rows_fit(scene: Scene, most: int) -> Finding:
    """What TRL made of the rows: none longer than the model, none cut."""
    data = scene.trainer.train_dataset
    columns = getattr(data, "column_names", None) or []
    cut, eos = scene.trainer.args.max_length, scene.tokenizer.eos_token_id
    if "input_ids" in columns:
        lengths = _lengths(data, "input_ids")
        packed = getattr(scene.trainer.args, "packing", False)
        # SFT has cut its rows by now: one of exactly that length has lost its end, unless its end is there.
        at_limit = [] if cut is None or packed else [i for i, n in enumerate(lengths) if n >= cut]
        lost = [i for i in at_limit if eos not in data[i]["input_ids"][-4:]]
    elif "chosen_ids" in columns:
        answers = [
            max(pair) for pair in zip(_lengths(data, "chosen_ids"), _lengths(data, "rejected_ids"), strict=True)
        ]
        lengths = [sum(both) for both in zip(_lengths(data, "prompt_ids"), answers, strict=True)]
        lost = [] if cut is None else [i for i, n in enumerate(lengths) if n > cut]
    else:
        return idle("rows without token ids")
    if lost:
        return bad(
            f"{len(lost)} of {len(lengths)} rows are longer than {cut} tokens and lose their ends (max_length)",
            "raise model.max_length, or leave those rows out of the data",
        )
    if max(lengths) > most:
        return bad(
            f"the longest row has {max(lengths)} tokens, the model {most} positions",
            "leave longer rows out of the data",
        )
    return good(f"{len(lengths)} rows, the longest of {max(lengths)} tokens, of {most}")


def _lengths(data: Any, column: str) -> list[int]:
    """Lengths of a column's lists, without making Python's own of them."""
    import pyarrow.compute as pc

    return pc.list_value_length(data.with_format("arrow")[column]).to_pylist()


def memory_fits(scene: Scene) -> Finding:
    """The estimate of `posttrain plan` against what this machine has."""
    config = scene.trainer.model.config.get_text_config()
    longest = prompt_of_loss(scene.parts.strategy, scene.longest_prompt[0], scene.parts.seen_tokens)
    processes = scene.world.num_processes
    wanted: Memory = planning.memory_of(
        scene.recipe, config, scene.parts.arguments, processes, prompt_tokens=longest,
        seen_tokens=scene.parts.seen_tokens, shards=shards(scene.trainer.accelerator),
    )  # fmt: skip
    have, where = capacity(scene.trainer.accelerator.device)
    need = wanted.total
    if have is None:
        return idle(f"estimate {size(need)}; how much there is cannot be told on this system")
    if where == "memory":
        # Of the processes here each will grow as this one will, and holds by now what this one holds.
        beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        need, have = need * beside, have + resident() * (beside - 1)
    told = f"estimate {size(need)} of {size(have)} {where}"
    if need <= have:
        return good(told)
    if not Shape.of(config).exact:
        return idle(f"{told}; but model type {config.model_type} is counted as if it were Llama's")
    largest = max(("activations", wanted.activations), ("cache", wanted.cache), ("optimiser", wanted.optimiser),
                  ("weights", wanted.weights), key=lambda part: part[1])[0]  # fmt: skip
    return bad(f"{told}; most of it {largest}", MENDS[largest])


MENDS = {
    "activations": "lower trainer.args.per_device_train_batch_size (and raise gradient_accumulation_steps), or set gradient_checkpointing: true",
    "cache": "lower trainer.args.generation_batch_size or rollouts.sampling.max_tokens, or use a vLLM engine",
    "optimiser": "train an adapter, or shard over processes (recipes/accelerate/fsdp2.yaml)",
    "weights": "use model.dtype: bfloat16 under an adapter, or shard over processes (recipes/accelerate/fsdp2.yaml)",
}


def capacity(device: Any) -> tuple[int | None, str]:
    """Bytes (None: not known) that this process may come to hold on `device`, what it holds already included; and what they are called."""
    import torch

    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device), f"on {torch.cuda.get_device_name(device)}"
    free = host_memory()
    return None if free is None else free + resident(), "memory"


def disk_fits(scene: Scene) -> Finding:
    """Room for the checkpoints that are kept, the one being written, the result, and the versions for the engine."""
    saved, state = _sizes(scene)
    keep = scene.recipe.checkpoints
    kept = keep.keep + keep.keep_best + 1 if keep.every else 1
    engine = scene.parts.engine
    versions = KEEP_VERSIONS + 1 if engine is not None and not engine.same_numerics else 0
    need = kept * (saved + state) + (1 + versions) * saved
    root = scene.parts.run.root
    there = _used(scene.parts.run.checkpoints) + _used(scene.parts.run.adapters)
    free = shutil.disk_usage(root).free + there
    told = f"{kept} checkpoints of {size(saved + state)} and the result: {size(need)} of {size(free)} free in {root}"
    if need > free:
        return bad(told, "make room, set run.directory to another disk, or lower checkpoints.keep")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    largest = max(saved, state)
    if limit != resource.RLIM_INFINITY and largest > limit:
        return bad(
            f"files may have {size(limit)} here (ulimit -f), the largest needs {size(largest)}", "raise the limit"
        )
    return good(told)


def _sizes(scene: Scene) -> tuple[int, int]:
    """Bytes of the weights that are saved, and of the optimiser's state."""
    model = scene.trainer.model
    trained = [p for p in model.parameters() if p.requires_grad]
    saved = trained if adapters.is_peft(model) else list(model.parameters())
    weights = sum(p.numel() * p.element_size() for p in saved)
    wanted = planning.memory_of(
        scene.recipe, model.config.get_text_config(), scene.parts.arguments, 1, prompt_tokens=1
    )
    each = wanted.optimiser / max(wanted.gradients, 1)  # bytes kept for each byte of trained weights
    return weights, int(each * sum(p.numel() * p.element_size() for p in trained))


def _used(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0
