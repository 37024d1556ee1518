"""GSM8K: 1319 grade-school word problems; the gold is the number after `####`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from posttrain.errors import Mistake
from posttrain.evaluation.benchmarks.base import Benchmark, Problem, by_gold
from posttrain.evaluation.rows import Fields, Hub
from rewards.grading import Verdict

_CALCULATOR = re.compile(r"<<[^<>\n]*>>")


def read(row: Fields) -> Problem:
    solution = row.text("answer")
    _, mark, gold = solution.rpartition("####")
    if not mark or not gold.strip():
        raise Mistake(f'{row.where}: column "answer" has no answer after "####"')
    return Problem(row.text("question"), gold.strip().replace(",", ""))


def judge(problems: Sequence[Problem], texts: Sequence[str]) -> list[Verdict]:
    """Models trained on this set write as it does: calculator notes, `<<16-3=13>>13`, are no part of the answer, and
    `#### 13` is it."""
    return by_gold(problems, [_answer(text) for text in texts])


def _answer(text: str) -> str:
    text = _CALCULATOR.sub("", text)
    last = text.rpartition("####")[2]
    return last if any(mark.isdigit() for mark in last) else text


benchmark = Benchmark("gsm8k", read, Hub("openai/gsm8k", "test", config="main"), judge=judge, size=1319)
