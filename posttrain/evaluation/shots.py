"""Solved examples for few-shot prompts: drawn by a fixed seed, from elsewhere, never from what is asked."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from posttrain.errors import Mistake
from posttrain.evaluation.benchmarks.base import Benchmark, Problem
from rollouts.seeds import derive


def draw(
    benchmark: Benchmark, count: int, asked: Sequence[Problem], path: str | None = None
) -> tuple[tuple[str, str], ...]:
    """`count` pairs of question and answer, the same for every model, seed and machine.

    Args:
        asked: problems that must not be among them. They are known by their question: also in another file or order.
        path: a file with the benchmark's columns; absent = its training part on the hub.

    Raises:
        Mistake: count below 1, no training part and no file, or too few problems in it that are not asked.
    """
    if count < 1:
        raise Mistake(f"shots: at least 1, not {count}")
    if path is not None:
        found = benchmark.load(path)
    elif benchmark.train is not None:
        try:
            found = replace(benchmark, hub=benchmark.train, rows=None).load()
        except Mistake as mistake:
            said = str(mistake).replace("(--data PATH)", "(--shots-from PATH)")
            raise Mistake(f"shots: {said}") from mistake
    else:
        raise Mistake(
            f"shots: {benchmark.name} has no training part to take examples from; give a file with its columns "
            "(--shots-from PATH)"
        )
    used = {_name(p) for p in asked}
    pool = sorted({p.question: p for p in found if _name(p) not in used}.values(), key=lambda p: p.item_id)
    if len(pool) < count:
        raise Mistake(
            f"shots: {count} wanted, but of {len(found)} problems in {path or benchmark.train} only {len(pool)} are not asked"
        )
    drawn = random.Random(derive(0, benchmark.name, "shots")).sample(pool, len(pool))[:count]
    return tuple((p.question, answer(p)) for p in drawn)


def _name(problem: Problem) -> str:
    return " ".join(problem.question.split())


def answer(problem: Problem) -> str:
    """What an example answers: the worked solution if there is one, and the gold in a box."""
    boxed = f"\\boxed{{{problem.gold}}}"
    if boxed in problem.solution:
        return problem.solution.strip()
    return f"{problem.solution}\nThe final answer is ${boxed}$.".strip()
