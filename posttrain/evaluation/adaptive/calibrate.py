"""`posttrain irt fit`: from tables of responses to an item bank."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from posttrain import terminal
from posttrain.errors import Mistake
from posttrain.evaluation.adaptive import fit as fitting
from posttrain.evaluation.adaptive import heldout, responses
from posttrain.evaluation.adaptive.bank import Bank, Calibrated, HeldOut, Item, gold_digest, named, text_digest
from posttrain.evaluation.benchmarks.base import Problem, find_benchmark
from posttrain.evaluation.progress import bar

FEW = 20
"""Fewer calibration models than this leave the discriminations mostly to their prior: a note says so."""

_OWN = re.compile(r"(?P<benchmark>.+)/(?P<text>[0-9a-f]{12})(?:-\d+)?")
_ROW = re.compile(r"(?:.*_)?(\d+)")


def fit_command(
    places: Sequence[str | Path],
    out: str | Path,
    *,
    benchmark: str | None = None,
    data: str | None = None,
    settings: fitting.Settings | None = None,
    quiet: bool = False,
) -> Bank:
    """Read responses, fit, write the bank to `out`, and print what it holds.

    Args:
        places: tables and folders of evaluations; see `responses.read`.
        benchmark: whose items they are: texts and right answers are then kept as digests, and items that are named by
            their row (`12`, `gsm8k_12`) get their ids. Absent = what the evaluations or the ids say.
        data: local file with the benchmark's rows.

    Raises:
        Mistake: a response that is none (file and row), items of another benchmark, too few models to fit.
    """
    if benchmark is None and data is not None:
        raise Mistake("--data holds the rows of a benchmark: say of which (--benchmark NAME)")
    table = responses.read(places)
    named_problems = _texts(benchmark, data)
    with bar("fits without some models", heldout.FOLDS, False if quiet else None, lambda _: "") as update:
        made = bank_of(table, *named_problems, settings=settings, tick=lambda done: update([{}] * done))
    bank = made.write(out)
    if not quiet:
        _print(bank, Path(out))
    return bank


def _texts(benchmark: str | None, data: str | None) -> tuple[str | None, list[Problem]]:
    if benchmark is None:
        return None, []
    found = find_benchmark(benchmark, "--benchmark")
    return found.name, found.load(data)


def bank_of(
    table: responses.Table,
    benchmark: str | None = None,
    problems: Sequence[Problem] = (),
    settings: fitting.Settings | None = None,
    tick: Callable[[int], None] = lambda done: None,
) -> Bank:
    """Fit a table. `problems` are those of `benchmark`, if they are at hand; `tick` is called after each fold of `heldout`."""
    settings = settings or fitting.Settings()
    if len(table.subjects) == 1:
        where = table.subjects[0].where
        raise Mistake(f"{where}: the answers of one model; a bank needs those of at least 2 models, better of {FEW}")
    said_benchmark = _one_of("benchmark", [(s.benchmark, s.where) for s in table.subjects])
    if benchmark is not None and said_benchmark is not None and benchmark != said_benchmark:
        where = next(s.where for s in table.subjects if s.benchmark == said_benchmark)
        raise Mistake(f"{where}: answers to {said_benchmark}, not to {benchmark}")
    benchmark = benchmark or said_benchmark
    notes: list[str] = []
    if problems:
        table, said = _named_as(table, benchmark or "", problems)
        notes += said
    benchmark = benchmark or _from_ids(table.items)
    started = time.monotonic()
    try:
        found = fitting.fit(table.shares, table.samples, settings)
    except ValueError as error:
        raise Mistake(f"{table.subjects[0].where}: cannot be fitted: {error}") from error
    seconds = time.monotonic() - started
    measured = heldout.held_out(table.shares, table.samples, settings, tick)
    there = ~np.isnan(table.shares)
    shares = np.where(there, table.shares, 0.0)
    solved, answered = shares.sum(0) / there.sum(0), there.sum(0)
    grader, several = _same([s.grader for s in table.subjects])
    if several:
        notes.append("the models were graded by several graders")
    prompt, several = _same([s.prompt for s in table.subjects])
    if several:
        notes.append("the models were asked in several prompt styles")
    notes += _doubts(len(table.subjects), solved, found.converged, measured)
    texts = {p.item_id: text_digest(p.question) for p in problems}
    golds = {item: gold_digest(gold) for s in table.subjects for item, gold in s.golds.items()}
    golds |= {p.item_id: gold_digest(p.gold) for p in problems}
    return Bank(
        benchmark=benchmark,
        grader=grader,
        prompt=prompt,
        samples=float(table.samples[there].mean()),
        models=[
            Calibrated(name=s.name, accuracy=float(row.sum() / t.sum()), answered=int(t.sum()), ability=float(theta))
            for s, row, t, theta in zip(table.subjects, shares, there, found.ability, strict=True)
        ],
        fit={
            "method": "penalised maximum likelihood, 2PL",
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings": settings.to_json(),
            "loss": found.loss,
            "iterations": found.iterations,
            "converged": found.converged,
            "seconds": round(seconds, 3),
        },
        items=[
            Item(
                id=item,
                a=float(found.a[j]),
                b=float(found.b[j]),
                text=texts.get(item) or _text_in(item),
                gold=golds.get(item),
                solved=float(solved[j]),
                answered=int(answered[j]),
            )
            for j, item in enumerate(table.items)
        ],
        held_out=measured,
        notes=notes,
    )


def _one_of(what: str, values: Sequence[tuple[str | None, str]]) -> str | None:
    known = [(value, where) for value, where in values if value is not None]
    for value, where in known[1:]:
        if value != known[0][0]:
            raise Mistake(f"{where}: {what} {value}, but {known[0][1]} has {known[0][0]}; one bank is of one {what}")
    return known[0][0] if known else None


def _same(values: Sequence[Any]) -> tuple[Any, bool]:
    """The value that all have (None if they differ, or one has none), and whether known ones differ."""
    known = [v for v in values if v is not None]
    differ = any(v != known[0] for v in known)
    return (known[0] if known and not differ and len(known) == len(values) else None), differ


def _named_as(
    table: responses.Table, benchmark: str, problems: Sequence[Problem]
) -> tuple[responses.Table, list[str]]:
    """The table with the benchmark's item ids."""
    ids = {p.item_id for p in problems}
    strange = [item for item in table.items if item not in ids]
    if not strange:
        return table, []
    rows = [_ROW.fullmatch(item) for item in table.items]
    if len(strange) == len(table.items) and all(rows):
        places = [int(match[1]) for match in rows if match]
        if max(places) < len(problems) and len(set(places)) == len(places):
            return replace(table, items=[problems[place].item_id for place in places]), [
                f"items were named by their row of {benchmark}, counted from 0 (the first: {named(table.items[0])})"
            ]
    where = next(s.where for s in table.subjects if strange[0] in s.shares)
    raise Mistake(
        f"{where}: item {named(strange[0])} is none of the {len(problems)} problems of {benchmark} ({len(strange)} such "
        f"items); ids should be the benchmark's ({problems[0].item_id}) or row numbers from 0"
    )


