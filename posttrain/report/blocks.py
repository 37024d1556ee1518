"""What the page says about each benchmark: estimates by moment, the comparison, lengths, cost, samples to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from posttrain.report import charts, costs, parts, traces, verdicts
from posttrain.report.axes import say
from posttrain.report.data import ends
from posttrain.report.run import Evaluation, Run
from posttrain.report.samples import KINDS, Samples
from posttrain.report.values import as_dict, clip, clip_prompt, number
from posttrain.report.verdicts import Words

MAX_SHOWN = 4_000
"""Characters of a question or a completion among the samples to read; all of it is in the table below."""

MEANINGS = {
    "accuracy": "mean over problems of the share of right samples; 95 % interval over problems",
    "points": "mean over problems of the score that the benchmark gives; 100 = full marks, may be below 0",
    "strict": "the same if only what stands in a box counts",
    "maj@": "share of problems whose most frequent answer is right; ties share the point",
    "pass@": "chance that one of so many samples is right, unbiased; what an oracle that chose among them would reach",
}


@dataclass
class Cell:
    """An estimate in the table: value and interval in percent."""

    value: str
    interval: str


@dataclass
class Row:
    when: str
    cells: list[Cell]
    shares: list[str]
    """Truncated, no answer, timed out, given up."""
    length: str
    size: str
    seconds: float | None
    notes: list[str]
    ability: Cell | None = None
    """Of an adaptive evaluation, in standard deviations of the bank's models, ± one standard error."""


@dataclass
class Read:
    """A sample to read. All of it is the model's or the data's own text."""

    title: str
    question: str
    system: str
    """What else the prompt holds (system message, earlier turns); empty if nothing."""
    completion: str
    facts: list[tuple[str, str]]


@dataclass
class Reading:
    when: str
    groups: list[tuple[str, int, str, list[Read]]]
    """(kind, how many there are, their share, some of them)."""


@dataclass
class Block:
    benchmark: str
    key: str
    size: str
    columns: list[tuple[str, str]]
    """(metric, meaning)."""
    rows: list[Row]
    words: Words | None
    against: str
    """Which two are compared."""
    charts: list[charts.Chart]
    costs: list[tuple[str, list[str]]]
    """(what, its value at each of `cost_when`)."""
    cost_when: list[str]
    readings: list[Reading] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    """See `said_of`."""
    parts: list[parts.Table] = field(default_factory=list)


def build(run: Run) -> list[Block]:
    """A block for each benchmark that was evaluated, in the order of their names; adaptive evaluations have their own."""
    by_name: dict[tuple[str, bool], list[Evaluation]] = {}
    for evaluation in run.evaluations:
        by_name.setdefault((evaluation.benchmark, evaluation.adaptive is not None), []).append(evaluation)
    return [_block(run, name, f"b{i}", found) for i, ((name, _), found) in enumerate(by_name.items())]


def _block(run: Run, benchmark: str, key: str, found: list[Evaluation]) -> Block:
    first, last = ends(found)
    pair = [first, last] if last is not first else [first]
    told = {e.folder: run.told[e.folder] for e in pair if e.folder in run.told}
    words = None
    if len(pair) == 2 and first.adaptive is None:
        words = verdicts.compare(run.evaluation_root, first, last, told)
    columns = _columns(found)
    rows = [_row(e, columns) for e in found]
    return Block(
        benchmark=benchmark + (", adaptive" if first.adaptive is not None else ""),
        key=key,
        size=_size(last),
        columns=[(name, _meaning(name)) for name in columns],
        rows=rows,
        notes=said_of(rows),
        words=words,
        against=f"{last.moment} against {first.moment}",
        charts=[c for c in traces.draw(key, found, pair, told) if c],
        costs=costs.table(pair),
        cost_when=[e.moment for e in pair],
        parts=parts.tables(pair),
        readings=[_reading(e, told[e.folder]) for e in reversed(pair) if e.folder in told and told[e.folder].kept],
    )


# -- estimates


def _columns(found: list[Evaluation]) -> list[str]:
    """Metrics to show: accuracy, strict accuracy where it differs, majority, pass@2 and on, whatever else there is."""
    names: list[str] = []
    for evaluation in found:
        names += [n for n in evaluation.metrics if n not in names and evaluation.estimate(n)]
    shown = ["accuracy"] if "accuracy" in names else []
    if any((s := e.estimate("strict")) and (a := e.estimate()) and abs(s[0] - a[0]) > 5e-5 for e in found):
        shown.append("strict")
    same = {"accuracy", "strict", "pass@1", "maj@1"} | {n for n in names if n.startswith("avg@")}
    rest = [n for n in names if n not in same]
    shown += sorted(n for n in rest if n.startswith("maj@"))
    shown += [n for n in rest if n.startswith("pass@")]
    return (shown + [n for n in rest if not n.startswith(("maj@", "pass@"))])[:12]


