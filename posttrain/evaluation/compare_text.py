"""What `posttrain compare` prints: plain lines, wrapped to a terminal's width, whole in a pipe."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence

from posttrain import terminal
from posttrain.evaluation.compare import Comparison
from posttrain.evaluation.comparisons import Comparisons, in_words
from posttrain.evaluation.places import Arm

LONGEST = 28
"""Characters of a benchmark's name in a table; a longer one is shown without its middle."""


def print_comparisons(found: Comparisons) -> None:
    """One comparison in full, several as a table for each arm; on stdout."""
    width = max(40, shutil.get_terminal_size().columns) if sys.stdout.isatty() else None
    print(comparisons(found, width))


def comparisons(found: Comparisons, width: int | None) -> str:
    """The text, in lines of `width` characters at most (words and paths are never broken); None = a line each, however long."""
    if len(found.found) == 1:
        blocks = [_one(found.found[0][1], width, [arm.name for arm in found.arms])]
    else:
        blocks = [_arm(found, arm, width) for arm in found.arms[1:]]
    blocks.append(_said([*_notes(found), *found.notes], width))
    if found.tests > 1:
        said = f"p and verdicts are corrected for {found.tests} comparisons (Holm); intervals are each for itself."
        blocks.append(_wrapped(said, width))
    return "\n\n".join("\n".join(block) for block in blocks if block)


def comparison(found: Comparison, width: int | None) -> str:
    """As `comparisons`, of one that stands alone."""
    blocks = [_one(found, width), _said(found.notes, width)]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _said(notes: Sequence[str], width: int | None) -> list[str]:
    return [line for note in notes for line in _wrapped(f"note: {note}", width, "      ")]


def _one(found: Comparison, width: int | None, names: Sequence[str] = ("", "")) -> list[str]:
    equal = found.n - found.better - found.worse
    seen = "nothing: too few problems"
    if found.smallest is not None:
        seen = f"differences from {found.smallest * 100:.1f} points on, in 80% of cases"
    rows = [
        ("A", f"{found.value_a:.1%}  {_told(names[0], found.a)}"),
        ("B", f"{found.value_b:.1%}  {_told(names[1], found.b)}"),
        ("B - A", f"{found.difference * 100:+.1f} points {_bounds(found)}, {found.method}"),
        ("B's problems", f"{found.better} better, {found.worse} worse, {equal} equal"),
        ("p", f"{found.p:.3g}, {found.test}" if found.p is not None else found.test),
        ("could have seen", seen),
    ]
    lines = [*_wrapped(f"{found.benchmark}: {found.n:,} problem{'s' * (found.n != 1)}, paired", width), ""]
    for name, text in rows:
        lines += _wrapped(f"  {name:<15}  {text}", width, " " * 19)
    than = "" if found.verdict.startswith("not") else " than A"
    return [*lines, "", f"B is {found.verdict}{than}"]


def _told(name: str, model: str) -> str:
    """The place beside the model: two checkpoints of one model are told apart by it."""
    return model if name in ("", model) else f"{name}: {model}"


def _arm(found: Comparisons, arm: Arm, width: int | None) -> list[str]:
    """A table with a verdict a row, where that fits; else a verdict a benchmark, and its numbers below it."""
    mine = [one for other, one in found.found if other is arm]
    head = ("benchmark", "problems", "A", "B", "B - A", "95% interval", "p (Holm)" if found.tests > 1 else "p")
    table = [head, *map(_cells, mine)]
    sizes = [max(len(row[i]) for row in table) for i in range(len(head))]
    rows = ["  " + "  ".join(_placed(row, sizes)) for row in table]
    verdicts = ["B is", *map(in_words, mine)]
    beside = width is None or max(len(r) + 2 + len(v) for r, v in zip(rows, verdicts, strict=True)) <= width
    lines = [*_wrapped(f"A: {found.arms[0].name}", width, "   "), *_wrapped(f"B: {arm.name}", width, "   "), ""]
    if beside:
        return [*lines, *(f"{row}  {said}" for row, said in zip(rows, verdicts, strict=True))]
    for row, said in zip(table[1:], verdicts[1:], strict=True):
        name, n, a, b, difference, bounds, p = (cell.rjust(size) for cell, size in zip(row, sizes, strict=True))
        lines.append(f"  {name.strip()}: {said}")
        lines.append(f"    n = {n.strip()}: {a} -> {b}, {difference} points {bounds}, {head[-1]} = {p.strip()}")
    return lines


def _cells(one: Comparison) -> tuple[str, ...]:
    p = one.p if one.p_holm is None else one.p_holm
    return (
        terminal.line(one.benchmark, LONGEST),
        f"{one.n:,}",
        f"{one.value_a:.1%}",
        f"{one.value_b:.1%}",
        f"{one.difference * 100:+.1f}",
        _bounds(one),
        "unknown" if p is None else f"{p:.2g}",
    )


def _placed(row: Sequence[str], sizes: Sequence[int]) -> Iterable[str]:
    """The name to the left, numbers to the right."""
    yield row[0].ljust(sizes[0])
    yield from (cell.rjust(size) for cell, size in zip(row[1:], sizes[1:], strict=True))


def _notes(found: Comparisons) -> list[str]:
    """Each note once, with the comparisons that it is about unless it is about all."""
    about: dict[str, list[str]] = {}
    alone = len(found.arms) == 2
    for arm, one in found.found:
        for note in one.notes:
            about.setdefault(note, []).append(one.benchmark if alone else f"{arm.name}, {one.benchmark}")
    every = len(found.found)
    return [note if len(where) == every else f"{'; '.join(where)}: {note}" for note, where in about.items()]


def _bounds(one: Comparison) -> str:
    if one.low is None or one.high is None:
        return "[unknown]"
    return f"[{one.low * 100:+.1f}, {one.high * 100:+.1f}]"


def _wrapped(text: str, width: int | None, indent: str = "") -> list[str]:
    """`text` as lines; whatever in it would command a terminal is shown by its code."""
    text = terminal.line(text)
    if width is None or len(text) <= width:
        return [text]
    made = textwrap.wrap(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )
    return made or [""]
