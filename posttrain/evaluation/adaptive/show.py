"""What is printed of an adaptive evaluation."""

from __future__ import annotations

from posttrain import terminal
from posttrain.evaluation.results import Result
from posttrain.evaluation.tables import cost_lines


def print_adaptive(result: Result) -> None:
    """The table of an adaptive evaluation, on stdout."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def plain(text: str) -> Text:
        return Text(terminal.line(text))

    found = result.adaptive or {}
    predicted = found["predicted"]
    why = {"se": "the error asked for is reached", "items": "the budget is spent", "bank": "every item was asked"}
    table = Table(title=plain(f"{result.benchmark}, adaptive"), show_header=False, title_justify="left")
    table.add_row("model", plain(f"{result.model} + {result.adapter}" if result.adapter else result.model))
    table.add_row(
        "ability",
        f"{found['ability']:+.2f} ± {found['se']:.2f} (0 = mean of {found['bank']['models']} models, 1 = their spread)",
    )
    table.add_row(
        "accuracy",
        plain(f"{predicted['value']:.1%} [{predicted['low']:.1%}, {predicted['high']:.1%}] {predicted['method']}"),
    )
    table.add_row(
        "items",
        f"{found['items']} of {found['of']} × {result.k}, {found['asked_right']:.0%} of them right; {why[found['stop']]}",
    )
    table.add_row("truncated", f"{result.truncated:.1%}")
    table.add_row("no answer", f"{result.no_answer:.1%}")
    for name, text in cost_lines(result):
        table.add_row(name, plain(text))
    if whole := result.cost.get("of_full"):
        table.add_row(
            "of a full one", f"{whole['share']:.0%} of about {whole['total']:,} tokens for all {whole['items']} items"
        )
    table.add_row("bank", plain(f"{found['bank']['file']} ({found['bank']['digest']})"))
    table.add_row("written to", plain(str(result.directory)))
    console = Console()
    console.print(table)
    for note in result.notes:
        console.print(plain(f"note: {note}"))
