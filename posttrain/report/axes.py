"""Numbers for reading, ticks, and the way from numbers to a plot's units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from posttrain.report.run import Series

POINTS = 400
"""Points of a curve on the page; of more, means over equal stretches of logged lines."""
SIZE = 1000.0
"""Width and height of the plot in its own units."""

LARGEST = 1e100
"""Numbers beyond it are drawn at it, so that differences stay finite."""

Point = tuple[float, float | None]


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


def span(values: Sequence[float], unit: str, from_zero: bool) -> tuple[float, float]:
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
