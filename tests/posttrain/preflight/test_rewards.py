"""Rewards that do not tell right from wrong, or do not survive what a policy writes."""

from __future__ import annotations

import time

import pytest

from posttrain.preflight import answers
from posttrain.preflight.answers import Target

RIGHT = "return [float(f'{{{a}}}' in t) for t, a in zip(texts, answer)]"
ANSWERS, SPREAD = "reward judge: answers", "reward judge: spread"


def test_a_grader_that_says_yes_to_everything(look, reward):
    rows = look(reward("return [1.0 for _ in texts]"))
    assert rows[ANSWERS].ok is False
    assert "a wrong answer" in rows[ANSWERS].looked
    assert "scores 1, the gold one 1" in rows[ANSWERS].looked
    assert rows[SPREAD].ok is False
    assert "all score 1" in rows[SPREAD].looked
    assert rows["probe: rewards"].ok is False


def test_a_grader_that_never_says_yes(look, reward):
    """Golds that it cannot match: one in braces here."""
    rows = look(reward("return [float('{{' + a + '}}' in t) for t, a in zip(texts, answer)]"))
    assert rows[ANSWERS].ok is False
    assert "scores 0, the gold one 0" in rows[ANSWERS].looked


def test_a_sound_one(look, reward):
    rows = look(reward(RIGHT))
    assert rows[ANSWERS].ok
    assert rows[ANSWERS].looked.startswith("4 golds in a box from answer: 1; wrong 0, empty 0, deep brackets 0")
    assert rows[SPREAD].ok


def test_a_gold_that_scores_less_than_the_others(look, reward):
    """One kind of answer that the grader reads wrongly: above its own wrong ones, and far from full marks."""
    halved = "return [float(f'{{{a}}}' in t) * (0.1 if int(a) % 2 else 1) for t, a in zip(texts, answer)]"
    row = look(reward(halved))[ANSWERS]
    assert row.ok is False
    assert "scores 0.1, others 1" in row.looked


def test_golds_as_the_data_has_them(look, tmp_path):
    """A column of whole solutions, and a reward that wants the very text."""
    import json

    file, judge = tmp_path / "rows.jsonl", tmp_path / "exact.py"
    file.write_text(
        "".join(
            json.dumps({"question": f"{i}+{i}", "answer": f"{i} and {i} are {2 * i}\n#### {2 * i}"}) + "\n"
            for i in range(100, 164)
        )
    )
    judge.write_text(
        "def judge(completions, answer, **c):\n    return [float(c[0]['content'] == a) for c, a in zip(completions, answer)]\n"
    )
    row = look(f"data.train={{path: '{file}', prompt: '{{question}}'}}", f"rewards=[{{use: '{judge}:judge'}}]")[
        ANSWERS
    ]
    assert row.ok, row
    assert row.looked.startswith("4 golds as the data has it from answer: 1; wrong 0, empty 0")


def test_a_penalty_for_wrong_answers(look, reward):
    """Its weight is negative, so the gold one should score least."""
    row = look(reward("return [float(f'{{{a}}}' not in t) for t, a in zip(texts, answer)]", weight=-1.0))[ANSWERS]
    assert row.ok, row
    row = look(reward("return [float(f'{{{a}}}' in t) for t, a in zip(texts, answer)]", weight=-1.0))[ANSWERS]
    assert row.ok is False


def test_a_broken_one_that_is_only_shown(look, reward):
    row = look(f"{reward('return [1.0 for _ in texts]', weight=0.0)[:-1]}, {{use: 'rewards.math:correct'}}]")[ANSWERS]
    assert row.ok is None
    assert "only shown" in row.looked


def test_an_empty_answer_pays(look, reward):
    row = look(reward("return [float(not t or a in t) for t, a in zip(texts, answer)]"))[ANSWERS]
    assert row.ok is False
    assert "an empty answer ''" in row.looked


def test_a_grader_that_believes_deep_brackets(look, reward):
    row = look(reward("return [float(a in t or '((((' in t) for t, a in zip(texts, answer)]"))[ANSWERS]
    assert row.ok is False
    assert "deep brackets" in row.looked


def test_a_grader_that_hangs_on_a_tower_of_powers(look, reward):
    """Killed after seconds, in a process of its own; a run with it in the trainer would stand still for ever."""
    hanging = "while any('^{9' in t for t in texts):\n    pass\n" + RIGHT
    begun = time.monotonic()
    row = look(reward(hanging))[ANSWERS]
    assert row.ok is False
    assert "a tower of powers: an answer: timeout" in row.looked
    assert "rewards.0.processes: 1" in row.mend
    assert time.monotonic() - begun < 60
    # Where it is stopped and such rows are left out, as the recipe can say, it is no obstacle.
    row = look(reward(hanging, processes=1, timeout=3.0, on_error="{do: skip_row}"))[ANSWERS]
    assert row.ok, row


def test_what_cannot_be_stopped_is_not_asked_what_might_never_end(look, reward, tmp_path):
    """A reward that needs the trainer's state, and an object, which may hold a model, stay in this process."""
    hanging = "while any('^{9' in t for t in texts):\n    pass\n" + RIGHT
    row = look(reward(hanging, signature="completions, answer, trainer_state, **columns"))[ANSWERS]
    assert row.ok, row
    assert "nothing that might hang was tried: reads trainer_state" in row.looked
    file = tmp_path / "object.py"
    file.write_text(
        "class Judge:\n    def __call__(self, completions, answer, **columns):\n"
        "        return [float(f'{{{a}}}' in c[0]['content']) for c, a in zip(completions, answer)]\n"
    )
    row = look(f"rewards=[{{use: '{file}:Judge', name: judge}}]")[ANSWERS]
    assert row.ok, row
    assert "a class in this process" in row.looked
    row = look(f"rewards=[{{use: '{file}:Judge', name: judge, processes: 1}}]")[ANSWERS]
    assert row.ok, row
    assert "a tower of powers 0" in row.looked


