"""The words of a scaffold, and where they go: never a second system turn, never a change of the row's own prompt."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollouts.records import Row
from rollouts.strategies import hints
from rollouts.strategies.hints import Item

GOOD, BAD = Item("names the dose", 5), Item("advises alcohol", -4.5)
TURNS = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.text()}),
    min_size=1,
    max_size=4,
)


def row(**columns):
    return Row("r1", "q", columns)


def test_both_sections_and_their_order():
    text = hints.told([GOOD, BAD])
    assert text.index(hints.COVER) < text.index(GOOD.text) < text.index(hints.AVOID) < text.index(BAD.text)
    assert text.index(BAD.text) < text.index(hints.ANSWER) < text.index(hints.SECRECY)
    assert "5" not in text
    assert "4.5" not in text


def test_a_section_without_any_is_left_out():
    assert hints.AVOID not in hints.told([GOOD])
    assert hints.COVER not in hints.told([BAD])


def test_points_and_secrecy_are_options():
    text = hints.told([GOOD, BAD], points=True, secrecy=False)
    assert "names the dose (worth 5)" in text
    assert "advises alcohol (costs 4.5)" in text
    assert hints.SECRECY not in text


def test_worked_steps():
    text = hints.worked(["x = 2", "y = 3"], answer="5", form="Put the answer into a box.")
    assert text.index("x = 2") < text.index("y = 3") < text.index("into a box") < text.index("Final answer: 5")
    assert "Final answer" not in hints.worked(["x = 2"])


@given(TURNS, st.text(min_size=1), st.booleans(), st.sampled_from(["system", "user"]))
def test_there_is_one_system_turn_at_most_and_the_rest_stays(turns, text, own, place):
    prompt = [*([{"role": "system", "content": "be brief"}] if own else []), *turns]
    before = copy.deepcopy(prompt)
    made = hints.placed(prompt, text, place)
    assert prompt == before
    assert sum(turn["role"] == "system" for turn in made) == (own or place == "system")
    added = len(made) - len(prompt)
    assert added in (0, 1)
    changed = made[:added] + [m for m, p in zip(made[added:], prompt, strict=True) if m != p]
    assert len(changed) == 1
    assert text in changed[0]["content"]
    assert [t for t in made if t["role"] not in (place,)] == [t for t in prompt if t["role"] not in (place,)]


def test_the_rows_own_system_turn_comes_first():
    made = hints.placed([{"role": "system", "content": "be brief"}, {"role": "user", "content": "q"}], "hint")
    assert made == [{"role": "system", "content": "be brief\n\nhint"}, {"role": "user", "content": "q"}]
    parts = [{"role": "system", "content": [{"type": "text", "text": "be brief"}]}, {"role": "user", "content": "q"}]
    assert hints.placed(parts, "hint")[0]["content"] == [*parts[0]["content"], {"type": "text", "text": "hint"}]


def test_a_developer_turn_is_a_system_turn_by_another_name():
    own = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": "q"}]
    assert hints.placed(own, "S") == [{"role": "developer", "content": "be brief\n\nS"}, own[1]]
    both = [{"role": "system", "content": "a"}, *own]
    assert hints.placed(both, "S") == [{"role": "system", "content": "a\n\nS"}, *own]


@pytest.mark.parametrize("nothing", [None, "", []])
def test_an_empty_system_turn_holds_the_scaffold_alone(nothing):
    made = hints.placed([{"role": "system", "content": nothing}, {"role": "user", "content": "q"}], "S")
    assert made == [{"role": "system", "content": "S"}, {"role": "user", "content": "q"}]


def test_before_the_first_user_turn_where_there_are_no_system_turns():
    made = hints.placed([{"role": "user", "content": "q"}, {"role": "user", "content": "r"}], "hint", "user")
    assert made == [{"role": "user", "content": "hint\n\nq"}, {"role": "user", "content": "r"}]


def test_plain_text_gets_a_prefix_and_a_blank_line():
    assert hints.placed("q", "hint") == "hint\n\nq"


def test_criteria_are_read_with_whatever_else_they_carry():
    given = [
        {"criterion": "a", "points": 3, "tags": ["x"], "check": None},
        {"criterion": "b", "points": -1.5, "check": {"contains": "z"}},
    ]
    assert hints.criteria(row(rubric=given), "rubric") == [Item("a", 3.0), Item("b", -1.5)]
    assert hints.criteria(row(rubric=[]), "rubric") == []
    assert hints.criteria(row(rubric=[{"criterion": "a", "points": np.float32(0.5)}]), "rubric") == [Item("a", 0.5)]


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (
            {"answer": "1"},
            r"row r1: there is no column rubric to take criteria from \(columns: answer\); map one with",
        ),
        ({"rubric": None}, r"row r1: column rubric is empty; give it a list of criteria \(\[\] = this row"),
        ({"rubric": [{"criterion": "a", "points": 10**400}]}, "row r1: criterion 1 in column rubric has points 1000"),
        ({"rubric": [{"criterion": "a", "points": "3"}]}, "has points '3'; they should be a number"),
        ({"rubric": "text"}, "row r1: column rubric should be a list of criteria, not str"),
        (
            {"rubric": [{"criterion": "a", "points": 0}]},
            "row r1: criterion 1 in column rubric has points 0; they should",
        ),
        ({"rubric": [{"criterion": "a", "points": True}]}, "points True"),
        ({"rubric": [{"criterion": "a", "points": float("nan")}]}, "points nan"),
        ({"rubric": [{"criterion": "a", "points": 1}, {"criterion": " ", "points": 1}]}, "criterion 2 .* has no text"),
        ({"rubric": ["a"]}, "criterion 1 in column rubric has no text"),
    ],
)
def test_what_is_no_rubric_is_one_line(columns, line):
    with pytest.raises(ValueError, match=line) as caught:
        hints.criteria(row(**columns), "rubric")
    assert "\n" not in str(caught.value)


def test_a_rubric_as_json_text_is_the_same():
    given = [{"criterion": "names the dose", "points": 5}, {"criterion": "advises alcohol", "points": -4.5}]
    assert hints.criteria(row(rubric=json.dumps(given)), "rubric") == hints.criteria(row(rubric=given), "rubric")


def test_what_are_no_steps_is_one_line():
    with pytest.raises(ValueError, match="row r1: step 2 in column steps is not a text"):
        hints.steps(row(steps=["a", 3]), "steps")
    with pytest.raises(ValueError, match="no column steps to take steps from"):
        hints.steps(row(), "steps")
