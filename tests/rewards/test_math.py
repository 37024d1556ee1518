import functools
import math
import re

import pytest

from rewards.math import correct
from rewards.runtime import Guard


def said(text):
    return [{"role": "assistant", "content": text}]


RIGHT, WRONG = r"so $\boxed{0.75}$", r"so $\boxed{0.7}$"


def test_plain_and_conversational_agree():
    golds = [r"\frac34", r"\frac34", "12"]
    texts = [RIGHT, WRONG, "I do not know."]
    assert correct(texts, golds) == correct([said(t) for t in texts], golds) == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("gold", [None, "", math.nan, [], r"\frac{3}{", r"\begin{matrix} ( \end"])
def test_without_a_readable_gold_a_row_is_not_judged(gold):
    assert correct([RIGHT, r"\boxed{x+1}"], [r"\frac34", gold]) == [1.0, None]


def test_golds_of_all_kinds():
    assert correct([r"\boxed{27}"] * 4, [27.0, 27, "27", ["27"]]) == [1.0] * 4
    assert correct([r"\boxed{2,1}"], [["1", "2"]]) == [1.0]
    assert correct(["#### 18"], ["9*2 = <<9*2=18>>18\n#### 18"]) == [1.0]


def test_the_reasoning_span_does_not_count():
    assert correct([r"<think>\boxed{5}</think> \boxed{7}", r"<think>\boxed{7}"], ["7", "7"]) == [1.0, 0.0]


def test_boxed_only():
    texts = ["The answer is 7.", r"\boxed{7}"]
    assert correct(texts, ["7", "7"]) == [1.0, 1.0]
    assert correct(texts, ["7", "7"], boxed_only=True) == [0.0, 1.0]


def test_another_column():
    assert correct([r"\boxed{7}"], solution=["thus \\boxed{7}"], answer_column="solution") == [1.0]
    assert correct([r"\boxed{7}"], answer=["8"], solution=["7"], answer_column="solution") == [1.0]
    with pytest.raises(ValueError, match=r'no column "answer" .*solution'):
        correct([r"\boxed{7}"], solution=["7"])


def test_a_comparison_without_end_is_wrong_and_counted():
    logged = []
    values = correct(
        [r"\boxed{9^{9^{9}}}", r"\boxed{7}", "no idea"],
        ["7"] * 3,
        grader_timeout=1.0,
        log_metric=lambda *a: logged.append(a),
    )
    assert values == [0.0, 1.0, 0.0]
    assert logged == [("correct/timeout", pytest.approx(1 / 3)), ("correct/no_answer", pytest.approx(1 / 3))]


@pytest.mark.parametrize("processes", [0, 1])
def test_within_a_guard(processes):
    guard = Guard(functools.partial(correct, boxed_only=True), processes=processes)
    assert guard.name == "correct"
    scores = guard.score(["p"] * 3, [RIGHT, WRONG, r"\boxed{x}"], None, {"answer": [r"\frac34", r"\frac34", None]})
    assert scores.values == [1.0, 0.0, None]
    assert scores.faults == []
    guard.close()


BRACELESS = re.compile(r"\\(?:sqrt|frac)\s*\d|\\frac\s*\{\d+\}\d")


def test_agrees_with_trl(benchmark_rows):
    """TRL's accuracy reward on MATH-500's solutions, against their own golds and against the next row's.

    They differ on one kind: TRL does not read macros without braces (`\\frac43`, `11\\sqrt2`), even where gold and answer
    are the same characters.
    """
    accuracy_reward = pytest.importorskip("trl.rewards").accuracy_reward
    rows = benchmark_rows("math500")[:120]
    solutions = [r["solution"] for r in rows]
    for golds in ([r["answer"] for r in rows], [r["answer"] for r in rows[1:] + rows[:1]]):
        theirs = accuracy_reward([said(s) for s in solutions], [f"${g}$" for g in golds])
        for gold, ours, its in zip(golds, correct(solutions, golds), theirs, strict=True):
            assert ours == its or (BRACELESS.search(gold) and (ours, its) == (1.0, 0.0)), gold


@pytest.mark.parametrize("said", ["ones: 8+7", "so 3:x", "the answer is sum: 12"])
def test_an_answer_with_a_colon_that_cannot_be_read_is_wrong_and_judged(said):
    """What cannot be read is the answer, not the gold."""
    assert correct([said], ["1125"]) == [0.0]
    assert correct(["2:1"], ["2"]) == correct(["2"], ["2:1"]) == [1.0]