def _meaning(name: str) -> str:
    return next((text for start, text in MEANINGS.items() if name.startswith(start)), "")


def _row(evaluation: Evaluation, columns: list[str]) -> Row:
    result = evaluation.result
    shares = [say(number(result.get(k)), "share") for k in ("truncated", "no_answer", "timeouts", "aborted")]
    n, k, tokens = (number(result.get(key)) for key in ("n", "k", "tokens"))
    mean = number(as_dict(result.get("lengths")).get("mean"))
    if mean is None and n and k and tokens is not None:
        mean = tokens / (n * k)
    notes = result.get("notes")
    told = [str(note) for note in notes[:20]] if isinstance(notes, list) else []
    if stopped := _stopped(as_dict(result.get("stopped"))):
        told.insert(0, stopped)
    return Row(
        when=evaluation.moment,
        cells=[cell(evaluation.estimate(name)) for name in columns],
        shares=shares,
        length=f"{mean:,.0f}" if mean is not None else "–",
        size="–" if n is None else f"{n:,.0f}" + (f" × {k:,.0f}" if k else ""),
        seconds=number(result.get("seconds")),
        notes=told,
        ability=_ability_cell(evaluation),
    )


def _ability_cell(evaluation: Evaluation) -> Cell | None:
    if (found := evaluation.ability()) is None:
        return None
    value, se = found
    return Cell(f"{value:+.2f}", "" if se is None else f"± {se:.2f}")


def said_of(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Each note once, with the moments that it is of: nothing where it is of all of several."""
    moments: dict[str, list[str]] = {}
    for row in rows:
        for note in row.notes:
            moments.setdefault(note, []).append(row.when)
    found = []
    for note, when in moments.items():
        of_all = len(when) == len(rows) > 1
        short = ", ".join(when) if len(when) <= 3 else f"{when[0]} and {len(when) - 1} others"
        found.append(("" if of_all else short, note))
    return found


def cell(estimate: tuple[float, float | None, float | None] | None) -> Cell:
    if estimate is None:
        return Cell("–", "")
    value, low, high = estimate
    return Cell(
        f"{100 * value:.1f}", f"[{100 * low:.1f}, {100 * high:.1f}]" if low is not None and high is not None else ""
    )


def _stopped(stopped: Mapping[str, Any]) -> str:
    asked, of, half, points = (number(stopped.get(key)) for key in ("asked", "of", "half_width", "points"))
    if asked is None or of is None or half is None:
        return ""
    aim = "" if points is None else f" (asked for: {points:g})"
    return (
        f"sampling stopped at {asked:,.0f} of {of:,.0f} problems, with a half-width of {half:.3g} points{aim}; "
        "this accuracy's interval holds whenever one stops"
    )


def _size(evaluation: Evaluation) -> str:
    n, k = (number(evaluation.result.get(key)) for key in ("n", "k"))
    if n is None:
        return ""
    return f"{n:,.0f} problem{'s' if n != 1 else ''}" + (
        f", {k:g} samples each" if k and k > 1 else ", one sample each" if k else ""
    )


# -- samples to read


def _reading(evaluation: Evaluation, samples: Samples) -> Reading:
    total = len(samples.kept)
    return Reading(
        evaluation.moment,
        [
            (kind, samples.count[kind], say(samples.count[kind] / total, "share"), [_read(s) for s in samples.picked[kind]])
            for kind in KINDS
        ],
    )  # fmt: skip


def _read(sample: Mapping[str, Any]) -> Read:
    prompt = clip_prompt(sample.get("prompt"), MAX_SHOWN)
    if isinstance(prompt, str):
        question, rest = prompt, ""
    else:
        question = prompt[-1]["content"] if prompt else ""
        rest = "\n\n".join(f"{m['role']}: {m['content']}" for m in prompt[:-1])
    facts = [(name, clip(sample.get(key), 500)) for name, key in (("right answer", "gold"), ("found in the text", "extracted"), ("in normal form", "parsed")) if sample.get(key) is not None]  # fmt: skip
    if sample.get("extracted") is None:
        facts.insert(1, ("found in the text", "nothing"))
    verdict, strict = str(sample.get("verdict") or "")[:20], sample.get("strict")
    differs = f" (in a box only: {str(strict)[:20]})" if strict not in (None, verdict) else ""
    facts.append(("verdict", verdict + differs))
    facts += [("rule", clip(sample["rule"], 200))] if sample.get("rule") else []
    tokens = number(sample.get("completion_tokens"))
    if tokens is not None:
        cut = ", cut at the limit" if sample.get("finish") == "length" else ""
        facts.append(("length", f"{tokens:,.0f} tokens{cut}"))
    title = f"{clip(sample.get('item_id'), 80)}, sample {sample.get('sample')}"
    return Read(title, question, rest, clip(sample.get("completion"), MAX_SHOWN), facts)