def _from_ids(items: Sequence[str]) -> str | None:
    found = {match["benchmark"] if (match := _OWN.fullmatch(item)) else None for item in items}
    return found.pop() if len(found) == 1 else None


def _text_in(item: str) -> str | None:
    """The digest of the question, where an item id is made of it."""
    match = _OWN.fullmatch(item)
    return match["text"] if match else None


def _doubts(models: int, solved: Any, converged: bool, measured: Sequence[HeldOut]) -> list[str]:
    notes = []
    if models < FEW:
        notes.append(
            f"only {models} calibration models: below about {FEW} the discriminations are mostly their prior's"
        )
    held = min((len(one.misses) for one in measured), default=0)
    never, always = int(np.sum(solved == 0)), int(np.sum(solved == 1))
    if 0 < held < heldout.ENOUGH:
        notes.append(
            f"{held} models held out: intervals of predicted accuracies are as wide as their largest miss, which is known to hold "
            f"{held / (held + 1):.0%} and not 95 %"
        )
    elif not held:
        notes.append(
            "no model could be held out: intervals of predicted accuracies believe the item model, and are too narrow"
        )
    if never:
        notes.append(f"{never} items that no model solved: how hard they are is not known, only that they are")
    if always:
        notes.append(f"{always} items that every model solved: how easy they are is not known")
    if not converged:
        notes.append("the fit ended at its limit of iterations, before its slope was flat")
    return notes


def _print(bank: Bank, out: Path) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def plain(text: str) -> Text:
        return Text(terminal.line(text))

    accuracies = [m.accuracy for m in bank.models]
    table = Table(title=plain(f"item bank: {bank.benchmark or 'benchmark not known'}"), show_header=False,
                  title_justify="left")  # fmt: skip
    table.add_row("items", f"{len(bank.items)}")
    table.add_row("models", f"{len(bank.models)}, accuracy {min(accuracies):.1%} to {max(accuracies):.1%}")
    table.add_row("samples a response", f"{bank.samples:.3g}")
    table.add_row("difficulty", _range(bank.b))
    table.add_row("discrimination", _range(bank.a))
    if bank.gap is not None:
        table.add_row(
            "neighbours", f"{bank.gap:.3f} of ability apart on average (an error below it, --se, tells them apart)"
        )
    if bank.held_out:
        wide = ", ".join(f"x {heldout.widening(bank.held_out, one.items):.1f} at {one.items}" for one in bank.held_out)
        table.add_row("intervals", f"wider than the item model's by what was measured: {wide} items")
    table.add_row(
        "loss", f"{bank.fit['loss']:.4f} nats a response, {bank.fit['iterations']} iterations, {bank.fit['seconds']} s"
    )
    table.add_row("digest", bank.digest)
    table.add_row("written to", plain(str(out)))
    console = Console()
    console.print(table)
    for note in bank.notes:
        console.print(plain(f"note: {note}"))


def _range(values: Any) -> str:
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    return f"median {middle:.2f}, 90% from {low:.2f} to {high:.2f}"
