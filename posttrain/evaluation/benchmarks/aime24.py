"""AIME 2024, I and II: 30 problems whose answers are whole numbers from 000 to 999."""

from __future__ import annotations

from posttrain.evaluation.benchmarks.base import Benchmark, Problem, whole_number
from posttrain.evaluation.rows import Fields, Hub


def read(row: Fields) -> Problem:
    columns = {name: row[name] for name in ("id", "url") if name in row}
    gold = whole_number(row.number_or_text("answer", "Answer"))  # seven golds of 2024 are written 073, 025, ...
    return Problem(row.text("problem", "question", "Problem"), gold, columns=columns)


benchmark = Benchmark("aime24", read, Hub("HuggingFaceH4/aime_2024", "train"), size=30)
