"""An adaptive entry under `evaluation` in a recipe: does its bank fit, and what goes to `metrics.jsonl`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from posttrain.recipe.schema import Evaluation


def check_bank(one: Evaluation) -> None:
    """Read the bank of an entry and hold it against its benchmark; against the problems' texts too where they are at hand
    (a file, or made here) and need not be fetched.

    Raises:
        Mistake: it cannot be read or does not fit.
    """
    from posttrain.errors import Mistake
    from posttrain.evaluation.adaptive.bank import pool, read_bank
    from posttrain.evaluation.benchmarks.base import find_benchmark

    if one.adaptive is None:
        return
    bank = read_bank(one.adaptive.bank)
    try:
        benchmark = find_benchmark(one.benchmark)
    except Mistake:
        return  # said of the benchmark itself
    if bank.benchmark is not None and bank.benchmark != benchmark.name:
        pool(bank, one.adaptive.bank, benchmark.name, [])
    if one.path is not None or benchmark.rows is not None:
        pool(bank, one.adaptive.bank, benchmark.name, benchmark.load(one.path, one.limit), part=one.limit is not None)


def metrics_line(benchmark: str, step: int, adaptive: Mapping[str, Any]) -> dict[str, Any]:
    """The line of `metrics.jsonl` of an adaptive evaluation at `step`; its keys are in `posttrain.metrics`."""
    prefix = f"adaptive/{benchmark}"
    return {
        "step": step,
        "phase": "evaluation",
        "time": time.time(),
        f"{prefix}/ability": adaptive["ability"],
        f"{prefix}/se": adaptive["se"],
        f"{prefix}/items": adaptive["items"],
        f"{prefix}/accuracy": adaptive["predicted"]["value"],
    }
