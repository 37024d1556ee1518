"""What an evaluation took: tokens, time, arithmetic."""

from __future__ import annotations

from typing import Any

from posttrain.report.axes import say
from posttrain.report.run import Evaluation
from posttrain.report.values import as_dict, number

COSTS = (
    ("completion tokens, all samples", "tokens.output", "number"),
    ("prompt tokens, all samples", "tokens.prompt", "number"),
    ("of them from the engine's cache", "tokens.cached", "number"),
    ("completion tokens: mean", "output.mean", "number"),
    ("median", "output.median", "number"),
    ("95th percentile", "output.p95", "number"),
    ("longest", "output.max", "number"),
    ("generating", "seconds.generating", "seconds"),
    ("grading", "seconds.grading", "seconds"),
    ("on", "device", "text"),
    ("GPU-seconds", "gpu_seconds", "number"),
    ("completion tokens a second", "tokens_per_second", "number"),
    ("share of the tokens of all items of the bank (estimated)", "of_full.share", "share"),
    ("tokens a problem", "per_item.tokens", "number"),
    ("tokens a right answer", "per_correct.tokens", "number"),
    ("a right answer", "per_correct.seconds", "seconds"),
    ("parameters", "parameters", "number"),
    ("eFLOPs (Kinetics: arithmetic and memory traffic)", "eflops.total", "number"),
    ("of them attention", "eflops.attention_share", "share"),
    ("FLOPs a byte of the device", "eflops.intensity", "number"),
)
"""Rows of the cost table: what it is called, where it is in the result's cost block, how it is written."""


def table(pair: list[Evaluation]) -> list[tuple[str, list[str]]]:
    """Rows of the cost table. A result from before there was a cost block has its tokens and seconds."""
    sides = []
    for e in pair:
        old = {"tokens": {"output": e.result.get("tokens"), "prompt": e.result.get("prompt_tokens")},
               "seconds": {"generating": e.result.get("seconds")}}  # fmt: skip
        sides.append(as_dict(e.result.get("cost")) or old)
    rows = []
    for name, path, kind in COSTS:
        values = [_figure(_at(side, path), kind) for side in sides]
        if any(value != "–" for value in values):
            rows.append((name, values))
    return rows


def _at(block: dict[str, Any], path: str) -> Any:
    first, _, rest = path.partition(".")
    return _at(as_dict(block.get(first)), rest) if rest else block.get(first)


def _figure(value: Any, kind: str) -> str:
    if kind == "text":
        return value[:200] if isinstance(value, str) and value else "–"
    figure = number(value)
    if figure is None:
        return "–"
    return f"{say(figure)} s" if kind == "seconds" else say(figure, "share" if kind == "share" else "")
