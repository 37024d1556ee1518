"""What a plan says of the rewards: the right answer in the form that they read, and a judge is not asked."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from posttrain import assemble, preview
from posttrain.recipe import read


@pytest.fixture
def told(tiny, tmp_path):
    def tell(row, *rewards):
        recipe = {
            "model": {"name": tiny},
            "data": {"train": {"path": str(tmp_path / "not-read.jsonl")}},
            "rewards": list(rewards),
            "trainer": {"algorithm": "grpo"},
            "run": {"name": "t", "directory": str(tmp_path)},
        }
        judged = assemble.judged(read(recipe, []).recipe)
        try:
            return preview.right_and_wrong(judged, row, AutoTokenizer.from_pretrained(tiny))
        finally:
            for one in judged:
                one.guard.close()

    return tell


def row(answer, **more):
    return {"row_id": "a", "prompt": [{"role": "user", "content": "?"}], "answer": answer, **more}


def test_an_answer_in_a_box(told):
    found = told(row("So it is so.\n#### 42"), {"use": "rewards.math:correct"})
    assert found == [("right", r"\boxed{42}", {"correct": 1.0}), ("wrong", r"\boxed{43}", {"correct": 0.0})]


def test_a_rubric_that_reads_the_answer_alone(told):
    rubric = [{"criterion": "is it", "points": 1, "check": {"regex": "^ab$"}}]
    found = told(row("ab", rubric=rubric), {"use": "rewards.rubric:Rubric"})
    assert found == [("right", "ab", {"Rubric": 1.0}), ("wrong", "ab + 1", {"Rubric": 0.0})]


def test_a_penalty_is_small_for_what_is_right(told):
    rubric = [{"criterion": "is something else", "points": 1, "check": {"regex": "^(?!ab$)"}}]
    found = told(row("ab", rubric=rubric), {"use": "rewards.rubric:Rubric", "weight": -1.0})
    assert found == [("right", "ab", {"Rubric": 0.0}), ("wrong", "ab + 1", {"Rubric": 1.0})]


def test_a_judge_is_not_asked(told):
    rubric = [{"criterion": "is kind", "points": 1}]
    judge = {"model": "m", "url": "http://127.0.0.1:9/v1"}
    found = told(row("ab", rubric=rubric), {"use": "rewards.rubric:Rubric", "with": {"judge": judge}})
    assert [scores for _, _, scores in found] == [{"Rubric": "not asked (a judge decides)"}] * 2
