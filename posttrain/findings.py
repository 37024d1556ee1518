"""What a check says, and how it is shown and kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from posttrain import terminal

MARKS = {True: "✓", False: "✗", None: "–"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: `ok` True, False, or None where there is nothing to hold against anything."""

    ok: bool | None
    looked: str
    """What it looked at, with its numbers; one line. Of a failed check: what is wrong."""
    mend: str = ""
    """Of a failed check: what to do."""


@dataclass(frozen=True, slots=True)
class Row:
    """A finding with the name of its check and the seconds that it took."""

    name: str
    ok: bool | None
    looked: str
    mend: str = ""
    seconds: float = 0.0

    def line(self) -> str:
        """`name: what is wrong; what to do`."""
        return f"{self.name}: {self.looked}" + (f"; {self.mend}" if self.mend else "")


def good(looked: str) -> Finding:
    return Finding(True, terminal.line(looked))


def bad(looked: str, mend: str) -> Finding:
    return Finding(False, terminal.line(looked), terminal.line(mend))


def idle(why: str) -> Finding:
    """The check has nothing to say here."""
    return Finding(None, terminal.line(why))


def table(rows: Sequence[Row], title: str) -> Any:
    """A rich table; what models and users wrote is escaped."""
    from rich.markup import escape
    from rich.table import Table

    made = Table("", "check", "looked at", "mend", title=title, title_justify="left")
    styles = {True: "green", False: "red", None: "dim"}
    for row in rows:
        mark = f"[{styles[row.ok]}]{MARKS[row.ok]}[/]"
        made.add_row(mark, escape(row.name), escape(row.looked), escape(row.mend))
    return made


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return json.loads(json.dumps([asdict(row) for row in rows]))


def print_table(rows: Sequence[Row], title: str) -> None:
    from rich.console import Console

    console = Console()
    # A pipe has no width of its own; there every row gets the room it needs.
    (console if console.is_terminal else Console(width=200)).print(table(rows, title))
