"""What is printed of an evaluation and of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posttrain import terminal
from posttrain.evaluation.compare import Comparison
from posttrain.evaluation.results import Result


def print_result(result: Result) -> None:
    """The table of one evaluation, on stdout."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=_plain(f"{result.benchmark}: {result.n} problems × {result.k} sample{'s' if result.k > 1 else ''}"),
        show_header=False,
        title_justify="left",
    )
    table.add_row("model", _plain(f"{result.model} + {result.adapter}" if result.adapter else result.model))
    table.add_row("accuracy", _plain(f"{percent(result.accuracy)}   ({result.accuracy['method']})"))
    if result.k > 1:
        for name, found in result.metrics.items():
            if name.startswith(("pass@", "maj@")) and name != "pass@1":
                table.add_row(name, percent(found))
    table.add_row("truncated", f"{result.truncated:.1%}")
    table.add_row("no answer", f"{result.no_answer:.1%}")
    if result.timeouts:
        table.add_row("grading timeouts", f"{result.timeouts:.1%}")
    if result.aborted:
        table.add_row("aborted", f"{result.aborted:.1%}")
    table.add_row("tokens", f"{result.tokens:,} ({result.tokens / (result.n * result.k):.0f} a sample)")
    table.add_row("seconds", f"{result.seconds:.1f}")
    table.add_row("written to", _plain(str(result.directory)))
    console = Console()
    console.print(table)
    for note in result.notes:
        console.print(_plain(f"note: {note}"))


def print_comparison(found: Comparison) -> None:
    """The comparison, on stdout: what, by how much, how sure."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=_plain(f"{found.benchmark}: {found.n} problems, paired"), show_header=False, title_justify="left"
    )
    table.add_row("A", _plain(f"{found.value_a:.1%}  {found.a}"))
    table.add_row("B", _plain(f"{found.value_b:.1%}  {found.b}"))
    table.add_row("B - A", _plain(f"{points(found.difference)} {bounds(found.low, found.high)}   ({found.method})"))
    table.add_row(
        "problems", f"{found.better} better, {found.worse} worse, {found.n - found.better - found.worse} equal"
    )
    table.add_row("p", f"{found.p:.3g} ({found.test})" if found.p is not None else found.test)
    seen = (
        f"differences from {found.smallest * 100:.1f} points on (80% power)"
        if found.smallest
        else "no difference: too few problems"
    )
    table.add_row("could have seen", seen)
    table.add_row("verdict", _plain(f"B is {found.verdict}" + ("" if found.verdict.startswith("not") else " than A")))
    console = Console()
    console.print(table)
    for note in found.notes:
        console.print(_plain(f"note: {note}"))


def _plain(text: str) -> Any:
    """Text that neither rich nor the terminal reads anything into."""
    from rich.text import Text

    return Text(terminal.line(text))


def percent(metric: Mapping[str, Any]) -> str:
    """`43.1% [38.2, 48.1]`."""
    value = metric["value"]
    if value is None:
        return "unknown"
    if metric["low"] is None or metric["high"] is None:
        return f"{value * 100:.1f}% [interval unknown]"
    return f"{value * 100:.1f}% [{metric['low'] * 100:.1f}, {metric['high'] * 100:.1f}]"


def points(share: float) -> str:
    return f"{share * 100:+.1f} points"


def bounds(low: float | None, high: float | None) -> str:
    return "[unknown]" if low is None or high is None else f"[{low * 100:+.1f}, {high * 100:+.1f}]"
