"""Curves as SVG, made here so that the page shows them without running anything.

A chart is three SVGs in one frame: labels of the y axis, the plot, labels of the x axis. The plot is stretched to the frame's width
(its strokes are not), so that text keeps its size on a desk and on a phone. Colours are classes: the page's style decides on them.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from markupsafe import Markup, escape

from posttrain.metrics import METRICS, Metric, describe
from posttrain.report import told
from posttrain.report.data import Evaluation, Run, Series
from posttrain.report.outline import GROUPS, LABELS, QUIET

POINTS = 400
"""Points of a curve on the page; of more, means over equal stretches of logged lines."""
STACKED = 100
"""Points of stacked areas, which are read as a whole."""
SIZE = 1000.0
"""Width and height of the plot in its own units."""

LARGEST = 1e100
"""Numbers beyond it are drawn at it, so that differences stay finite."""
CURVES = 8
"""Curves of one chart: more colours could not be told apart."""

Point = tuple[float, float | None]


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


@dataclass
class Group:
    title: str
    charts: list[Chart]


def say(value: float | None, unit: str = "") -> str:
    """A number for reading: shares as percent, no false digits."""
    if value is None:
        return "–"
    if unit == "share":
        percent = 100 * value
        digits = 0 if abs(percent) >= 99.95 or percent == 0 else 1 if abs(percent) >= 0.1 else 3
        return f"{percent:.{digits}f} %"
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-3:
        text = _compact(value)
    elif value == int(value):
        text = f"{int(value):,}"
    else:
        text = f"{value:,.{max(0, 3 - math.floor(math.log10(size)))}f}".rstrip("0").rstrip(".")
    return f"{text} {unit}" if unit else text


def _compact(value: float) -> str:
    """Very large and very small numbers in few signs: `1.23M`, `4.5e12`, `2.87e-6`."""
    if 1e6 <= abs(value) < 1e9:
        return f"{value / 1e6:.3g}M" if abs(value) < 9.995e8 else "1e9"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"


def ticks(low: float, high: float, wanted: int = 4, whole: bool = False) -> list[float]:
    """About `wanted` round numbers that lie in [low, high]; only whole ones if `whole`."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    if whole:
        step = max(1.0, float(math.ceil(step)))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def tick_label(value: float, step: float, unit: str) -> str:
    if unit == "share":
        digits = max(0, -math.floor(math.log10(max(step * 100, 1e-12)) + 1e-9)) if step else 0
        digits += bool(step and abs(round(step * 100, digits) - step * 100) > 1e-9 * step * 100)
        return f"{value * 100:.{digits}f}%"
    if value == 0:
        return "0"
    size = max(abs(value), step)
    if size >= 1e6 or size < 1e-3:
        return _compact(value)
    if size >= 1e4:
        return f"{value / 1000:.6g}k"
    return f"{round(value, max(0, 2 - math.floor(math.log10(step)))) if step else value:.6g}"


def thin(series: Series, points: int = POINTS) -> list[Point]:
    """The series in at most `points` points: means over equal numbers of logged lines, at their mean step."""
    count = len(series.steps)
    values = [None if v is None else max(-LARGEST, min(LARGEST, v)) for v in series.values]
    if count <= points:
        return list(zip(series.steps, values, strict=True))
    edges = [round(i * count / points) for i in range(points + 1)]
    out: list[Point] = []
    for start, end in pairwise(edges):
        known = [v for v in values[start:end] if v is not None]
        middle = sum(series.steps[start:end]) / (end - start)
        out.append((round(middle), sum(known) / len(known) if known else None))
    out[0] = (series.steps[0], out[0][1])
    out[-1] = (series.steps[-1], out[-1][1])
    return out


def smooth(points: Sequence[Point], radius: int) -> list[Point]:
    """Centred running mean over `2 radius + 1` points; narrower (and still centred) near the ends, gaps left out."""
    out: list[Point] = []
    for i, (x, y) in enumerate(points):
        reach = min(radius, i, len(points) - 1 - i)
        known = [v for _, v in points[i - reach : i + reach + 1] if v is not None]
        out.append((x, sum(known) / len(known) if y is not None and known else None))
    return out


