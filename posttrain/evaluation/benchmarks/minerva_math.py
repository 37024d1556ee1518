"""Minerva Math: 272 problems of undergraduate science; the gold is in the last `\\boxed` of the solution, units outside it."""

from __future__ import annotations

from posttrain.errors import Mistake
from posttrain.evaluation.benchmarks.base import Benchmark, Problem, last_boxed, stem
from posttrain.evaluation.rows import Fields, Hub


def read(row: Fields) -> Problem:
    question = row.text("problem", "question")
    gold = last_boxed(row.text("solution"))
    if gold is None or not gold.strip():
        raise Mistake(f'{row.where}: column "solution" has no \\boxed{{...}} with an answer')
    columns = {name: row[name] for name in ("type", "idx") if name in row}
    # One box goes over two formulas (`...$ $...`): the dollar signs are not part of the answer.
    return Problem(question, " ".join(gold.replace("$", "").split()), cluster=stem(question), columns=columns)


benchmark = Benchmark("minerva_math", read, Hub("knoveleng/Minerva-Math", "train"), size=272)
