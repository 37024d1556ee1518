"""AMC 12 2023: the 40-problem set (sets of 83 and 46 problems go by the same name elsewhere); some copies store floats."""

from __future__ import annotations

from posttrain.evaluation.benchmarks.base import Benchmark, Problem, whole_number
from posttrain.evaluation.rows import Fields, Hub


def read(row: Fields) -> Problem:
    columns = {name: row[name] for name in ("id", "url") if name in row}
    gold = whole_number(row.number_or_text("answer"))
    return Problem(row.text("problem", "question"), gold, columns=columns)


benchmark = Benchmark("amc23", read, Hub("math-ai/amc23", "test"), size=40)
