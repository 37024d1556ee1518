"""What the samples of an evaluation add up to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.evaluation import cost, votes
from posttrain.evaluation.asking import budgets
from posttrain.evaluation.benchmarks.base import Benchmark, Problem
from posttrain.evaluation.parts import parts
from posttrain.evaluation.results import by_item
from posttrain.evaluation.statistics import estimates
from posttrain.evaluation.statistics.anytime import Anytime
from posttrain.evaluation.statistics.curves import curves

Line = Mapping[str, Any]


def grouped(problems: Sequence[Problem], lines: Sequence[Line]) -> list[list[Line]]:
    """The samples of each problem, in the problems' order."""
    items = by_item(dict(line) for line in lines)
    return [list(items[p.item_id]) for p in problems]


def summary(
    problems: Sequence[Problem], lines: Sequence[Line], max_tokens: int | None = None, anytime: Anytime | None = None
) -> dict[str, Any]:
    """Metrics, shares, lengths, budgets and curves of the samples of these problems, as `Result` names them.

    `max_tokens`: the limit that they were made under; without it there are no budgets. `anytime`: where sampling stopped by what it saw, the interval that allows for that.
    """
    ordered = grouped(problems, lines)
    clusters = [p.cluster for p in problems]
    scores = [[line["score"] for line in item] for item in ordered]
    strict = [sum(line.get("strict") == "RIGHT" for line in item) / len(item) for item in ordered]
    ballots = [[votes.Vote(line["extracted"], line["score"] == 1.0) for line in item] for item in ordered]
    composed = any("points" in line for line in lines)
    classes = (votes.by_text if composed else votes.classes)(ballots)
    metrics = estimates.metrics(scores, classes, clusters)
    if anytime is not None:
        found = anytime.estimate()
        metrics["accuracy"] |= {"low": found.low, "high": found.high, "method": found.method}
    if composed:
        metrics["points"] = _points(ordered, clusters).to_json()
    known = all("strict" in line for line in lines)
    total = len(lines)
    return {
        "metrics": metrics,
        "strict": estimates.estimate(strict, clusters).to_json() if known else None,
        "truncated": sum(line["finish"] == "length" for line in lines) / total,
        "no_answer": sum(line["verdict"] == "NONE" for line in lines) / total,
        "timeouts": sum(line["verdict"] == "TIMEOUT" for line in lines) / total,
        "aborted": sum(line["finish"] == "abort" for line in lines) / total,
        "tokens": sum(line["completion_tokens"] for line in lines),
        "prompt_tokens": sum(line["prompt_tokens"] for line in lines),
        "lengths": cost.lengths(lines),
        "budgets": cost.at_budgets(ordered, clusters, budgets(max_tokens)) if max_tokens else [],
        "curves": _curves(ordered, scores, classes, clusters),
        "parts": parts(problems, [sum(item) / len(item) for item in scores]),
    }


def _points(items: Sequence[Sequence[Line]], clusters: Sequence[str]) -> estimates.Estimate:
    """The mean of the samples' points over problems that have any."""
    found = [[line["points"] for line in item if line.get("points") is not None] for item in items]
    kept = [(sum(points) / len(points), cluster) for points, cluster in zip(found, clusters, strict=True) if points]
    return estimates.unbounded([value for value, _ in kept], [cluster for _, cluster in kept])


def _curves(
    items: Sequence[Sequence[Line]], scores: Sequence[Any], classes: Sequence[Any], clusters: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Score against output tokens for 1, 2, 4 ... samples a problem. The scorer of `best_of` is the model's own mean log-prob
    a token: what anyone can pick by without a second model."""
    if len(scores[0]) < 2:
        return {}
    lines = [line for item in items for line in item]
    sure = None
    if all(line.get("logprob") is not None for line in lines):
        sure = [[line["logprob"] / line["completion_tokens"] for line in item] for item in items]
    each = sum(line["completion_tokens"] for line in lines) / len(lines)
    made = curves(scores, classes, sure, clusters)
    return {name: [point | {"tokens": point["n"] * each} for point in points] for name, points in made.items()}


def notes(
    benchmark: Benchmark,
    n: int,
    lines: Sequence[Line],
    resumed: int,
    stopped: Mapping[str, Any] | None = None,
    max_tokens: int | None = None,
) -> list[str]:
    """What a reader of the result should know, a line each.

    Args:
        n: problems.
        resumed: how many of the samples were there before this call.
        stopped: `Result.stopped`.
        max_tokens: the limit that was asked for; samples that were cut before it had no more room.
    """
    said = []
    if stopped is not None:
        said.append(
            f"sampling stopped after {stopped['asked']} of {stopped['of']} problems, in random order, when the interval of the "
            f"accuracy was {stopped['half_width']:.2f} points to either side; that interval allows for it, those of other "
            "metrics do not"
        )
    elif benchmark.hub is not None and benchmark.size is not None and n != benchmark.size:
        said.append(f"{n} of the {benchmark.size} problems of {benchmark.name}: not comparable with published figures")
    cut = sum(line["finish"] == "length" for line in lines) / len(lines)
    if cut > 0.03:
        said.append(f"{cut:.1%} of the samples ended at the token limit: the score measures the limit too")
    full = [
        line["prompt_tokens"] + line["completion_tokens"]
        for line in lines
        if max_tokens is not None and line["finish"] == "length" and line["completion_tokens"] < max_tokens
    ]
    if full:
        said.append(
            f"{_samples(len(full))} ended where the model's context of {max(full)} tokens was full, before {max_tokens} tokens were out"
        )
    lost = sum(line["finish"] == "abort" for line in lines)
    if lost:
        said.append(f"the engine gave up on {_samples(lost)}: what came counts")
    slow = sum(line["verdict"] == "TIMEOUT" for line in lines)
    if slow:
        said.append(f"grading ran out of time on {_samples(slow)}, which counts as wrong")
    if resumed:
        said.append(f"{resumed} of {_samples(len(lines))} were there from an earlier call")
    return said


def _samples(count: int) -> str:
    return f"{count} sample{'s' * (count != 1)}"
