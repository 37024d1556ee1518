"""Held-out questions of the miniature of behaviours, each with its rubric; on topics that its training questions do not have.

An answer is RIGHT with full marks. The metric `points` is the mean score by the rubric, the reward that training has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from posttrain.evaluation.benchmarks.base import Benchmark, Problem, Scored
from posttrain.evaluation.prompts import OWN
from posttrain.evaluation.rows import Fields
from posttrain.imports import load_object
from rewards.criteria import reading, running
from rewards.criteria.item import Verdict
from rewards.criteria.scoring import score
from rewards.grading import Judgement

HELD_OUT = "posttrain.miniature.behaviours:held_out"
SIZE = 120


def rows(limit: int | None, joint: bool = False) -> Iterable[Mapping[str, Any]]:
    return load_object(HELD_OUT, "behaviours")(n=max(limit or 0, SIZE), joint=joint)


def read(row: Fields) -> Problem:
    return Problem(row.text("question"), row.text("answer"), prompt=row["prompt"], columns={"rubric": row["rubric"]})


def judge(problems: Sequence[Problem], texts: Sequence[str]) -> list[Scored]:
    """By the checks of each problem's rubric. One that cannot be decided leaves the answer without marks, as TIMEOUT."""
    rubrics = [reading.rubric(p.columns["rubric"], p.item_id) for p in problems]
    checks = [[one.check for one in rubric if one.check is not None] for rubric in rubrics]
    found = running.run(list(zip(texts, checks, strict=True)))
    return [
        _scored(rubric, [v for v, _ in one], text) for rubric, one, text in zip(rubrics, found, texts, strict=True)
    ]


def _scored(rubric: Sequence[Any], verdicts: Sequence[Verdict], text: str) -> Scored:
    points = score(rubric, verdicts)
    if points is None:
        return Scored(Judgement.TIMEOUT, text, rule="a check did not end")
    told = "".join("+" if v is Verdict.MET else "-" for v in verdicts)
    return Scored(Judgement.RIGHT if points == 1.0 else Judgement.WRONG, text, rule=f"rubric {told}", points=points)


benchmark = Benchmark("behaviours", read, rows=rows, style=OWN, judge=judge, size=SIZE)
joint = Benchmark("behaviours_joint", read, rows=partial(rows, joint=True), style=OWN, judge=judge, size=SIZE)
