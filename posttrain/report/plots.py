"""Charts of one evaluation: lengths by verdict, score against tokens, ability over steps. Axes have names and units.

Built as `charts` builds the curves: three SVGs in a frame, colours as classes, a table of texts for pointer and keys.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from markupsafe import Markup, escape

from posttrain.report.axes import LARGEST, SIZE, Scale, say, tick_label, ticks
from posttrain.report.charts import Chart

BINS = 24
"""Columns of a histogram, at most."""
WIDE = 20
"""From longest / shortest on, columns grow with the length: each is as many times as long as the one before."""

GRADED = (
    ("RIGHT", "right", "s3"),
    ("WRONG", "wrong", "s2"),
    ("NONE", "no answer", "s8"),
    ("TIMEOUT", "timed out", "s4"),
)
"""Verdicts in the order they are stacked: name, label, colour class (orange and blue-green of Okabe and Ito's set)."""


@dataclass
class Curve:
    """Points (x, y) of one curve with a band from low to high around it; None where there is none."""

    label: str
    colour: str
    points: list[tuple[float, float]]
    low: list[float | None] = field(default_factory=list)
    high: list[float | None] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    """What stands over each point's values; absent: its x."""


def edges_for(lengths: Sequence[int]) -> list[int]:
    """Lower edges of the columns, and the upper end; all whole numbers, rising. Equally wide or growing, see `WIDE`."""
    low, high = min(lengths), max(lengths) + 1
    if high <= WIDE * max(low, 1) or high <= 2 * BINS:
        width = max(1, math.ceil((high - low) / BINS))
        return list(range(low, high + width, width)) if (high - low) % width else list(range(low, high + 1, width))
    start = max(low, 1)
    grown = sorted({round(start * (high / start) ** (i / BINS)) for i in range(BINS + 1)})
    return [*([low] if low < grown[0] else []), *grown]


def histogram(
    key: str, title: str, lengths: dict[str, list[int]], edges: list[int], top: float, limit: int | None, note: str
) -> Chart:
    """Columns by length, stacked by verdict; as shares of all samples, so that two evaluations can be laid side by side.

    Args:
        lengths: verdict -> completion tokens of its samples; at least one sample in all.
        edges: from `edges_for`; `top`: the largest share of a column that the axis holds.
        limit: the token limit, drawn as a line if it lies within the edges.
    """
    total = sum(map(len, lengths.values()))
    counts = {verdict: _counts(lengths.get(verdict, []), edges) for verdict, *_ in GRADED}
    growing = len({b - a for a, b in pairwise(edges)}) > 1

    def place(x: float) -> float:
        return math.log(max(x, 0.5)) if growing else x

    scale = Scale(place(edges[0]), place(edges[-1]), 0.0, min(1.0, top * 1.06) or 1.0)
    drawn, below = "", [0] * (len(edges) - 1)
    for verdict, _, colour in GRADED:
        path = ""
        for i, (start, end) in enumerate(pairwise(edges)):
            if not (n := counts[verdict][i]):
                continue
            left, right = scale.x(place(start)), scale.x(place(end))
            gap = min(4.0, (right - left) * 0.08)
            path += f"M{left + gap:.1f} {scale.y(below[i] / total):.1f}H{right - gap:.1f}V{scale.y((below[i] + n) / total):.1f}H{left + gap:.1f}Z"
            below[i] += n
        if path:
            drawn += f'<path class="area {colour}" d="{path}"/>'
    if limit is not None and edges[0] <= limit <= edges[-1]:
        at = scale.x(place(limit))
        drawn += f'<path class="limit" d="M{at:.1f} 0V{SIZE:g}"/>'
        note = f"dashed: the limit of {limit:,} tokens" + (f"; {note}" if note else "")
    found = [(v, label, c) for v, label, c in GRADED if any(counts[v])]
    data = {
        "x": edges[:-1],
        "at": [round((scale.x(place(a)) + scale.x(place(b))) / 2 / SIZE, 5) for a, b in pairwise(edges)],
        "heads": [f"{a:,} tokens" if b == a + 1 else f"{a:,} to {b - 1:,} tokens" for a, b in pairwise(edges)],
        "curves": [
            {"label": label, "colour": c, "texts": [f"{n:,} ({say(n / total, 'share')})" for n in counts[v]]}
            for v, label, c in found
        ],
    }
    x_ticks = _powers(edges[0], edges[-1]) if growing else ticks(edges[0], edges[-1], 5, whole=True)
    shares = {label: sum(counts[v]) for v, label, _ in found}
    return Chart(
        key=key,
        title=title,
        formula="share of all samples in each column, stacked by the grader's verdict",
        names=[],
        unit="share",
        better="none",
        svg=framed(scale, [(place(t), _tokens(t)) for t in x_ticks], "completion tokens" + " (log scale)" * growing, "share of samples", "share", drawn),
        legend=[entry(label, c, f"{shares[label]:,}") for _, label, c in found],
        spoken="; ".join(f"{label}: {n:,} of {total:,} samples" for label, n in shares.items()),
        data=data,
        note=note,
    )  # fmt: skip


def tallest(lengths: dict[str, list[int]], edges: list[int]) -> float:
    """The largest share of samples in a column."""
    everything = [n for found in lengths.values() for n in found]
    return max(_counts(everything, edges), default=0) / max(1, len(everything))


def _counts(lengths: Sequence[int], edges: Sequence[int]) -> list[int]:
    from bisect import bisect_right

    counts = [0] * (len(edges) - 1)
    for length in lengths:
        counts[min(max(bisect_right(edges, length) - 1, 0), len(counts) - 1)] += 1
    return counts


def curve_chart(
    key: str,
    title: str,
    formula: str,
    curves: list[Curve],
    *,
    x_name: str,
    y_name: str,
    unit: str = "share",
    log: bool = False,
    y_range: tuple[float, float] | None = None,
    x_range: tuple[float, float] | None = None,
    better: str = "none",
    note: str = "",
) -> Chart | None:
    """Curves with dots and bands; None if none has a point. `log`: the x axis is logarithmic (x > 0)."""
    curves = [c for c in curves if c.points]
    if not curves:
        return None

    def place(x: float) -> float:
        return math.log(x) if log else x

    xs = [x for c in curves for x, _ in c.points]
    x_low, x_high = x_range or (min(xs), max(xs))
    if x_low == x_high:
        x_low, x_high = (x_low / 2, x_high * 2) if log else (x_low - 1, x_high + 1)
    scale = Scale(place(x_low), place(x_high), *(y_range or spread(curves, unit)))
    drawn, tables, legend = "", [], []
    for c in curves:
        at = [(scale.x(place(x)), scale.y(y)) for x, y in c.points]
        band = [(x, lo, hi) for (x, _), lo, hi in zip(c.points, c.low, c.high, strict=False) if None not in (lo, hi)]
        if len(band) > 1:
            up = "L".join(f"{scale.x(place(x)):.1f} {scale.y(hi):.1f}" for x, _, hi in band if hi is not None)
            down = "L".join(
                f"{scale.x(place(x)):.1f} {scale.y(lo):.1f}" for x, lo, _ in reversed(band) if lo is not None
            )
            drawn += f'<path class="area band {c.colour}" d="M{up}L{down}Z"/>'
        elif band:
            x, lo, hi = band[0]
            drawn += f'<path class="bar {c.colour}" d="M{scale.x(place(x)):.1f} {scale.y(lo or 0.0):.1f}V{scale.y(hi or 0.0):.1f}"/>'
        drawn += f'<path class="line {c.colour}" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in at)}"/>'
        drawn += f'<path class="dot small {c.colour}" d="{"".join(f"M{x:.1f} {y:.1f}h0" for x, y in at)}"/>'
        texts = []
        for i, (_, y) in enumerate(c.points):
            lo, hi = (side[i] if i < len(side) else None for side in (c.low, c.high))
            texts.append(say(y, unit) + (f" [{say(lo, unit)}, {say(hi, unit)}]" if None not in (lo, hi) else ""))
        tables.append(texts)
        legend.append(entry(c.label, c.colour, say(c.points[-1][1], unit)))
    x_ticks = _powers(x_low, x_high) if log else ticks(x_low, x_high, 5, whole=True)
    return Chart(
        key=key,
        title=title,
        formula=formula,
        names=[],
        unit=unit,
        better=better,
        svg=framed(scale, [(place(t), _tokens(t)) for t in x_ticks], x_name, y_name, unit, drawn),
        legend=legend,
        spoken="; ".join(_told(c, t, x_name) for c, t in zip(curves, tables, strict=True)),
        data=_hover(curves, tables, lambda x: scale.x(place(x)) / SIZE, x_name),
        note=note,
    )


def spread(curves: Sequence[Curve], unit: str) -> tuple[float, float]:
    """The y axis that holds all curves and their bands, with a little air; shares stay within 0 and 1."""
    values = [v for c in curves for v in [*(y for _, y in c.points), *c.low, *c.high] if v is not None]
    low, high = max(min(values), -LARGEST), min(max(values), LARGEST)
    air = (high - low) * 0.06 or (0.05 if unit == "share" else 0.5)
    return (max(0.0, low - air), min(1.0, high + air)) if unit == "share" else (low - air, high + air)


def _told(curve: Curve, texts: list[str], x_name: str) -> str:
    first, last = (f"{texts[i]} at {curve.points[i][0]:,.0f}" for i in (0, -1))
    return f"{curve.label}: {first} {x_name}" if len(texts) == 1 else f"{curve.label}: from {first} to {last} {x_name}"


def _hover(curves: Sequence[Curve], tables: list[list[str]], at: Any, x_name: str) -> dict[str, Any]:
    """The hover data: every x of any curve, and what each curve has there."""
    heads: dict[float, str] = {}
    for c in curves:
        for i, (x, _) in enumerate(c.points):
            heads.setdefault(x, c.heads[i] if i < len(c.heads) else f"{x:,.4g} {x_name}")
    xs = sorted(heads)
    rows = []
    for c, texts in zip(curves, tables, strict=True):
        there = {x: text for (x, _), text in zip(c.points, texts, strict=True)}
        rows.append({"label": c.label, "colour": c.colour, "texts": [there.get(x) for x in xs]})
    return {"x": xs, "at": [round(at(x), 5) for x in xs], "heads": [heads[x] for x in xs], "curves": rows}


def entry(label: str, colour: str, last: str) -> dict[str, Any]:
    """A line of a legend."""
    return {"label": label, "colour": colour, "last": last, "name": "", "meaning": "", "formula": ""}


def framed(
    scale: Scale, x_ticks: Sequence[tuple[float, str]], x_name: str, y_name: str, unit: str, inside: str
) -> Markup:
    """Axes with names around `inside` (markup made here, of numbers only); `x_ticks` are places and labels."""
    y_ticks = ticks(scale.y_low, scale.y_high, 4)
    y_step = y_ticks[1] - y_ticks[0] if len(y_ticks) > 1 else abs(scale.y_high - scale.y_low)
    y_text = "".join(
        f'<text x="100%" y="{scale.y(t) / SIZE * 100:.2f}%" dy="0.32em" text-anchor="end">{escape(tick_label(t, y_step, unit))}</text>'
        for t in y_ticks
    )
    x_text = grid = ""
    for where, label in x_ticks:
        share = scale.x(where) / SIZE * 100
        anchor = "start" if share < 4 else "end" if share > 94 else "middle"
        x_text += f'<text x="{share:.2f}%" y="12" text-anchor="{anchor}">{escape(label)}</text>'
    grid = "".join(f'<path class="grid" d="M0 {scale.y(t):.1f}H{SIZE:g}"/>' for t in y_ticks)
    return Markup(
        f'<div class="yname" aria-hidden="true">{escape(y_name)}</div><svg class="ylab" aria-hidden="true">{y_text}</svg>'
        f'<svg class="plot" viewBox="0 0 {SIZE:g} {SIZE:g}" preserveAspectRatio="none" aria-hidden="true">{grid}'
        f'<path class="axis" d="M0 {SIZE:g}H{SIZE:g}"/>{inside}<path class="cross" d=""/></svg>'
        f'<svg class="xlab" aria-hidden="true">{x_text}</svg><div class="xname" aria-hidden="true">{escape(x_name)}</div>'
    )


def _powers(low: float, high: float) -> list[float]:
    """Round numbers (1, 2, 5 times a power of ten) from low to high, at most six of them."""
    first, last = math.floor(math.log10(max(low, 1e-9))), math.ceil(math.log10(max(high, 1e-9)))
    found = [m * 10.0**p for p in range(first, last + 1) for m in (1, 2, 5) if low <= m * 10.0**p <= high]
    if len(found) > 6:
        found = [t for t in found if f"{t:e}"[0] == "1"]
    if len(found) < 2:
        return ticks(low, high, 4)
    return found[:: math.ceil(len(found) / 6)]


def _tokens(value: float) -> str:
    """`96`, `1.5k`, `2M`."""
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{sign}"
    return f"{value:.4g}"
