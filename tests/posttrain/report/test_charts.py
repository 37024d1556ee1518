"""Numbers into curves: ticks, means, scales, and the words around them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.metrics import METRICS
from posttrain.report import axes, charts, curves, data

finite = st.floats(-1e12, 1e12, allow_nan=False)


@given(finite, st.floats(1e-9, 1e12))
def test_ticks_are_few_even_and_inside(low: float, width: float) -> None:
    high = low + width
    if not high - low > abs(low) * 1e-9:
        return
    found = axes.ticks(low, high, 4)
    assert 1 <= len(found) <= 8
    slack = (high - low) * 1e-6
    assert all(low - slack <= t <= high + slack for t in found)
    if len(found) > 2:
        assert np.allclose(np.diff(found), found[1] - found[0], rtol=1e-3)


@given(st.integers(0, 100_000), st.integers(1, 100_000))
def test_ticks_of_steps_are_whole(low: int, width: int) -> None:
    assert all(t == round(t) for t in axes.ticks(low, low + width, 5, whole=True))


@given(st.lists(finite, min_size=1, max_size=2_000), st.integers(2, 60))
def test_thinning_keeps_the_ends_and_the_mean(values: list[float], points: int) -> None:
    series = data.Series(list(range(1, len(values) + 1)), list(values))
    thin = axes.thin(series, points)
    assert len(thin) == min(points, len(values))
    assert (thin[0][0], thin[-1][0]) == (1, len(values))
    counts = np.diff([round(i * len(values) / len(thin)) for i in range(len(thin) + 1)])
    assert math.isclose(np.average([y for _, y in thin], weights=counts), np.mean(values), rel_tol=1e-6, abs_tol=1e-3)


def test_the_bold_line_is_a_centred_mean() -> None:
    values = np.random.default_rng(0).normal(size=200)
    points = axes.smooth(list(enumerate(values)), 7)
    inside = np.convolve(values, np.ones(15) / 15, mode="valid")
    assert np.allclose([y for _, y in points[7:-7]], inside)
    assert points[0][1] == pytest.approx(values[0])
    assert points[-1][1] == pytest.approx(values[-1])


def test_gaps_stay_gaps_and_a_point_alone_is_a_dot() -> None:
    chart = charts.line_chart("k", "t", "f", [charts.Line("a", "a", [(0, 1.0), (1, None), (2, 3.0), (3, 4.0)])])
    path = re.search(r'class="line s1" d="([^"]+)"', chart.svg)[1]
    assert path.count("M") == 2
    assert path.startswith("M0.0 ")
    assert "h0M" in path
    assert chart.data["x"] == [0, 2, 3]


def test_nothing_to_draw_is_no_chart() -> None:
    assert charts.line_chart("k", "t", "f", [charts.Line("a", "a", [(0, None)])]) is None
    assert charts.stacked_chart("k", "t", "f", [charts.Line("a", "a", [(0, 0.0)])], "s") is None
    assert curves.build(data.Run(Path("."), "x")) == ([], [])


@given(
    st.lists(
        st.tuples(st.integers(0, 10**6), st.none() | st.floats(allow_nan=False, allow_infinity=False)),
        min_size=1,
        max_size=30,
    )
)
def test_any_numbers_give_coordinates_inside_the_plot(points: list[tuple[int, float | None]]) -> None:
    by_step = dict(points)
    steps = sorted(by_step)
    series = data.Series(steps, [by_step[s] for s in steps])
    chart = charts.line_chart("k", "t", "f", [charts.Line("a", "a", axes.thin(series))])
    if chart is None:
        assert all(v is None for v in series.values)
        return
    numbers = [
        float(n) for d in re.findall(r' d="([^"]*)"', chart.svg) for n in re.findall(r"-?[\d.]+(?:e[+-]?\d+)?", d)
    ]
    assert all(-0.1 <= n <= axes.SIZE + 0.1 for n in numbers)
    assert "nan" not in chart.svg
    assert "inf" not in chart.svg
    assert all(0 <= x <= 1 for x in chart.data["at"])


def test_stacked_phases_add_up_to_the_step() -> None:
    lines = [charts.Line("a", "a", [(1, 1.0), (2, 3.0)]), charts.Line("b", "b", [(1, 2.0), (2, 1.0)])]
    chart = charts.stacked_chart("k", "t", "f", lines, "s")
    total = chart.data["curves"][-1]
    assert (total["label"], total["texts"]) == ("total", ["3 s", "4 s"])
    bottom = axes.SIZE * (1 - 0)
    assert f"L{axes.SIZE:.1f} {bottom:.1f}" in chart.svg  # the lowest area stands on zero
    assert [entry["last"] for entry in chart.legend] == ["57.1 %", "42.9 %"]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "", "–"), (0.0, "share", "0 %"), (1.0, "share", "100 %"), (0.4731, "share", "47.3 %"), (0.00002, "share", "0.002 %"),
        (0.00000287, "nats", "2.87e-6 nats"), (1_228_800, "tokens", "1.23M tokens"), (12_345.0, "", "12,345"), (0.5, "", "0.5"), (-0.0123456, "", "-0.01235"), (4e12, "", "4e12"),
    ],
)  # fmt: skip
def test_numbers_as_words(value: float | None, unit: str, text: str) -> None:
    assert axes.say(value, unit) == text


def test_every_chart_says_what_it_shows_and_every_metric_is_somewhere(make_run: Callable[..., Path]) -> None:
    run = data.read(make_run("charts", steps=40))
    groups, rest = curves.build(run)
    shown = [chart for group in groups for chart in group.charts]
    for chart in shown:
        assert chart.title
        assert chart.formula
        assert chart.spoken
    assert {name for chart in [*shown, *rest] for name in chart.names} == set(run.train)
    assert len({chart.key for chart in [*shown, *rest]}) == len(shown) + len(rest)
    single = next(chart for chart in shown if chart.key == "entropy")
    assert (single.title, single.formula) == (METRICS["entropy"].meaning, METRICS["entropy"].formula)
    assert "my/own number" in {name for chart in rest for name in chart.names}


def test_evaluation_points_have_their_intervals(make_run: Callable[..., Path]) -> None:
    run = data.read(make_run("points", steps=250))
    chart = curves.evaluation_chart(run.evaluations)
    assert chart.data["x"] == [0, 100, 200, 250]
    assert chart.data["curves"][0]["texts"][0] == "47.3 % [44.2 %, 50.4 %]"
    assert re.search(r'class="bar s1" d="([^"]+)"', chart.svg)[1].count("V") == 4
    assert curves.evaluation_chart(run.evaluations[:1]) is None
