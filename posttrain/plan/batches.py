"""Batches, steps and rollouts of a run.

The arithmetic is that of TRL 1.16 (`GRPOConfig.__post_init__`, `RepeatSampler`, the data loader of `GRPOTrainer`) and of
transformers' `Trainer`; the tests compare the two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from posttrain.errors import Mistake

DEFAULTS: dict[str, Any] = {
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "num_train_epochs": 3.0,
    "max_steps": -1,
    "num_iterations": 1,
    "dataloader_drop_last": False,
    "eval_strategy": "no",
    "max_completion_length": 512,
}
"""TRL's defaults of the arguments that are read here."""

GROUP = {"grpo": 8, "rloo": 2}
"""TRL's default `num_generations`."""

_ARGS = "trainer.args"


@dataclass(frozen=True)
class Geometry:
    """Counts of a run. A *micro-step* is one forward and backward pass of every process; a step is one optimiser step."""

    rows: int
    processes: int
    per_device_batch: int
    gradient_accumulation: int
    samples_per_step: int
    """Sequences that one optimiser step averages over (pairs, for dpo)."""
    steps_per_epoch: int
    total_steps: int
    epochs: float
    rows_dropped_per_epoch: int
    """Rows of the tail that make no whole batch and are left out of an epoch."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class OnlineGeometry(Geometry):
    """And what is generated on the way."""

    group: int
    """Completions of one prompt (`num_generations`)."""
    prompts_per_step: float
    """Prompts whose completions one optimiser step averages over."""
    prompts_per_generation: int
    """Prompts that are answered at once, with one version of the policy."""
    rollouts_per_generation: int
    steps_per_generation: int
    """Micro-steps that one generation batch is cut into."""
    iterations: int
    """Times that each generation batch is trained on."""
    updates_per_generation: float
    """Optimiser steps made on one generation batch; above 1 the later ones are off-policy."""
    generations: int
    """Generation batches in all."""
    rollouts: int
    """Completions in all."""
    completion_tokens_at_most: int


def geometry(args: Mapping[str, Any], n_rows: int, world_size: int, algorithm: str) -> Geometry:
    """The counts of a run.

    Args:
        args: arguments of the TRL configuration class; absent ones have TRL's defaults.
        n_rows: rows of the training data (after filtering; with packing, the packed rows).
        world_size: training processes.
        algorithm: `grpo` and `rloo` generate; so does every other name that comes with `num_generations`.

    Raises:
        Mistake: the numbers don't divide, or make no step at all: which, and the nearest that work.
    """
    wanted = {**DEFAULTS, **{k: v for k, v in args.items() if v is not None}}
    for key in ("per_device_train_batch_size", "gradient_accumulation_steps", "num_iterations"):
        if wanted[key] < 1:
            raise Mistake(f"{_ARGS}.{key}: should be at least 1, got {wanted[key]}")
    if world_size < 1:
        raise Mistake(f"the number of processes should be at least 1, got {world_size}")
    if algorithm in GROUP or "num_generations" in wanted:
        return _online(wanted, n_rows, world_size, GROUP.get(algorithm, 8))
    return _offline(wanted, n_rows, world_size)


def _online(args: Mapping[str, Any], n_rows: int, world: int, default_group: int) -> OnlineGeometry:
    per_device, accumulation = args["per_device_train_batch_size"], args["gradient_accumulation_steps"]
    group = args.get("num_generations", default_group)
    if group < 2:
        raise Mistake(f"{_ARGS}.num_generations: a group needs at least 2 completions to compare, got {group}")
    rollouts, micro = generation_batch(args, world, group)
    if args["eval_strategy"] != "no":
        _check_eval(args, world, args.get("num_generations_eval") or group)
    prompts = rollouts // group
    whole = n_rows // prompts
    if whole == 0:
        raise Mistake(
            f"data.train: {n_rows} row{'s' * (n_rows != 1)}, but a generation batch asks {prompts} different prompts "
            f"({rollouts} rollouts / num_generations {group}), so there would be 0 steps; "
            f"give at least {prompts} rows, or a smaller batch"
        )
    repeats = micro * args["num_iterations"]
    micro_steps = whole * repeats
    per_epoch, total = _steps(args, micro_steps)
    epochs_done, rest = divmod(total, per_epoch)
    generations = epochs_done * whole + math.ceil(min(rest * accumulation, micro_steps) / repeats)
    samples = per_device * world * accumulation
    return OnlineGeometry(
        rows=n_rows,
        processes=world,
        per_device_batch=per_device,
        gradient_accumulation=accumulation,
        samples_per_step=samples,
        steps_per_epoch=per_epoch,
        total_steps=total,
        epochs=total / per_epoch,
        rows_dropped_per_epoch=n_rows - whole * prompts,
        group=group,
        prompts_per_step=samples / group,
        prompts_per_generation=prompts,
        rollouts_per_generation=rollouts,
        steps_per_generation=micro,
        iterations=args["num_iterations"],
        updates_per_generation=repeats / accumulation,
        generations=generations,
        rollouts=generations * rollouts,
        completion_tokens_at_most=generations * rollouts * args["max_completion_length"],
    )


def generation_batch(args: Mapping[str, Any], world: int, group: int) -> tuple[int, int]:
    """Rollouts of one generation batch over all processes, and the micro-steps it is cut into.

    Raises:
        Mistake: no whole number of micro-steps, or of groups.
    """
    per_device = args["per_device_train_batch_size"]
    step = per_device * world
    size, micro = args.get("generation_batch_size"), args.get("steps_per_generation")
    if size is not None and micro is not None:
        raise Mistake(
            f"{_ARGS}.generation_batch_size: steps_per_generation is given as well; one follows from the other, leave one out"
        )
    if size is not None:
        both = math.lcm(step, group)
        if size < 1 or size % step or size % group:
            raise Mistake(
                f"{_ARGS}.generation_batch_size: {size} is not a multiple of both per_device_train_batch_size {per_device} x "
                f"{_processes(world)} = {step} and num_generations {group}; nearest that work: {_multiples(size, both)}"
            )
        return size, size // step
    name = "gradient_accumulation_steps" if micro is None else "steps_per_generation"
    micro = args["gradient_accumulation_steps"] if micro is None else micro
    if micro < 1:
        raise Mistake(f"{_ARGS}.{name}: should be at least 1, got {micro}")
    size = step * micro
    if size % group:
        whole = group // math.gcd(step, group)
        below = next((n for n in range(group - 1, max(1, group - 10_000), -1) if size % n == 0), None)
        above = next((n for n in range(group + 1, min(size, group + 10_000) + 1) if size % n == 0), None)
        near = [n for n in (below, above) if n is not None]
        or_group = f", or num_generations {' or '.join(map(str, near))}" if near else ""
        raise Mistake(
            f"{_ARGS}.num_generations: per_device_train_batch_size {per_device} x {_processes(world)} x {name} {micro} = "
            f"{size} rollouts are not a multiple of num_generations {group}; "
            f"nearest that work: {name} {_multiples(micro, whole)}{or_group}"
        )
    return size, micro


def _check_eval(args: Mapping[str, Any], world: int, group: int) -> None:
    size = args["per_device_eval_batch_size"]
    if size * world % group:
        whole = group // math.gcd(world, group)
        raise Mistake(
            f"{_ARGS}.per_device_eval_batch_size: {size} x {_processes(world)} = {size * world} is not a multiple of the "
            f"{group} completions a prompt; nearest that work: {_multiples(size, whole)}"
        )


def _processes(world: int) -> str:
    return f"{world} process{'es' if world != 1 else ''}"


def _multiples(value: int, of: int) -> str:
    """The multiples of `of` around `value`, at least one of them."""
    below = value // of * of
    return f"{below} or {below + of}" if below > 0 else str(below + of)


def _steps(args: Mapping[str, Any], micro_steps: int) -> tuple[int, int]:
    """Optimiser steps of an epoch and in all, as `transformers.Trainer` counts them: the last one may be short."""
    per_epoch = max(1, math.ceil(micro_steps / args["gradient_accumulation_steps"]))
    if args["max_steps"] == 0:
        raise Mistake(f"{_ARGS}.max_steps: 0 steps; give a number, or leave it out and give num_train_epochs")
    if args["max_steps"] > 0:
        return per_epoch, args["max_steps"]
    total = math.ceil(args["num_train_epochs"] * per_epoch)
    if total < 1:
        raise Mistake(
            f"{_ARGS}.num_train_epochs: {args['num_train_epochs']:g} epochs are 0 steps; give more, or max_steps"
        )
    return per_epoch, total


def _offline(args: Mapping[str, Any], n_rows: int, world: int) -> Geometry:
    per_device, accumulation = args["per_device_train_batch_size"], args["gradient_accumulation_steps"]
    if n_rows < 1:
        raise Mistake("data.train: no rows, so there would be 0 steps")
    if args["dataloader_drop_last"]:
        micro_steps = n_rows // per_device // world
        dropped = n_rows - micro_steps * per_device * world
        if micro_steps == 0:
            raise Mistake(
                f"data.train: {n_rows} rows make no whole batch of {per_device} x {_processes(world)} and "
                "dataloader_drop_last is true, so there would be 0 steps"
            )
    else:
        # A process without rows in the last batch gets some from the beginning again.
        micro_steps = math.ceil(math.ceil(n_rows / per_device) / world)
        dropped = 0
    per_epoch, total = _steps(args, micro_steps)
    return Geometry(
        rows=n_rows,
        processes=world,
        per_device_batch=per_device,
        gradient_accumulation=accumulation,
        samples_per_step=per_device * world * accumulation,
        steps_per_epoch=per_epoch,
        total_steps=total,
        epochs=total / per_epoch,
        rows_dropped_per_epoch=dropped,
    )
