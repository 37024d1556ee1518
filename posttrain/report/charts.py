"""Curves as SVG, made here so that the page shows them without running anything.

A chart is three SVGs in one frame: labels of the y axis, the plot, labels of the x axis. The plot is stretched to the frame's width
(its strokes are not), so that text keeps its size on a desk and on a phone. Colours are classes: the page's style decides on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup, escape

from posttrain.metrics import describe
from posttrain.report.axes import SIZE, Point, Scale, say, smooth, span, tick_label, ticks

CURVES = 8
"""Curves of one chart: more colours could not be told apart."""


@dataclass
class Line:
    """One curve of a chart."""

    label: str
    name: str
    """Metric; empty for what is no metric of the log (evaluation points)."""
    points: list[Point]
    low: list[float | None] = field(default_factory=list)
    high: list[float | None] = field(default_factory=list)


@dataclass
class Chart:
    """What the page needs to draw, explain and read out one chart."""

    key: str
    title: str
    formula: str
    names: list[str]
    unit: str
    better: str
    svg: Markup
    legend: list[dict[str, Any]]
    """Of each curve: label, colour class, last value as text, meaning, formula, name."""
    spoken: str
    """The chart in one sentence, for those who do not see it."""
    data: dict[str, Any]
    """For hovering: x values, and of each curve label, colour class, texts of its values, heights in the plot (0 = top)."""
    note: str = ""


def _path(points: Sequence[Point], scale: Scale) -> str:
    """Path data; a gap where there is no value, a stroke of no length (a round dot) for a point alone."""
    pieces, run = [], []
    for x, y in [*points, (0.0, None)]:
        if y is not None:
            run.append(f"{scale.x(x):.1f} {scale.y(y):.1f}")
        elif run:
            pieces.append(f"M{run[0]}h0" if len(run) == 1 else "M" + "L".join(run))
            run = []
    return "".join(pieces)


def _frame(scale: Scale, unit: str, inside: str) -> Markup:
    """Axes and grid around the drawing `inside` (markup made here, of numbers only)."""
    y_ticks = ticks(scale.y_low, scale.y_high, 4)
    y_step = y_ticks[1] - y_ticks[0] if len(y_ticks) > 1 else abs(scale.y_high - scale.y_low)
    x_ticks = ticks(scale.x_low, scale.x_high, 5, whole=True)
    y_text = "".join(
        f'<text x="100%" y="{scale.y(t) / SIZE * 100:.2f}%" dy="0.32em" text-anchor="end">{escape(tick_label(t, y_step, unit))}</text>'
        for t in y_ticks
    )
    x_text = ""
    for t in x_ticks:
        share = scale.x(t) / SIZE * 100
        anchor = "start" if share < 2 else "end" if share > 96 else "middle"
        x_text += f'<text x="{share:.2f}%" y="12" text-anchor="{anchor}">{escape(tick_label(t, 1, ""))}</text>'
    grid = "".join(f'<path class="grid" d="M0 {scale.y(t):.1f}H{SIZE:g}"/>' for t in y_ticks)
    return Markup(
        f'<svg class="ylab" aria-hidden="true">{y_text}</svg>'
        f'<svg class="plot" viewBox="0 0 {SIZE:g} {SIZE:g}" preserveAspectRatio="none" aria-hidden="true">{grid}'
        f'<path class="axis" d="M0 {SIZE:g}H{SIZE:g}"/>{inside}<path class="cross" d=""/></svg>'
        f'<svg class="xlab" aria-hidden="true">{x_text}</svg>'
    )


def _x_range(lines: Sequence[Line]) -> tuple[float, float]:
    xs = [x for line in lines for x, _ in line.points]
    low, high = min(xs), max(xs)
    if high == low:
        return low - 1, high + 1
    # A run's first step is 1: begin at 0, where its weights are those it was given.
    return (0.0 if 0 <= low <= (high - low) * 0.1 else low), high


def _table(lines: Sequence[Line], scale: Scale, unit: str, colours: Sequence[str]) -> dict[str, Any]:
    """The hover data of a chart: every x that has a value, and of each curve what is there."""
    xs = sorted({x for line in lines for x, y in line.points if y is not None})
    curves = []
    for line, colour in zip(lines, colours, strict=True):
        there = {x: i for i, (x, y) in enumerate(line.points) if y is not None}
        texts: list[str | None] = []
        heights: list[float | None] = []
        for x in xs:
            i = there.get(x)
            value = line.points[i][1] if i is not None else None
            text = say(value, unit) if value is not None else None
            if i is not None and line.low and line.low[i] is not None:
                text = f"{text} [{say(line.low[i], unit)}, {say(line.high[i], unit)}]"
            texts.append(text)
            heights.append(round(scale.y(value) / SIZE, 4) if value is not None else None)
        curves.append({"label": line.label, "colour": colour, "texts": texts, "heights": heights})
    return {"x": xs, "at": [round(scale.x(x) / SIZE, 5) for x in xs], "curves": curves}


def _legend(line: Line, colour: str, unit: str) -> dict[str, Any]:
    known = [y for _, y in line.points if y is not None]
    metric = describe(line.name)
    return {
        "label": line.label,
        "colour": colour,
        "last": say(known[-1], unit) if known else "–",
        "name": line.name,
        "meaning": metric.meaning if metric else "",
        "formula": metric.formula if metric else "",
    }


def _spoken(lines: Sequence[Line], unit: str) -> str:
    said = []
    for line in lines:
        known = [(x, y) for x, y in line.points if y is not None]
        if len(known) == 1:
            said.append(f"{line.label}: {say(known[0][1], unit)} at step {known[0][0]:g}")
        elif known:
            said.append(
                f"{line.label}: from {say(known[0][1], unit)} at step {known[0][0]:g} to {say(known[-1][1], unit)} "
                f"at step {known[-1][0]:g}"
            )
    return "; ".join(said)


def line_chart(
    key: str, title: str, formula: str, lines: list[Line], unit: str = "", better: str = "none", *, dots: bool = False
) -> Chart | None:
    """Curves over the steps; None if no curve has a value. Error bars where a curve has `low` and `high`."""
    lines = [line for line in lines if any(y is not None for _, y in line.points)]
    if not lines:
        return None
    left_out = len(lines) - CURVES
    lines = lines[:CURVES]
    values = [y for line in lines for _, y in line.points if y is not None]
    values += [v for line in lines for v in [*line.low, *line.high] if v is not None]
    scale = Scale(*_x_range(lines), *span(values, unit, from_zero=False))
    colours = [f"s{i % CURVES + 1}" for i in range(len(lines))]
    drawn, note = "", ""
    for line, colour in zip(lines, colours, strict=True):
        radius = len(line.points) // 40
        if dots:
            bars = "".join(
                f"M{scale.x(x):.1f} {scale.y(lo):.1f}V{scale.y(hi):.1f}"
                for (x, _), lo, hi in zip(line.points, line.low, line.high, strict=False)
                if lo is not None and hi is not None
            )
            marks = "".join(f"M{scale.x(x):.1f} {scale.y(y):.1f}h0" for x, y in line.points if y is not None)
            drawn += f'<path class="line link {colour}" d="{_path(line.points, scale)}"/>'
            drawn += f'<path class="bar {colour}" d="{bars}"/><path class="dot {colour}" d="{marks}"/>'
        elif radius >= 1:
            drawn += f'<path class="line raw {colour}" d="{_path(line.points, scale)}"/>'
            drawn += f'<path class="line mean {colour}" d="{_path(smooth(line.points, radius), scale)}"/>'
        else:
            drawn += f'<path class="line {colour}" d="{_path(line.points, scale)}"/>'
            if len(line.points) <= 12:
                marks = "".join(f"M{scale.x(x):.1f} {scale.y(y):.1f}h0" for x, y in line.points if y is not None)
                drawn += f'<path class="dot small {colour}" d="{marks}"/>'
    if left_out > 0:
        note = f"{note}; " * bool(note) + f"{left_out} more are logged and not drawn"
    return Chart(
        key=key,
        title=title,
        formula=formula,
        names=[line.name for line in lines if line.name],
        unit=unit,
        better=better,
        svg=_frame(scale, unit, drawn),
        legend=[_legend(line, c, unit) for line, c in zip(lines, colours, strict=True)],
        spoken=_spoken(lines, unit),
        data=_table(lines, scale, unit, colours),
        note=note,
    )


def stacked_chart(key: str, title: str, formula: str, lines: list[Line], unit: str) -> Chart | None:
    """Areas on top of one another; the curves are brought to the same steps, a missing value counts as nothing."""
    lines = [line for line in lines if any(y for _, y in line.points)]
    if not lines:
        return None
    xs = sorted({x for line in lines for x, y in line.points if y is not None})
    values = [dict(line.points) for line in lines]
    below = [0.0] * len(xs)
    tops: list[list[float]] = []
    for of in values:
        below = [b + max(0.0, of.get(x) or 0.0) for b, x in zip(below, xs, strict=True)]
        tops.append(below)
    scale = Scale(*_x_range(lines), *span(below, unit, from_zero=True))
    colours = [f"s{i % CURVES + 1}" for i in range(len(lines))]
    drawn = ""
    floor = [0.0] * len(xs)
    for top, colour in zip(tops, colours, strict=True):
        if len(xs) == 1:  # one step only: a column in the middle
            drawn += f'<path class="area {colour}" d="M400 {scale.y(floor[0]):.1f}H600V{scale.y(top[0]):.1f}H400Z"/>'
        else:
            up = "L".join(f"{scale.x(x):.1f} {scale.y(y):.1f}" for x, y in zip(xs, top, strict=True))
            down = "L".join(
                f"{scale.x(x):.1f} {scale.y(y):.1f}" for x, y in zip(reversed(xs), reversed(floor), strict=True)
            )
            drawn += f'<path class="area {colour}" d="M{up}L{down}Z"/>'
        floor = top
    full = [Line(line.label, line.name, [(x, of.get(x)) for x in xs]) for line, of in zip(lines, values, strict=True)]
    total = Line("total", "", list(zip(xs, tops[-1], strict=True)))
    data = _table([*full, total], scale, unit, [*colours, "total"])
    for curve, top in zip(data["curves"], tops, strict=False):
        curve["heights"] = [round(scale.y(y) / SIZE, 4) for y in top]
    sums = [sum(y or 0.0 for _, y in line.points) for line in full]
    legend = [_legend(line, c, unit) for line, c in zip(full, colours, strict=True)]
    for entry, mine in zip(legend, sums, strict=True):
        entry["last"] = say(mine / (sum(sums) or 1.0), "share")
    return Chart(
        key=key,
        title=title,
        formula=formula,
        names=[line.name for line in lines],
        unit=unit,
        better="none",
        svg=_frame(scale, unit, drawn),
        legend=legend,
        spoken=_spoken([total], unit),
        data=data,
        note="in the legend: share of the whole run's time",
    )


def interval_bar(value: float, low: float | None, high: float | None, colour: str) -> Markup:
    """A dot with its interval on an axis from 0 to 1, as wide as its place."""
    bar = ""
    if low is not None and high is not None:
        bar = f'<line class="bar {colour}" x1="{100 * low:.2f}%" x2="{100 * high:.2f}%" y1="50%" y2="50%"/>' + "".join(
            f'<line class="cap {colour}" x1="{100 * end:.2f}%" x2="{100 * end:.2f}%" y1="34%" y2="66%"/>'
            for end in (low, high)
        )
    grid = "".join(f'<line class="grid" x1="{p}%" x2="{p}%" y1="0" y2="100%"/>' for p in (0, 25, 50, 75, 100))
    return Markup(
        f'<svg class="interval" aria-hidden="true">{grid}{bar}'
        f'<circle class="dot {colour}" cx="{100 * value:.2f}%" cy="50%" r="5"/></svg>'
    )
