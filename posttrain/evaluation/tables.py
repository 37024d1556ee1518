"""What is printed of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posttrain import terminal
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
    if (points := result.metrics.get("points")) is not None:
        table.add_row("points", _plain(f"{percent(points)}   (mean score, {points['method']})"))
    if result.k > 1:
        for name, found in result.metrics.items():
            if name.startswith(("pass@", "maj@")) and name != "pass@1":
                table.add_row(name, percent(found))
    if result.strict is not None and result.strict["value"] != result.accuracy["value"]:
        table.add_row("strict", _plain(f"{percent(result.strict)}   (answers in a box only)"))
    for name, text in part_lines(result):
        table.add_row(_plain(name), _plain(text))
    table.add_row("truncated", f"{result.truncated:.1%}")
    table.add_row("no answer", f"{result.no_answer:.1%}")
    if result.timeouts:
        table.add_row("grading timeouts", f"{result.timeouts:.1%}")
    if result.aborted:
        table.add_row("aborted", f"{result.aborted:.1%}")
    for name, text in cost_lines(result):
        table.add_row(name, _plain(text))
    table.add_row("written to", _plain(str(result.directory)))
    console = Console()
    console.print(table)
    for note in result.notes:
        console.print(_plain(f"note: {note}"))


def part_lines(result: Result) -> list[tuple[str, str]]:
    """Accuracy by who wrote the questions and how many chunks they need, and weighted by near-duplicates."""
    said = []
    if (found := result.parts.get("weighted")) is not None:
        said.append(("weighted", f"{percent(found)}   (by near-duplicates)"))
    for key, word in (("by_writer", "by"), ("by_scope", "of")):
        for name, found in result.parts.get(key, {}).items():
            said.append((f"{word} {name or 'unknown'}", f"{percent(found)}   ({found['n']} problems)"))
    return said


def cost_lines(result: Result) -> list[tuple[str, str]]:
    """What an evaluation took: tokens, time, eFLOPs, the score for fewer tokens; a few words each."""
    said = [("tokens", f"{result.tokens:,} out ({result.tokens / (result.n * result.k):.0f} a sample")]
    if result.lengths:
        said[0] = ("tokens", f"{said[0][1]}, median {result.lengths['median']:.0f}, p95 {result.lengths['p95']:.0f}")
    said[0] = ("tokens", f"{said[0][1]}), {result.prompt_tokens:,} of prompts")
    cost = result.cost
    if not cost:
        return [*said, ("seconds", f"{result.seconds:.1f}")]
    cached = cost["tokens"]["cached"]
    if cached is not None and cost["tokens"]["prompt"]:
        said[0] = ("tokens", f"{said[0][1]} ({cached / cost['tokens']['prompt']:.0%} cached)")
    seconds = cost["seconds"]
    spent = f"{result.seconds:.1f}"
    if seconds["total"] is not None:
        if seconds["total"] > result.seconds:
            spent = f"{seconds['total']:.1f} over all calls"
        spent += f" (generating {seconds['generating']:.1f}, grading {seconds['grading']:.1f})"
    if cost["tokens_per_second"] is not None:
        spent += f", {cost['tokens_per_second']:,.0f} tokens/s"
    devices = f"{cost['devices']} x {cost['device']}" if cost["devices"] else cost["device"]
    said.append(
        ("seconds", f"{spent}, on {devices if devices != 'unknown' else 'a server (--device names its device)'}")
    )
    if cost["gpu_seconds"] is not None:
        said.append(("GPU-seconds", f"{cost['gpu_seconds']:,.1f}"))
    if cost.get("at_once"):
        waited = cost.get("to_first_token")
        late = f", first token after {waited['mean']:.3g} s (p95 {waited['p95']:.3g})" if waited else ""
        said.append(("at once", f"up to {cost['at_once']:,} sequences{late}"))
    each = cost["per_correct"]
    if each["tokens"] is not None:
        took = "" if each["seconds"] is None else f", {each['seconds']:.3g} s"
        said.append(("a right answer", f"{each['tokens']:,.0f} tokens{took}"))
    if cost["eflops"] is not None:
        found = cost["eflops"]
        said.append(
            ("eFLOPs", f"{found['total']:.3g}, {found['attention_share']:.0%} attention (I = {found['intensity']:.4g}, "
                       f"{found['intensity_of']})")
        )  # fmt: skip
    if len(result.budgets) > 1:
        shown = result.budgets[-5:]
        said.append(("at fewer tokens", ", ".join(f"{b['tokens']}: {b['accuracy']['value']:.1%}" for b in shown)))
    return said


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
