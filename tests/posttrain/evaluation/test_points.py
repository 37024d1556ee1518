"""Benchmarks that give points: the mean beside the verdicts, with its interval; full marks alone are right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from posttrain.evaluation import find_benchmark
from posttrain.evaluation.judging import judge
from posttrain.evaluation.statistics.estimates import unbounded
from posttrain.evaluation.summary import summary
from posttrain.evaluation.votes import RIGHT, Vote, by_text
from posttrain.miniature.behaviours import rubric, segment
from rewards.criteria import running


@pytest.fixture(scope="module", autouse=True)
def workers():
    yield
    running.close()


@given(st.lists(st.floats(-4, 1), min_size=3, max_size=40).filter(lambda v: max(v) - min(v) > 1e-3))
def test_the_mean_of_points_has_scipys_interval(values):
    found = unbounded(values)
    low, high = stats.t.interval(0.95, len(values) - 1, sum(values) / len(values), stats.sem(values))
    assert found.value == pytest.approx(sum(values) / len(values), abs=1e-9)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_where_nothing_varies_no_interval_is_made_up():
    assert (unbounded([0.5, 0.5]).low, unbounded([0.5]).se, unbounded([]).value) == (None, None, None)
    assert unbounded([0.1, 0.9, 0.4], ["a", "a", "a"]).method == "unknown: one cluster"


def answers(problem):
    """The full answer, one with half of it, one with a penalty alone, one cut off; and what they score."""
    category, topic = problem.question[0], problem.question[1:]
    criteria = rubric(category)
    total = sum(c.points for c in criteria if c.points > 0)
    whole = problem.gold
    first = segment(criteria[0].codes, topic)
    bad = segment(criteria[5].codes, topic)
    return [(whole, 1.0), (first + ".", criteria[0].points / total), (bad + ".", -4 / total), (whole[:-1], 0.0)]


def test_samples_of_the_behaviours_add_up():
    task = find_benchmark("behaviours")
    problems = task.load(limit=4)
    assert len({p.item_id for p in problems}) == 4
    lines = []
    for problem in problems:
        cases = answers(problem)
        judged = judge(task, [problem] * 4, [text for text, _ in cases], [{}] * 4)
        for sample, (line, (_, points)) in enumerate(zip(judged, cases, strict=True)):
            assert line["points"] == pytest.approx(points)
            assert (line["verdict"], line["score"]) == (("RIGHT", 1.0) if points == 1 else ("WRONG", 0.0))
            lines.append(line | {"item_id": problem.item_id, "sample": sample, "completion": cases[sample][0],
                                 "finish": "stop", "completion_tokens": 9, "prompt_tokens": 7})  # fmt: skip
    found = summary(problems, lines)["metrics"]
    means = [sum(points for _, points in answers(p)) / 4 for p in problems]
    assert found["points"]["value"] == pytest.approx(sum(means) / 4)
    assert found["points"]["low"] < found["points"]["value"] < found["points"]["high"]
    assert found["accuracy"]["value"] == 0.25
    assert found["pass@4"]["value"] == 1.0


def test_three_together_are_worth_points_and_two_are_not():
    task = find_benchmark("behaviours_joint")
    (problem,) = task.load(limit=1)
    short = "".join(segment(c, problem.question[1:]) for c in rubric(problem.question[0], True)[0].codes[:2]) + "."
    whole, part = judge(task, [problem] * 2, [problem.gold, short], [{}] * 2)
    assert (whole["points"], part["points"]) == (1.0, 0.0)


def test_benchmarks_without_points_have_none():
    task = find_benchmark("arithmetic")
    problems = task.load(limit=2)
    lines = judge(task, problems, ["\\boxed{1}"] * 2, [{}] * 2)
    assert all("points" not in line for line in lines)


@given(st.lists(st.sampled_from([None, *(f"{i}a+" for i in range(3))]), min_size=1, max_size=6))
def test_compositions_are_one_where_their_texts_are(texts):
    (named,) = by_text([[Vote(t, t == "0a+") for t in texts]])
    assert [n == RIGHT for n in named] == [t == "0a+" for t in texts]
    assert [n is None for n in named] == [t is None for t in texts]
    assert len({n for n in named if n}) == len({t for t in texts if t})
