"""The README says what the code does."""

import re
from pathlib import Path

import posttrain.evaluation
from posttrain.evaluation import BENCHMARKS, find_benchmark
from posttrain.evaluation.prompts import STYLES
from posttrain.evaluation.rows import Fields

README = (Path(posttrain.evaluation.__file__).parent / "README.md").read_text(encoding="utf-8")


def test_the_table_of_benchmarks():
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (.*?) \|", README, flags=re.MULTILINE)
    assert [name for name, _, _ in rows] == list(BENCHMARKS)
    for name, size, home in rows:
        task = find_benchmark(name)
        assert int(size) == task.size
        assert home == (str(task.hub) if task.hub else "made by `posttrain.miniature`")


def test_every_style_is_named():
    assert all(f"`{name}`" in README for name in STYLES)


def test_the_example_runs():
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    scope = {}
    exec(code, scope)
    problem = scope["riddles"].read(Fields({"riddle": "What is 6 times 7?", "answer": 42.0}, "here"))
    assert (problem.question, problem.gold) == ("What is 6 times 7?", "42")
