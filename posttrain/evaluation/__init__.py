"""Benchmarks, samples, estimates with intervals, and paired comparison.

`sampling.evaluate` asks an engine and writes samples and a result; `run` holds what the command line calls. Importing
this imports nothing else: names below load their modules when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from posttrain.evaluation.benchmarks import BENCHMARKS

_HOMES = {
    "Benchmark": "benchmarks.base",
    "Problem": "benchmarks.base",
    "find_benchmark": "benchmarks.base",
    "Comparison": "compare",
    "Result": "results",
    "evaluate": "sampling",
    "grade_texts": "sampling",
}

__all__ = ["BENCHMARKS", *_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
