"""The addition task: exact answers, a split that nothing crosses, demonstrations with known flaws."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.errors import Mistake
from posttrain.miniature import arithmetic, task
from posttrain.miniature.arithmetic import TASK, Sum

SUMS = st.builds(Sum, st.integers(100, 999), st.integers(100, 999))


def pair(question: str) -> tuple[int, ...]:
    return tuple(sorted(int(part) for part in question.split("+")))


@given(SUMS)
def test_the_reference_solution_is_right_and_its_columns_add_up(problem):
    text = arithmetic.solve(f"{problem.a}+{problem.b}")
    assert text.endswith(f"\\boxed{{{problem.a + problem.b}}}")
    for u, v, carry, total in re.findall(r"(\d)\+(\d)\+(\d)=(\d+)", text):
        assert int(u) + int(v) + int(carry) == int(total)
    assert TASK.score(problem, TASK.solve(problem)) == 1.0


@given(SUMS, st.integers(0, 2**32))
def test_the_wrong_answer_is_wrong_by_a_carry(problem, seed):
    said = TASK.wrong(problem, random.Random(seed))
    assert TASK.score(problem, said) == 0.0
    box = int(arithmetic.BOXED.findall(said[-1]["content"])[-1])
    assert abs(box - problem.a - problem.b) in (10, 100)


@given(SUMS, st.integers(0, 2**32))
def test_without_flaws_a_demonstration_is_right(problem, seed):
    assert TASK.score(problem, TASK.demonstrate(problem, random.Random(seed), flawed=0.0)) == 1.0


@given(SUMS, st.integers(0, 2**32))
def test_with_every_carry_dropped_it_is_right_only_where_there_is_none(problem, seed):
    said = TASK.demonstrate(problem, random.Random(seed), flawed=1.0)
    units = problem.a % 10 + problem.b % 10 >= 10
    tens = problem.a // 10 % 10 + problem.b // 10 % 10 >= 10
    assert TASK.score(problem, said) == float(not units and not tens)


@given(SUMS)
def test_both_orders_are_on_one_side(problem):
    turned = Sum(problem.b, problem.a)
    assert TASK.is_held_out(problem) == TASK.is_held_out(turned)
    assert TASK.name_of(problem) == TASK.name_of(turned)


def test_no_held_out_pair_is_trained_on():
    held_out = {pair(q) for seed in (0, 1) for q in arithmetic.held_out(512, seed=seed)["question"]}
    trained = {pair(q) for seed in (0, 1) for q in arithmetic.train(2000, seed=seed)["question"]}
    shown = {pair(q) for q in arithmetic.demonstrations(1000)["question"]}
    assert not held_out & trained
    assert not held_out & shown


def test_the_base_is_never_shown_a_held_out_pair():
    from itertools import islice

    from posttrain.miniature.base import _chats

    shown = [chat[0]["content"] for chat in islice(_chats(TASK, 0, 0.5), 3000)]
    assert not any(TASK.is_held_out(Sum(*map(int, q.split("+")))) for q in shown)


def test_rows_are_different_stable_and_begin_alike():
    rows = arithmetic.held_out(200)
    assert rows.column_names == ["row_id", "prompt", "question", "answer"]
    assert len(set(rows["row_id"])) == len({pair(q) for q in rows["question"]}) == 200
    assert arithmetic.held_out(50).to_list() == rows.to_list()[:50]
    assert arithmetic.held_out(50, seed=1).to_list() != rows.to_list()[:50]
    first = rows[0]
    assert first["prompt"] == [{"role": "user", "content": first["question"]}]
    assert int(first["answer"]) == sum(pair(first["question"]))


def test_a_tenth_is_held_out():
    rng = random.Random(0)
    share = sum(TASK.is_held_out(TASK.draw(rng)) for _ in range(20_000)) / 20_000
    assert 0.07 < share < 0.13


@pytest.mark.parametrize("flawed", [False, True])
def test_demonstrations_are_right_or_flawed_as_asked(flawed):
    rows = arithmetic.demonstrations(1500, flawed=flawed)
    right = [TASK.score(Sum(*map(int, r["question"].split("+"))), r["completion"]) for r in rows]
    share = sum(right) / len(right)
    # Independent carries, by hand: 45 % of the units and 49.5 % of the tens carry; each is kept with 0.3.
    expected = (1 - 0.7 * 0.45) * (1 - 0.7 * 0.495) if flawed else 1.0
    assert abs(share - expected) <= (0.05 if flawed else 0.0)
    wordy = sum("ones:" in r["completion"][0]["content"] for r in rows) / len(rows)
    assert 0.4 < wordy < 0.6


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ("\\boxed{825}", 1.0),
        ("\\boxed{ 825 }", 1.0),
        ("\\boxed{1} no, \\boxed{825}", 1.0),
        ("\\boxed{825} \\boxed{1}", 0.0),
        ("825", 0.0),
        ("", 0.0),
        ("\\boxed{8+2}5", 0.0),
        ("\\boxed{０825}", 0.0),
    ],
)
def test_scores(said, score):
    assert TASK.score(Sum(358, 467), [{"role": "assistant", "content": said}]) == score


@pytest.mark.parametrize("question", ["", "1+2", "358+4670", "358-467", "058+467", "a+b", "３５８+467"])
def test_what_is_no_such_sum_is_refused(question):
    with pytest.raises(ValueError, match="not a sum"):
        arithmetic.solve(question)


def test_more_problems_than_there_are_is_one_line():
    class Few(arithmetic.Arithmetic):
        name = "few"

        def draw(self, rng):
            return Sum(rng.randint(100, 102), rng.randint(100, 102))

        def is_held_out(self, problem):
            return False

    assert len(task.problems(Few(), 6, seed=0, held_out=False)) == 6
    with pytest.raises(Mistake, match="only 6"):
        task.problems(Few(), 7, seed=0, held_out=False)
    with pytest.raises(Mistake, match="n is 0"):
        arithmetic.train(0)
