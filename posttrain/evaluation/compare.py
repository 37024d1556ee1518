"""Is one model better than another? Two evaluations of the same problems, read and paired.

The test itself is in `statistics.paired`; here stands what makes two evaluations comparable.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from posttrain.errors import Mistake
from posttrain.evaluation.results import Result, by_item
from posttrain.evaluation.statistics.paired import paired


@dataclass(frozen=True, slots=True)
class Comparison:
    """B against A. Differences are B - A, as shares."""

    a: str
    b: str
    benchmark: str
    n: int
    """Problems that both were asked."""
    value_a: float
    value_b: float
    difference: float
    se: float | None
    """Standard error of the difference over problems (clusters); None for a single one."""
    low: float | None
    high: float | None
    p: float | None
    test: str
    method: str
    """How the interval was made."""
    better: int
    """Problems on which B's mean is higher, ..."""
    worse: int
    """... and lower."""
    smallest: float | None
    """The true difference that such a comparison would find in 80 % of cases; None = it could find none."""
    verdict: str
    """`better`, `worse` or `not distinguishable`."""
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(
    a: Result | str | os.PathLike[str], b: Result | str | os.PathLike[str], *, anyway: bool = False
) -> Comparison:
    """The paired comparison of two evaluations (folders or results).

    Args:
        anyway: compare on the shared problems, and in spite of another prompt or grader; `notes` then say so.

    Raises:
        Mistake: different benchmarks; different problems, prompts or graders without `anyway`; samples missing.
    """
    first, second = (one if isinstance(one, Result) else Result.read(one) for one in (a, b))
    where = f"{first.directory} and {second.directory}"
    if first.benchmark != second.benchmark:
        raise Mistake(f"{where}: two benchmarks ({first.benchmark}, {second.benchmark}) cannot be compared")
    left, right = by_item(first.samples()), by_item(second.samples())
    left = {i: found[: first.k] for i, found in left.items()}
    right = {i: found[: second.k] for i, found in right.items()}
    shared = left.keys() & right.keys()
    notes = []
    if not shared:
        raise Mistake(f"{where}: they share no problem")
    refusals = []
    if left.keys() != right.keys():
        only_a, only_b = len(left) - len(shared), len(right) - len(shared)
        refusals.append(
            f"not the same problems ({len(shared)} shared, {only_a} only in the first, {only_b} only in the second)"
        )
    if first.prompt_hash != second.prompt_hash:
        refusals.append(
            f"not the same prompt ({first.prompt_style} {first.prompt_hash}, {second.prompt_style} {second.prompt_hash})"
        )
    if first.grader != second.grader:
        refusals.append(f"not the same grader ({_named(first.grader)}, {_named(second.grader)})")
    if refusals and not anyway:
        raise Mistake(f"{where}: {'; '.join(refusals)}; compare anyway with --anyway, on the shared problems")
    notes += refusals
    notes += [f"{name}: {x} against {y}" for name, x, y in _differences(first, second)]
    golds = sum(left[i][0]["gold"] != right[i][0]["gold"] for i in shared)
    if golds:
        notes.append(f"{golds} problems have another gold answer on each side")
    numbers = paired(
        {i: [s["score"] for s in left[i]] for i in shared},
        {i: [s["score"] for s in right[i]] for i in shared},
        {i: left[i][0].get("cluster", i) for i in shared},
    )
    return Comparison(a=_title(first), b=_title(second), benchmark=first.benchmark, notes=notes, **numbers)


def _differences(a: Result, b: Result) -> list[tuple[str, Any, Any]]:
    """Settings in which two evaluations differ, beside the model: the difference may be theirs."""
    pairs = [
        (f"sampling.{key}", a.sampling.get(key), b.sampling.get(key)) for key in sorted({*a.sampling, *b.sampling})
    ]
    pairs += [("samples", a.k, b.k), ("engine", a.engine, b.engine)]
    return [(name, x, y) for name, x, y in pairs if x != y]


def _named(grader: Mapping[str, Any]) -> str:
    return f"{grader.get('name')} {grader.get('version')}"


def _title(result: Result) -> str:
    parts = [
        result.model,
        *([f"+ {result.adapter}"] if result.adapter else []),
        *([f"({result.when})"] if result.when else []),
    ]
    return " ".join(parts)