def test_a_reward_that_raises_on_an_empty_answer(look, reward):
    first = "[t[0] for t in texts]\n" + RIGHT
    row = look(reward(first))[ANSWERS]
    assert row.ok is False
    assert "an empty answer: exception: IndexError" in row.looked
    assert "on_error: {do: skip_row}" in row.mend
    assert look(reward(first, on_error="{do: skip_row}"))[ANSWERS].ok


def test_a_reward_that_raises_on_every_gold(look, reward):
    row = look(reward("return [{'one': 1.0}[a] for a in answer]"))[ANSWERS]
    assert row.ok is False
    assert "exception: KeyError" in row.looked


def test_a_constant_reward(look, reward):
    """It reads no golds, so nothing but its constancy speaks against it."""
    rows = look(reward("return [0.5 for _ in texts]", signature="completions, **columns"))
    assert rows[ANSWERS].ok is None
    assert rows[SPREAD].ok is False
    assert "all score 0.5" in rows[SPREAD].looked


def test_a_penalty_that_can_never_be_due(look):
    """Longer than anything the policy may write."""
    rewards = "rewards=[{use: 'rewards.math:correct'}, {use: 'rewards.length:soft_overlong', with: {max_length: %d, cache: 32}}]"
    assert look(rewards % 96)["reward soft_overlong: spread"].ok
    row = look(rewards % 1000)["reward soft_overlong: spread"]
    assert row.ok is False
    assert "rewards.1.with" in row.mend


def test_a_constant_that_is_only_shown(look):
    rows = look(
        "rewards=[{use: 'rewards.math:correct'}, "
        "{use: 'rewards.length:soft_overlong', with: {max_length: 1000, cache: 32}, weight: 0}]"
    )
    assert rows["reward soft_overlong: spread"].ok is None


def test_golds_among_any_columns(look, reward):
    """A reward that names no column, but reads one."""
    reads = reward(
        "return [float(a in t) for t, a in zip(texts, columns['answer'])]", signature="completions, **columns"
    )
    row = look(reads)[ANSWERS]
    assert row.ok
    assert "from answer" in row.looked
    row = look(reward("return [float(len(t)) for t in texts]", signature="completions, **columns"))[ANSWERS]
    assert row.ok is None


def test_columns_without_golds(look, tmp_path):
    import json

    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"question": f"{i}+{i}", "answer": ""}) + "\n" for i in range(100, 164)))
    row = look("data.train={path: '" + str(file) + "', prompt: '{question}'}")["reward correct: answers"]
    assert row.ok is False
    assert 'column "answer" holds no answer that can be read' in row.looked


def test_a_column_of_criteria_is_no_column_of_golds(look, tmp_path):
    import json

    file = tmp_path / "rows.jsonl"
    rubric = [{"criterion": "has a box", "points": 3, "check": {"contains": "boxed"}}]
    file.write_text("".join(json.dumps({"question": f"{i}+{i}", "rubric": rubric}) + "\n" for i in range(100, 164)))
    data = "data.train={path: '" + str(file) + "', prompt: '{question}'}"
    row = look(data, "rewards=[{use: 'rewards.rubric:Rubric', name: judge}]")[ANSWERS]
    assert row.ok is None
    assert "no column of right answers" in row.looked


@pytest.mark.parametrize("use", ["rewards.math:correct", "rewards.length:cosine"])
def test_shipped_rewards_pass(look, use):
    more = ", with: {max_length: 96}" if "cosine" in use else ""
    rows = look(f"rewards=[{{use: '{use}'{more}, name: judge}}]")
    assert rows[ANSWERS].ok, rows[ANSWERS]
    assert rows[SPREAD].ok


@pytest.mark.parametrize(
    ("gold", "other"),
    [("42", "43"), ("-1", "0"), ("1,234", "1235"), ("B", "C"), ("Yes", "No"), ("x^2", "y"), ("9", "10")],
)
def test_wrong_answers_are_wrong(gold, other):
    """By the grader that was not written for this."""
    from rewards.grading import grade

    made = answers.wrong(gold, [gold, f"{gold} + 2", "y"])
    assert made == other
    assert not grade(gold, rf"\boxed{{{made}}}").right
    for text in answers.pathological(gold).values():
        assert not grade(gold, rf"\boxed{{{text}}}", timeout=0.5).right


def test_which_column_a_reward_names():
    from rewards.length import cosine
    from rewards.math import correct

    def mine(completions, ground_truth, **columns): ...
    def other(completions, question, **columns): ...

    have = ["question", "answer", "ground_truth"]
    assert answers.named_column(Target.of(mine), have) == "ground_truth"
    assert answers.named_column(Target.of(mine), ["question"]) is None
    assert answers.named_column(Target.of(other), have) is None
    assert answers.named_column(Target.of(correct), have) == "answer"
    assert answers.named_column(Target(cosine, {"answer_column": "ground_truth"}, None), have) == "ground_truth"
