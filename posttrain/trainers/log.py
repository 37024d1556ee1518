"""`metrics.jsonl`, phase times, evaluation on schedule: callbacks that every trainer gets."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from rich import progress as rich_progress
from rich.console import Console
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from posttrain.rundir import append_line
from posttrain.trainers.parts import Parts
from rewards.criteria import aggregate


class MetricsFile(TrainerCallback):
    """Appends what the trainer logs to `metrics.jsonl`, one line a log, whatever trackers there are besides."""

    def __init__(self, parts: Parts):
        self.parts = parts

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if not state.is_world_process_zero or not logs:
            return
        phase = (
            "summary" if "train_runtime" in logs else "eval" if any(k.startswith("eval_") for k in logs) else "train"
        )
        numbers = {k.removeprefix("eval_"): v for k, v in logs.items() if isinstance(v, int | float) or v is None}
        finite = {k: v if v is None or math.isfinite(v) else None for k, v in numbers.items()}
        if (mean := finite.get("rubric/mean")) is not None:
            finite["rubric/clipped_mean"] = aggregate([mean])
        if self.parts.failed_saves:
            finite["checkpoints/failed"] = self.parts.failed_saves
        self.parts.run.check()
        append_line(self.parts.run.metrics, {"step": state.global_step, "phase": phase, "time": time.time(), **finite})


class PhaseTimes(TrainerCallback):
    """Hands the seconds of each phase of a step to TRL's own metrics, so that trackers see them too."""

    def __init__(self, trainer: Any, parts: Parts):
        self.trainer = trainer
        self.timer = parts.timer
        self._optimizer = ExitStack()

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.timer.take()

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        self._optimizer.enter_context(self.timer("training"))

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        self._optimizer.close()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        for phase, seconds in self.timer.take().items():
            self.trainer._metrics["train"][f"time/{phase}"].append(seconds)


class Every:
    """Calls `do(step)` after every `steps` optimiser steps, on all processes. One of `Parts.after_step`."""

    def __init__(self, steps: int, do: Callable[[int], None]):
        self.steps = steps
        self.do = do

    def __call__(self, state: Any) -> None:
        if state.global_step % self.steps == 0 and state.global_step < state.max_steps:
            self.do(state.global_step)


def callbacks(parts: Parts) -> list[TrainerCallback]:
    """What every trainer gets when it is constructed."""
    return [MetricsFile(parts)]


class Progress(TrainerCallback):
    """A bar with the few numbers that say how it goes; where the output is no terminal, a line now and then."""

    SHOWN = ("reward", "loss", "completions/mean_length", "completions/truncated", "entropy", "mean_token_accuracy",
             "rewards/accuracies")  # fmt: skip
    SECONDS_BETWEEN_LINES = 10.0

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._said = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        console = Console()
        if console.is_terminal:
            self._bar = rich_progress.Progress(
                rich_progress.TextColumn("training"),
                rich_progress.BarColumn(),
                rich_progress.MofNCompleteColumn(),
                rich_progress.TimeRemainingColumn(),
                rich_progress.TextColumn("{task.description}"),
                console=console,
            )
            self._task = self._bar.add_task("", total=state.max_steps, completed=state.global_step)
            self._bar.start()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if not state.is_world_process_zero or not logs or "train_runtime" in logs:
            return
        numbers = {k.rpartition("/")[2]: logs[k] for k in self.SHOWN if isinstance(logs.get(k), int | float)}
        told = "  ".join(f"{k} {v:.3g}" for k, v in numbers.items())
        if self._bar is not None:
            self._bar.update(self._task, completed=state.global_step, description=told)
        elif state.global_step in (1, state.max_steps) or time.monotonic() - self._said > self.SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            print(f"step {state.global_step}/{state.max_steps}  {told}", flush=True)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def connect(trainer: Any, parts: Parts) -> None:
    """What needs the constructed trainer."""
    trainer.add_callback(PhaseTimes(trainer, parts))
    # transformers prints whole dictionaries of metrics, or a bar that knows nothing of rewards.
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    progress = Progress()
    trainer.add_callback(progress)
    parts.stack.callback(progress.on_train_end)
