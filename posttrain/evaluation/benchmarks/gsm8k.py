"""GSM8K: 1319 grade-school word problems; the gold is the number after `####`.

Models trained on this set write as it does, `<<16-3=13>>13 ... #### 13`: the grader reads that too.
"""

from __future__ import annotations

import re

from posttrain.errors import Mistake
from posttrain.evaluation.benchmarks.base import Benchmark, Problem
from posttrain.evaluation.rows import Fields, Hub


def read(row: Fields) -> Problem:
    solution = row.text("answer")
    _, mark, gold = solution.rpartition("####")
    if not mark or not gold.strip():
        raise Mistake(f'{row.where}: column "answer" has no answer after "####"')
    worked = re.sub(r"<<[^<>]*>>", "", solution.rpartition("####")[0]).strip()  # without the calculator's notes
    return Problem(row.text("question"), gold.strip().replace(",", ""), solution=worked)


benchmark = Benchmark(
    "gsm8k",
    read,
    Hub("openai/gsm8k", "test", config="main"),
    size=1319,
    train=Hub("openai/gsm8k", "train", config="main"),
)
