"""From what a model said to the fields of a sample line that a grader decides: at once, or again from the lines alone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.evaluation.benchmarks.base import Benchmark, Problem, Scored

Line = dict[str, Any]
Cut = int | str
"""How many characters of an answer there were; or what there was, where that is no beginning of it (a thought that went on)."""


def judge(
    benchmark: Benchmark, problems: Sequence[Problem], answers: Sequence[str], cuts: Sequence[Mapping[str, Cut]]
) -> list[Line]:
    """Everything in a sample's line that depends on the gold and the grader, for one answer a problem.

    Args:
        answers: texts without their reasoning span.
        cuts: token budget → what there was of the answer by then.
    """
    started = time.perf_counter()
    verdicts = benchmark.judge(problems, answers)
    places = [(i, size) for i, cut in enumerate(cuts) for size in cut]
    texts = [_until(answers[i], cuts[i][size]) for i, size in places]
    at_cuts: list[dict[str, str]] = [{} for _ in answers]
    if places:
        found = benchmark.judge([problems[i] for i, _ in places], texts)
        for (i, size), verdict in zip(places, found, strict=True):
            at_cuts[i][size] = str(verdict.verdict.value)
    share = round((time.perf_counter() - started) / max(1, len(answers)), 6)
    return [
        {
            "gold": problem.gold,
            "extracted": verdict.extracted,
            "parsed": verdict.parsed,
            "verdict": str(verdict.verdict.value),
            "strict": str(verdict.strict.value),
            "score": 1.0 if verdict.verdict == "RIGHT" else 0.0,
            "rule": verdict.rule,
            "cluster": problem.cluster,
            "cuts": cut,
            "grading_seconds": share,
        }
        | ({"points": verdict.points} if isinstance(verdict, Scored) else {})
        for problem, verdict, cut in zip(problems, verdicts, at_cuts, strict=True)
    ]


def judge_again(benchmark: Benchmark, problems: Sequence[Problem], lines: Sequence[Line]) -> list[Line]:
    """The lines with new verdicts, on the texts that they hold."""
    answers = [line["completion"] if line["answer"] is None else line["answer"] for line in lines]
    made = judge(benchmark, problems, answers, [line["cut_at"] for line in lines])
    return [line | fields for line, fields in zip(lines, made, strict=True)]


def cut(answer: str, part: str) -> Cut:
    """How `part` is noted beside the `answer` that it became."""
    return len(part) if answer.startswith(part) else part


def _until(answer: str, cut: Cut) -> str:
    return answer[:cut] if isinstance(cut, int) else cut