@dataclass
class Scale:
    """From numbers to the plot's units."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        return SIZE * (value - self.x_low) / (self.x_high - self.x_low)

    def y(self, value: float) -> float:
        return SIZE * (1 - (value - self.y_low) / (self.y_high - self.y_low))


def _span(values: Sequence[float], unit: str, from_zero: bool) -> tuple[float, float]:
    """The range of the y axis: the values with a little air, to zero where zero is near."""
    low, high = min(values), max(values)
    if from_zero:
        low = min(low, 0.0)
        high = max(high, 0.0)
    flat = abs(high) * 0.1 or (0.05 if unit == "share" else 1.0)
    pad = flat if high == low else (high - low) * 0.06
    new_low, new_high = low - pad, high + pad
    if low >= 0 and (new_low < 0 or low < (high - low) * 0.35):
        new_low = 0.0 if high > 0 else new_low
    if high <= 0 and new_high > 0:
        new_high = 0.0 if low < 0 else new_high
    if unit == "share" and low >= 0 and high <= 1:
        new_low, new_high = max(0.0, new_low), min(1.0, new_high)
    return new_low, new_high


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
    scale = Scale(*_x_range(lines), *_span(values, unit, from_zero=False))
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
    scale = Scale(*_x_range(lines), *_span(below, unit, from_zero=True))
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


TIMES = tuple(name for name in METRICS if name.startswith("time/"))


def build(run: Run) -> tuple[list[Group], list[Chart]]:
    """The charts that have data, by section; and one small chart for each metric that is in no section."""
    used: set[str] = set()
    groups = []
    for title, wanted in GROUPS:
        charts = [_chart(run, key, heading, names, used) for key, heading, names in wanted]
        groups.append(Group(title, [chart for chart in charts if chart]))
    if not any(name.startswith("completions/") for name in run.train):
        groups[1].title = "The policy"
    if "reward" not in run.train:  # without rollouts the loss is what tells of learning
        moved = [chart for group in groups for chart in group.charts if chart.key == "loss"]
        for group in groups:
            group.charts = [chart for chart in group.charts if chart not in moved]
        groups[0].charts[:0] = moved
    if points := evaluation_chart(run.evaluations):
        groups[0].charts.insert(0, points)
    groups.append(Group("Time", [chart for chart in _time_charts(run, used) if chart]))
    left = [name for name in run.train if name not in used]
    rest = [_single(f"other-{i}", _title(name), name, run.train[name]) for i, name in enumerate(left)]
    rest += [
        _single(f"held-out-{i}", f"{_title(name)}, on held-out rows", name, run.held_out[name])
        for i, name in enumerate(sorted(run.held_out))
    ]
    return [group for group in groups if group.charts], [chart for chart in rest if chart]


def _chart(run: Run, key: str, heading: str, names: tuple[str, ...], used: set[str]) -> Chart | None:
    lines, metric, formula = [], None, ""
    for name in names:
        found = _matching(run, name) if "<" in name else [name]
        for one in found:
            if one in run.train:
                metric = metric or describe(one)
                formula = formula or (metric.formula if metric else "")
                lines.append(Line(_short(one, name), one, thin(run.train[one])))
    if not lines or (key in QUIET and not any(y for line in lines for _, y in line.points)):
        return None
    used.update(line.name for line in lines)
    if key == "rubric_failed" and (share := told.alarm(run.resolved)) is not None:
        xs = sorted({x for line in lines for x, _ in line.points})
        lines.append(Line(f"alarm over the last {told.WINDOW:,}", "", [(x, share) for x in xs]))
    title = heading or (metric.meaning if metric else lines[0].name)
    unit, better = (metric.unit, metric.better) if metric else ("", "none")
    return line_chart(key, title, formula, lines, unit, better)


def _title(name: str) -> str:
    metric = describe(name)
    return metric.meaning if metric else name


def _single(key: str, title: str, name: str, series: Series) -> Chart | None:
    metric = describe(name) or Metric(name, "")
    return line_chart(key, title, metric.formula, [Line(name, name, thin(series))], metric.unit, metric.better)


def _matching(run: Run, pattern: str) -> list[str]:
    """Logged names that the table explains by this very pattern."""
    return [name for name in run.train if describe(name) is METRICS[pattern]]


def _short(name: str, pattern: str) -> str:
    """A label for a curve: what is not common to the chart."""
    if "<" in pattern:
        before, hole, after = re.split("(<.*>)", pattern)
        return ("sample " if hole == "<i>" else "") + name.removeprefix(before).removesuffix(after)
    return LABELS.get(name) or name.rpartition("/")[2].replace("_length", "").replace("_terminated", "").replace(
        "_mean", " side"
    )


def _time_charts(run: Run, used: set[str]) -> list[Chart | None]:
    names = [name for name in TIMES if name in run.train]
    used.update(names)
    lines = [Line(name.removeprefix("time/"), name, thin(run.train[name], STACKED)) for name in names]
    phases = stacked_chart(
        "time", "Step time by phase", "seconds of an optimiser step, one phase on another", lines, "s"
    )
    return [
        phases,
        _chart(run, "step_time", "", ("step_time",), used),
        _chart(run, "num_tokens", "", ("num_tokens",), used),
    ]


def evaluation_chart(evaluations: list[Evaluation]) -> Chart | None:
    """Accuracy on held-out problems over the steps, with 95 % intervals; None without two points of a benchmark."""
    lines: dict[str, Line] = {}
    for evaluation in evaluations:
        estimate = evaluation.estimate()
        if evaluation.step is None or estimate is None or evaluation.adaptive is not None:
            continue
        line = lines.setdefault(evaluation.benchmark, Line(evaluation.benchmark, "", []))
        at = bisect_left([x for x, _ in line.points], evaluation.step)
        line.points.insert(at, (evaluation.step, estimate[0]))
        line.low.insert(at, estimate[1])
        line.high.insert(at, estimate[2])
    kept = [line for line in lines.values() if len(line.points) > 1]
    return line_chart(
        "evaluation",
        "Accuracy on held-out problems",
        "mean over problems of the share of right samples; bars: 95 % interval",
        kept,
        "share",
        "up",
        dots=True,
    )
