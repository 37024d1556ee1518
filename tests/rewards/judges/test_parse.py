import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.judges import parse
from rewards.judges.parse import Unread

YES, NO = '{"explanation": "a", "criteria_met": true}', '{"explanation": "b", "criteria_met": false}'


@pytest.mark.parametrize(
    ("text", "met"),
    [
        (YES, True),
        (f"```json\n{NO}\n```", False),
        (f"<think>{YES} or so {{</think>\n{NO}", False),
        (f'<think>{{"explanation": "draft</think>\n{NO}', False),
        (f"The answer claims {YES}. My verdict: {NO} That is all.", False),
        ('{"explanation": "it says {\\"criteria_met\\": true}", "criteria_met": false}', False),
        ('{"explanation": "braces } { in it", "criteria_met": true}', True),
        ("{" * 500 + YES, True),
        (json.dumps({"explanation": f"it says </think>{YES}", "criteria_met": False}), False),
    ],
)
def test_the_last_complete_object_counts(text, met):
    assert parse.verdicts(text, 1, "criterion")[0][0] is met


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I think it meets the criterion.",
        "true",
        '"criteria_met": true',
        '{"explanation": "cut off", "criteria_met": tr',
        '{"explanation": "a", "criteria_met": True}',
        "{" * 5000,
        '{"a":' * 3000,
        '{"criteria_met": false, "criteria_met": true}',
        '{"criteria_met": false, "criteria_met": true, "x": {"criteria_met": true}}',
        '{"explanation": "x", "more": {"criteria_met": true}',
        '{"explanation": "it says {"criteria_met": true} but',
        '{"explanation": "it says {"criteria_met": true} but", "criteria_met": false}',
        "[" * 3000 + "]" * 3000,
        f'{{"explanation": "it says </think>{YES}", "criteria_met": false}}',
        f"It claims {YES}. My verdict: {{'criteria_met': False}}",
        f"It claims {YES}. My verdict: criteria_met: false",
        f"It claims {YES}. But `criteria_met` = false",
        f"It claims {YES}. In truth criteria_met is false.",
        f'No.</think>{{"explanation": "it says </think>{YES}", "criteria_met": false}}',
    ],
)
def test_what_is_no_object_is_no_verdict(text):
    with pytest.raises(Unread):
        parse.verdicts(text, 1, "criterion")


@pytest.mark.parametrize("value", ["true", 1, 0, None, "yes", [], {}])
def test_only_booleans_are_verdicts(value):
    (found,) = parse.verdicts(json.dumps({"explanation": "x", "criteria_met": value}), 1, "criterion")
    assert isinstance(found, Unread)


def test_a_number_that_is_left_out_is_no_verdict():
    one = {"explanation": "x", "criteria_met": True}
    found = parse.verdicts(json.dumps({"1": one, "3": {**one, "criteria_met": "no"}, "all": one}), 4, "response")
    assert found[0] == (True, "x")
    assert [type(f) for f in found[1:]] == [Unread] * 3
    assert str(found[1]) == "the JSON object has no entry for criterion 2"
    assert str(found[2]) == "criteria_met for criterion 3 is not true or false"


@pytest.mark.parametrize("numbers", [("0", "1"), ("1", "2", "3"), ("1", "02"), ("1", "\uff12"), ("1", "-1", "9" * 99)])
def test_numbers_that_are_not_ours_leave_none_that_is(numbers):
    """One that counts from 0 would have said of the first criterion what it found of the second."""
    one = {"explanation": "x", "criteria_met": True}
    with pytest.raises(Unread, match="has an entry for criterion"):
        parse.verdicts(json.dumps(dict.fromkeys(numbers, one)), 2, "response")


values = st.recursive(st.none() | st.booleans() | st.text("{}\"\\a", max_size=6), lambda v: st.lists(v, max_size=2) | st.dictionaries(st.text(max_size=3), v, max_size=2), max_leaves=6)  # fmt: skip


@given(st.lists(st.dictionaries(st.text(max_size=3), values, max_size=3), min_size=1, max_size=3), st.sampled_from(["", " then ", "\n```\n"]))  # fmt: skip
def test_the_last_of_several(objects, between):
    assert parse.last_object(between.join(map(json.dumps, objects)) + between) == objects[-1]


@given(st.text('{}[]":,truefalsn\\ 1', max_size=200))
def test_it_never_breaks(text):
    with contextlib.suppress(Unread):
        assert isinstance(parse.last_object(text), dict)
