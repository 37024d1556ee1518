"""The curves over optimiser steps, in sections: which of them a run has."""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass

from posttrain.metrics import METRICS, Metric, describe
from posttrain.report import told
from posttrain.report.axes import thin
from posttrain.report.charts import Chart, Line, line_chart, stacked_chart
from posttrain.report.outline import GROUPS, LABELS, QUIET
from posttrain.report.run import Evaluation, Run, Series

STACKED = 100
"""Points of stacked areas, which are read as a whole."""


@dataclass
class Group:
    title: str
    charts: list[Chart]


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
