"""What a trainer is between two optimiser steps, besides its weights, optimiser and schedule: enough to go on as if nothing
had been.

A boundary is taken at the end of every optimiser step. It holds references where nothing writes into them (the rollouts that
wait to be trained on) and copies where something does, so taking one costs well under a millisecond. One a process.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from posttrain.errors import Alarm
from posttrain.rundir import write_atomic
from posttrain.trainers.frozen import sums

FORMAT = 2

NUMBERS = ("_step", "_current_train_step_time", "_total_train_tokens", "_total_loss_scalar", "_globalstep_last_logged",
           "current_flos", "entropy_coef", "_last_world_entropy")  # fmt: skip
"""Attributes of TRL's and transformers' trainers that change from step to step; a trainer has those it needs."""


@runtime_checkable
class Stateful(Protocol):
    """Something whose state belongs into a checkpoint: plain data that JSON can hold."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class Boundary:
    """The state of one process after `step` optimiser steps."""

    step: int
    plain: dict[str, Any]
    """What JSON can hold."""
    tensors: dict[str, Tensor]
    trainer_state: Any = None
    """transformers' `TrainerState`, its log cut at this step. Not in the files of this process: transformers writes it."""
    logged: int = 0
    """Entries of its log."""

    # -- files ----------------------------------------------------------------------------------------------------------

    def write(self, folder: Path, rank: int, durable: bool = True) -> None:
        """Two files in `folder`; the second is written when the first is whole. `durable`: see `write_atomic`."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        # Micro-batches are views of one batch, and safetensors takes no tensors that share memory.
        save_file(
            {k: v.detach().cpu().clone().contiguous() for k, v in self.tensors.items()}, tensors_of(folder, rank)
        )
        text = json.dumps({"format": FORMAT, "step": self.step, **self.plain})
        write_atomic(plain_of(folder, rank), text, durable)

    @classmethod
    def read(cls, folder: Path, rank: int) -> Boundary:
        """The state that `write` wrote.

        Raises:
            Alarm: it is not there, or is of another format.
        """
        from safetensors.torch import load_file

        try:
            plain = json.loads(plain_of(folder, rank).read_text())
            tensors = load_file(tensors_of(folder, rank))
        except (OSError, ValueError) as error:
            raise Alarm(
                f"{folder}: the state of process {rank} cannot be read ({error}); remove the folder to go on from an "
                "older checkpoint, or begin anew with --restart"
            ) from error
        if plain.pop("format", None) != FORMAT:
            raise Alarm(
                f"{folder}: the state of process {rank} was written by another version of posttrain; --restart"
            )
        return cls(step=plain.pop("step"), plain=plain, tensors=tensors)

    def state_text(self) -> str:
        """`trainer_state.json` as transformers writes it, of this step."""
        state = copy.copy(self.trainer_state)
        state.log_history = state.log_history[: self.logged]
        return json.dumps(asdict(state), indent=2, sort_keys=True) + "\n"


def plain_of(folder: Path, rank: int) -> Path:
    return folder / f"posttrain-r{rank}.json"


def tensors_of(folder: Path, rank: int) -> Path:
    return folder / f"posttrain-r{rank}.safetensors"


# Taking one


def take(trainer: Any, stateful: dict[str, Stateful], **more: Any) -> Boundary:
    """The boundary at which `trainer` is now, with `more` plain data. Call it between two optimiser steps, on the thread that
    trains."""
    tensors: dict[str, Tensor] = {}
    plain = {
        **more,
        "numbers": {name: number(getattr(trainer, name)) for name in NUMBERS if hasattr(trainer, name)},
        "metrics": {mode: {k: [number(v) for v in of[k]] for k in of} for mode, of in trainer._metrics.items()},
        "random": random_state(tensors, "random", trainer.order),
        "buffered": _held(getattr(trainer, "_buffered_inputs", None), tensors),
        "completions": _completions(trainer),
        "stateful": {name: thing.state_dict() for name, thing in stateful.items()},
    }
    tensors["loss"] = trainer._tr_loss.detach().clone()
    if (stats := getattr(trainer, "_entropy_window_stats", None)) is not None:
        tensors["entropy_window"] = stats.detach().clone()
    state = copy.copy(trainer.state)
    return Boundary(trainer.state.global_step, plain, tensors, state, len(state.log_history))


def number(value: Any) -> Any:
    """A tensor or numpy number as Python's."""
    if isinstance(value, Tensor):
        value = value.item()
    return value.item() if isinstance(value, np.generic) else value


def random_state(tensors: dict[str, Tensor], prefix: str, order: Any) -> dict[str, Any]:
    """Every random stream of this process: plain data, and tensors whose names begin with `prefix`.

    Args:
        order: the sampler of the training rows; its generator, if it has one, is a stream too.
    """
    name, keys, position, has_gauss, gauss = np.random.get_state()
    tensors[f"{prefix}/torch"] = torch.get_rng_state()
    tensors[f"{prefix}/numpy"] = torch.from_numpy(np.array(keys, dtype=np.int64))
    if torch.cuda.is_available():
        tensors[f"{prefix}/cuda"] = torch.cuda.get_rng_state()
    if isinstance(generator := getattr(order, "generator", None), torch.Generator):
        tensors[f"{prefix}/order"] = generator.get_state()
    version, internal, gauss_next = random.getstate()
    return {"numpy": [name, position, has_gauss, gauss], "python": [version, list(internal), gauss_next]}


