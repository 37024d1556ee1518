"""MATH-500: 500 competition problems in LaTeX, levels 1 to 5."""

from __future__ import annotations

from posttrain.evaluation.benchmarks.base import Benchmark, Problem
from posttrain.evaluation.rows import Fields, Hub


def read(row: Fields) -> Problem:
    columns = {name: row[name] for name in ("unique_id", "subject", "level") if name in row}
    solution = row["solution"] if isinstance(row.get("solution"), str) else ""
    return Problem(row.text("problem"), row.number_or_text("answer"), solution=solution, columns=columns)


benchmark = Benchmark("math500", read, Hub("HuggingFaceH4/MATH-500", "test"), size=500)
