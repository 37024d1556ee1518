"""How an evaluation is going: a bar on stderr with the estimate so far."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from posttrain.evaluation.results import by_item
from posttrain.evaluation.statistics import estimates

Lines = Sequence[Mapping[str, Any]]


@contextmanager
def bar(
    name: str, total: int, progress: bool | None, tell: Callable[[Lines], str] | None = None
) -> Iterator[Callable[[Lines], None]]:
    """A progress bar on stderr; what it yields takes all lines so far, of which `tell` (absent: `running`) says a few words.
    `progress` None: only on a terminal."""
    if progress is False or (progress is None and not sys.stderr.isatty()):
        yield lambda lines: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[so_far]}"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=console.is_terminal) as shown:
        task = shown.add_task(name, total=total, so_far="")

        def update(lines: Lines) -> None:
            shown.update(task, completed=len(lines), so_far=(tell or running)(lines))

        yield update


def running(lines: Lines) -> str:
    """Accuracy so far, with its interval, in a few characters; problems still being sampled count with what they have."""
    items = by_item(dict(line) for line in lines)
    if not items:
        return ""
    values = [sum(line["score"] for line in item) / len(item) for item in items.values()]
    found = estimates.estimate(values, [item[0]["cluster"] for item in items.values()])
    return said(found.value, found.low, found.high)


def said(value: float | None, low: float | None, high: float | None) -> str:
    """`accuracy 0.431 [0.382, 0.481]`."""
    if value is None:
        return ""
    return f"accuracy {value:.3f}" + ("" if low is None or high is None else f" [{low:.3f}, {high:.3f}]")
