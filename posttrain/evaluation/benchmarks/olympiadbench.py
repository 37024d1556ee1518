"""OlympiadBench: the 675 text-only English competition problems with a final answer (`OE_TO_maths_en_COMP`; 674 on the hub).

The gold is a list that holds one string, which may hold several answers, a tuple or an interval; some rows have a unit,
one a tolerance.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

from posttrain.evaluation.benchmarks.base import Benchmark, Problem, by_gold, stem
from posttrain.evaluation.rows import Fields, Hub
from rewards.grading import Verdict


def read(row: Fields) -> Problem:
    answers = row["final_answer"]
    if isinstance(answers, str):
        answers = [answers]
    if not isinstance(answers, list) or not answers or not all(isinstance(a, str) and a.strip() for a in answers):
        raise row.wrong(("final_answer",), answers, "a list of answers")
    columns = {
        name: row[name]
        for name in ("id", "subfield", "answer_type", "is_multiple_answer", "unit", "error")
        if row.get(name)
    }
    if "error" in columns:
        columns["tolerance"] = _tolerance(row)
    gold = ", ".join(_plain(a) for a in answers)
    if isinstance(unit := columns.get("unit"), str) and not columns.get("is_multiple_answer"):
        gold += _unit(unit)
    question = row.text("question")
    return Problem(question, gold, cluster=stem(question), columns=columns)


def _plain(answer: str) -> str:
    """`$\\frac{1}{2}$,$3$.` → `\\frac{1}{2},3`: dollar signs and a final full stop are typography."""
    text = re.sub(r"(?<!\\)\$", "", answer).strip()
    return text[:-1].rstrip() if text.endswith(".") else text


def _unit(unit: str) -> str:
    """`$cm^2$` → `\\text{ cm}^2`: to the grader an answer without a unit is as good, one with another unit wrong."""
    plain = unit.replace("$", "").strip()
    if plain in ("%", "\\%"):
        return "\\%"
    name, power, exponent = plain.partition("^")
    return f"\\text{{ {name}}}{power}{exponent}"


def _tolerance(row: Fields) -> float:
    try:
        tolerance = float(row["error"])
    except (TypeError, ValueError):
        raise row.wrong(("error",), row["error"], "a tolerance such as 1e-1") from None
    if not math.isfinite(tolerance) or tolerance < 0:
        raise row.wrong(("error",), row["error"], "a tolerance such as 1e-1")
    return tolerance


def judge(problems: Sequence[Problem], texts: Sequence[str]) -> list[Verdict]:
    """The grader's verdict, and right too if both are plain numbers no further apart than the row's tolerance."""
    verdicts = by_gold(problems, texts)
    for place, (problem, verdict) in enumerate(zip(problems, verdicts, strict=True)):
        tolerance = problem.columns.get("tolerance")
        if tolerance and verdict.verdict == "WRONG" and _near(problem.gold, verdict.extracted, tolerance):
            verdicts[place] = replace(verdict, verdict=type(verdict.verdict)("RIGHT"), rule=f"within {tolerance:g}")
    return verdicts


def _near(gold: str, answer: str | None, tolerance: float) -> bool:
    a, b = _number(gold), _number(answer)
    return a is not None and b is not None and abs(a - b) <= tolerance * (1 + 1e-9)  # 4.3 - 4.2 is a hair above 0.1


def _number(text: str | None) -> float | None:
    """A plain decimal, a percent sign aside."""
    found = re.fullmatch(
        r"\s*\$?\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*(?:\\?%|\\text\{\s*percent\s*\}|percent)?\s*\$?\s*", text or ""
    )
    return float(found[1]) if found else None


benchmark = Benchmark(
    "olympiadbench", read, Hub("Hothan/OlympiadBench", "train", config="OE_TO_maths_en_COMP"), judge=judge, size=675
)
