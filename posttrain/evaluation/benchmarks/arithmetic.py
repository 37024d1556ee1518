"""Held-out problems of the miniature task: multi-digit addition, answers boxed; disjoint from its training problems."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from posttrain.evaluation.benchmarks.base import Benchmark, Problem
from posttrain.evaluation.prompts import OWN
from posttrain.evaluation.rows import Fields
from posttrain.imports import load_object

HELD_OUT = "posttrain.miniature.arithmetic:held_out"
SIZE = 512


def rows(limit: int | None) -> Iterable[Mapping[str, Any]]:
    return load_object(HELD_OUT, "arithmetic")(n=max(limit or 0, SIZE))  # a limit takes the first of the same problems


def read(row: Fields) -> Problem:
    return Problem(row.text("question"), row.number_or_text("answer"), prompt=row["prompt"])


benchmark = Benchmark("arithmetic", read, rows=rows, style=OWN, size=SIZE)