def _held(batches: Any, tensors: dict[str, Tensor]) -> Any:
    """Micro-batches of the last generation: names of tensors, and the values that are none."""
    if batches is None:
        return None
    listed = []
    for i, batch in enumerate(batches):
        entry: dict[str, Any] = {}
        for key, value in batch.items():
            if isinstance(value, Tensor):
                tensors[f"batch/{i}/{key}"] = value
                entry[key] = None
            elif value is None or isinstance(value, int | float | str | bool):
                entry[key] = [value]
            else:
                raise Alarm(
                    f"the trainer's batch holds a {type(value).__name__} under {key}, which no checkpoint can hold; set "
                    "checkpoints.every: 0"
                )
        listed.append(entry)
    return listed


def _completions(trainer: Any) -> Any:
    """TRL's table of completions, which is printed at the next log if `log_completions` is on."""
    if not getattr(trainer, "log_completions", False):
        return None
    logs = trainer._logs
    return {
        **{k: list(logs[k]) for k in ("prompt", "completion", "advantages")},
        **{k: {name: list(of) for name, of in logs[k].items()} for k in ("rewards", "extra")},
    }


# Going back to one


def restore_random(state: dict[str, Any], tensors: dict[str, Tensor], prefix: str, order: Any) -> None:
    """Every random stream of this process is where it was when `random_state` gave `state`."""
    name, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, tensors[f"{prefix}/numpy"].numpy().astype(np.uint32), position, has_gauss, gauss))
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    torch.set_rng_state(tensors[f"{prefix}/torch"])
    if f"{prefix}/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors[f"{prefix}/cuda"])
    if f"{prefix}/order" in tensors and isinstance(generator := getattr(order, "generator", None), torch.Generator):
        generator.set_state(tensors[f"{prefix}/order"])


def restore(trainer: Any, boundary: Boundary, stateful: dict[str, Stateful]) -> None:
    """Everything but the random streams. Call it when transformers has loaded weights, optimiser and its own state.

    Raises:
        Alarm: the checkpoint was written by a run with other parts.
    """
    device = trainer.accelerator.device
    plain = boundary.plain
    for name, value in plain["numbers"].items():
        setattr(trainer, name, value)
    for mode, of in plain["metrics"].items():
        trainer._metrics[mode] = defaultdict(list, {k: list(v) for k, v in of.items()})
    trainer._tr_loss = boundary.tensors["loss"].to(device)
    if "entropy_window" in boundary.tensors:
        trainer._entropy_window_stats = boundary.tensors["entropy_window"].to(device)
    if plain["buffered"] is not None:
        trainer._buffered_inputs = [
            {k: boundary.tensors[f"batch/{i}/{k}"].to(device) if v is None else v[0] for k, v in batch.items()}
            for i, batch in enumerate(plain["buffered"])
        ]
    if plain["completions"] is not None:
        _fill(trainer._logs, plain["completions"])
    if plain["stateful"].keys() != stateful.keys():
        was, now = sorted(plain["stateful"]), sorted(stateful)
        raise Alarm(f"the checkpoint holds the state of {', '.join(was)}, this run has {', '.join(now)}; --restart")
    for name, thing in stateful.items():
        try:
            thing.load_state_dict(plain["stateful"][name])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Alarm(
                f"the state of the {name} in the checkpoint does not fit ({type(error).__name__}: {error}): it was written by "
                "another version; go on with that one, or begin anew with --restart"
            ) from error


def _fill(logs: Any, held: dict[str, Any]) -> None:
    for key in ("prompt", "completion", "advantages"):
        logs[key].extend(held[key])
    for key in ("rewards", "extra"):
        for name, values in held[key].items():
            logs[key][name].extend(values)


# A reference model that is synced (TRL's `sync_ref_model`): its weights are those of no file

REFERENCE = "reference.safetensors"


def write_reference(trainer: Any, folder: Path) -> None:
    """The main process's copy; all have the same."""
    if not getattr(trainer.args, "sync_ref_model", False) or not trainer.accelerator.is_main_process:
        return
    from safetensors.torch import save_file

    state = trainer.accelerator.unwrap_model(trainer.ref_model).state_dict()
    save_file({k: v.detach().cpu().clone().contiguous() for k, v in state.items()}, folder / REFERENCE)


def restore_reference(trainer: Any, folder: Path) -> None:
    if getattr(trainer.args, "sync_ref_model", False):
        from safetensors.torch import load_file

        trainer.accelerator.unwrap_model(trainer.ref_model).load_state_dict(load_file(folder / REFERENCE))


# Trained weights


def load_adapter(trainer: Any, folder: Path) -> None:
    """The trained adapter of a checkpoint, where TRL keeps a frozen copy of it beside (`adapter.start_from` with a KL penalty):
    transformers loads the adapters in subfolders then, and not the one that is trained."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if sharded(trainer) or len(getattr(model, "peft_config", ())) < 2:
        return
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"), model.active_adapter)


def digest(trainer: Any) -> str:
    """Of the values of the trained weights, by name; empty where they are sharded over processes."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if sharded(trainer):
        return ""
    text = json.dumps(sums(trained), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def sharded(trainer: Any) -> bool:
    """True if no process holds the whole model, so that saving takes all of them."""
    return bool(trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)
