"""What an evaluation took, and what its score would have been for less: tokens, time, eFLOPs, lengths, token budgets.

Everything is over all chains, also those that were cut, failed or lost a vote.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from posttrain.errors import Mistake
from posttrain.evaluation import kinetics
from posttrain.evaluation.statistics.estimates import estimate
from rollouts.records import Engine

Line = Mapping[str, Any]
"""A line of `samples.jsonl`."""
VERDICTS = ("RIGHT", "WRONG", "NONE", "TIMEOUT")
BARS = 20
"""Most columns of the histogram of lengths."""


@dataclass(frozen=True, slots=True)
class Device:
    """What an engine computes on."""

    name: str
    """Of one of them, as the driver says it; `CPU`; or `unknown` (a server elsewhere that was not described)."""
    count: int = 1

    @property
    def gpu(self) -> bool:
        return self.name not in ("CPU", "unknown")

    def __str__(self) -> str:
        return f"{self.count} x {self.name}" if self.gpu else self.name


def device_named(given: str) -> Device:
    """A device as a user writes it: `H100`, `2 x H100`, `cpu`.

    Raises:
        Mistake: it cannot be read.
    """
    found = re.fullmatch(r"\s*(?:([1-9]\d{0,5})\s*[x×]\s*)?(?![-+.\d]+\s*[x×]\s)(\S.*?)\s*", given)
    if found is None:
        raise Mistake(f'device: "{given}" should be a name with or without a number before it, for instance 2 x H100')
    name = "CPU" if found[2].lower() == "cpu" else found[2]
    return Device(name, int(found[1] or 1))


def device_of(engine: Engine, given: str | None = None) -> Device:
    """What `engine` runs on: as the user says (`device_named`), else this machine's for engines in this process.

    Raises:
        Mistake: `given` cannot be read.
    """
    if given is not None:
        return device_named(given)
    if getattr(engine, "shared", False):
        return Device("unknown")
    import torch

    wanted = getattr(getattr(engine, "spec", None), "device", None)
    if not torch.cuda.is_available() or str(wanted or "").startswith("cpu"):
        return Device("CPU")
    return Device(torch.cuda.get_device_name(), int(getattr(engine, "devices", 1)))


def shape_of_engine(engine: Engine) -> kinetics.Shape | None:
    """The shape of the model that an engine serves, if its config is at hand."""
    spec = getattr(engine, "spec", None)
    name = getattr(spec, "model", None)
    return _shape(name, getattr(spec, "revision", None)) if isinstance(name, str) else None


@lru_cache
def _shape(model: str, revision: str | None) -> kinetics.Shape | None:
    from posttrain import models
    from posttrain.recipe.schema import Model

    try:
        return kinetics.shape_of(models.load_config(Model(name=model, revision=revision)))
    except (Mistake, ValueError, OSError):
        return None


def block(
    items: Sequence[Sequence[Line]],
    *,
    device: Device,
    shape: kinetics.Shape | None,
    intensity: float | None = None,
    **about: Any,
) -> dict[str, Any]:
    """The cost block of a result.

    Args:
        items: the samples of each problem.
        device: what the engine ran on.
        shape: of the model; None = not known, then there are no eFLOPs.
        intensity: FLOPs a byte; None = the device's own, the paper's where that is not known.
        about: what else the block should say (model, samples, max_tokens, temperature, engine, handed_over).

    Returns:
        `about`, and: `chains`; `tokens` {prompt, cached, cached_share (null if no engine said it), output, total}; `output` {mean, median, p95,
        max} tokens a chain; `truncated` share; `seconds` {generating, grading, total} of wall time, over all calls that made
        these samples (null if some did not note it); `device`, `devices`, `gpu_seconds` (null without a GPU);
        `tokens_per_second` (output, while generating); `at_once` most sequences that were worked on at the same moment; `queue` and
        `to_first_token` {mean, p95} seconds of waiting to be taken up, and of that and the prompt's pass (null if the engine does not say); `per_item` and `per_correct` {tokens (output), seconds, eflops}
        (null if nothing is right); `parameters` (active); `eflops` {total, compute, memory_bytes, attention_share,
        intensity, intensity_of} or null.
    """
    lines = [line for item in items for line in item]
    generating = _sum(lines, "seconds")
    output = sum(line["completion_tokens"] for line in lines)
    prompt = sum(line["prompt_tokens"] for line in lines)
    cached = _sum(lines, "cached_tokens")
    made = {
        **about,
        "chains": len(lines),
        "tokens": {
            "prompt": prompt,
            "cached": None if cached is None else int(cached),
            "cached_share": None if cached is None else _share(cached, prompt),
            "output": output,
            "total": prompt + output,
        },
        "output": spread(lines),
        "truncated": sum(line["finish"] == "length" for line in lines) / len(lines),
        "device": device.name,
        "devices": device.count if device.gpu else None,
        "gpu_seconds": _round(generating * device.count) if device.gpu and generating is not None else None,
        "tokens_per_second": _round(output / generating) if generating else None,
        "at_once": max((line["at_once"] for line in lines), default=None) if _all_say(lines, "at_once") else None,
        "queue": _quantiles(lines, "queue_seconds"),
        "to_first_token": _quantiles(lines, "queue_seconds", "prefill_seconds"),
        "parameters": None if shape is None else shape.parameters,
        "eflops": _eflops(items, shape, device, intensity),
    }
    return judged_again(made, items)


def judged_again(found: Mapping[str, Any], items: Sequence[Sequence[Line]]) -> dict[str, Any]:
    """A cost block with those of its parts that the verdicts decide made from these samples: `seconds`, `per_item`, `per_correct`."""
    if not found:
        return {}
    lines = [line for item in items for line in item]
    generating, grading = (_sum(lines, key) for key in ("seconds", "grading_seconds"))
    seconds = None if generating is None or grading is None else generating + grading
    flops = found["eflops"]
    totals = {
        "tokens": sum(line["completion_tokens"] for line in lines),
        "seconds": seconds,
        "eflops": None if flops is None else flops["total"],
    }
    right = sum(line["score"] for line in lines)
    return {
        **found,
        "seconds": {"generating": _round(generating), "grading": _round(grading), "total": _round(seconds)},
        "per_item": {name: _share(total, len(items)) for name, total in totals.items()},
        "per_correct": {name: _share(total, right) for name, total in totals.items()},
    }


def _eflops(
    items: Sequence[Sequence[Line]], shape: kinetics.Shape | None, device: Device, given: float | None
) -> dict[str, Any] | None:
    if shape is None:
        return None
    per_byte, whose = (given, "given") if given is not None else kinetics.intensity(device.name)
    cost = kinetics.Cost()
    for item in items:
        cost += kinetics.problem_cost(shape, item[0]["prompt_tokens"], [line["completion_tokens"] for line in item])
    total = cost.eflops(per_byte)
    return {
        "total": total,
        "compute": cost.linear + cost.attention,
        "memory_bytes": cost.memory,
        "attention_share": 1 - cost.linear / total if total else None,
        "intensity": per_byte,
        "intensity_of": whose,
    }


def _sum(lines: Sequence[Line], key: str) -> float | None:
    """None if a line does not say."""
    values = [line.get(key) for line in lines]
    return None if any(value is None for value in values) else math.fsum(values)  # type: ignore[arg-type]


def _all_say(lines: Sequence[Line], key: str) -> bool:
    return all(line.get(key) is not None for line in lines)


def _quantiles(lines: Sequence[Line], *keys: str) -> dict[str, float] | None:
    """Mean and 95th percentile of a sum of seconds; None if a line does not say."""
    if not all(_all_say(lines, key) for key in keys):
        return None
    values = np.array([sum(line[key] for key in keys) for line in lines])
    return {"mean": round(float(values.mean()), 6), "p95": round(float(np.percentile(values, 95)), 6)}


def _share(total: float | None, of: float) -> float | None:
    return None if total is None or not of else total / of


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def spread(lines: Sequence[Line]) -> dict[str, float]:
    """Mean, median, 95th percentile and largest number of output tokens."""
    tokens = np.array([line["completion_tokens"] for line in lines])
    return {
        "mean": float(tokens.mean()),
        "median": float(np.median(tokens)),
        "p95": float(np.percentile(tokens, 95)),
        "max": int(tokens.max()),
    }


def lengths(lines: Sequence[Line]) -> dict[str, Any]:
    """`spread`, and a histogram of output tokens for each verdict: see `Result.lengths`."""
    tokens = np.array([line["completion_tokens"] for line in lines])
    width = bar_width(int(tokens.max()))
    places = tokens // width
    edges = range(int(places.max()) + 1)
    verdicts = np.array([line["verdict"] for line in lines])
    histogram = {
        name: [[edge * width, int(np.sum((places == edge) & (verdicts == name)))] for edge in edges]
        for name in VERDICTS
        if np.any(verdicts == name)
    }
    return {**spread(lines), "width": width, "histogram": histogram}


def bar_width(longest: int) -> int:
    """The smallest of 1, 2, 5, 10, 20, ... with which lengths up to `longest` fit into `BARS` columns."""
    return next(m * 10**power for power in range(30) for m in (1, 2, 5) if longest < BARS * m * 10**power)


def at_budgets(
    items: Sequence[Sequence[Line]], clusters: Sequence[Hashable], sizes: Sequence[int]
) -> list[dict[str, Any]]:
    """Accuracy if every sample had been cut at so many output tokens: see `Result.budgets`.

    Args:
        items: the samples of each problem.
        clusters: one name a problem.
        sizes: the budgets, rising; the last is the limit they were made under.

    Returns:
        Nothing if some sample did not note its verdicts at the budgets.
    """
    lines = [line for item in items for line in item]
    if any(str(s) not in line.get("cuts", {}) for line in lines for s in sizes if s < line["completion_tokens"]):
        return []
    found = []
    for size in sizes:
        values = [sum(_score_at(line, size) for line in item) / len(item) for item in items]
        used = sum(min(size, line["completion_tokens"]) for line in lines) / len(lines)
        found.append({"tokens": size, "used": used, "accuracy": estimate(values, clusters).to_json()})
    return found


def _score_at(line: Line, size: int) -> float:
    if line["completion_tokens"] <= size:
        return float(line["score"])
    return float(line["cuts"][str(size)] == "RIGHT")
