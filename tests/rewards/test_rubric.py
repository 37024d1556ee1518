"""The reward, with criteria that code decides."""

import asyncio
import json

import pytest

from rewards.criteria import Verdict, running
from rewards.rubric import Rubric
from rewards.runtime import Guard

ENDLESS = {"criterion": "never ends", "points": 6, "check": {"regex": "^(a+)+$"}}
RUBRIC = [
    {"criterion": "says alpha", "points": 3, "tags": ["axis:x"], "check": {"contains": "alpha"}},
    {"criterion": "says beta", "points": 6, "check": {"regex": "beta"}},
    {"criterion": "is rude", "points": -7, "check": {"contains": "stupid"}},
]


@pytest.fixture(scope="module", autouse=True)
def _ended():
    yield
    running.close()


def ask(reward, texts, rubric=RUBRIC, **columns):
    return asyncio.run(reward(completions=texts, rubric=[rubric] * len(texts), **columns))


TEXTS = ["alpha beta", "alpha", "alpha stupid", "alpha beta stupid", "", "stupid"]
TABLE = [1, 1 / 3, -4 / 9, 2 / 9, 0, -7 / 9]


def test_the_published_table_from_texts():
    assert ask(Rubric(), TEXTS) == pytest.approx(TABLE)
    said = [[{"role": "assistant", "content": text}] for text in TEXTS]
    assert ask(Rubric(), said) == pytest.approx(TABLE)
    assert ask(Rubric(floor=0), TEXTS) == pytest.approx([max(0, s) for s in TABLE])


def test_reasoning_counts_unless_it_is_skipped():
    said = "<think>alpha stupid</think>beta"
    assert ask(Rubric(), [said]) == pytest.approx([2 / 9])
    assert ask(Rubric(skip_reasoning=True), [said, "alpha"]) == pytest.approx([6 / 9, 1 / 3])


def test_what_is_told_of_each_criterion():
    told, numbers = {}, {}
    ask(Rubric(), TEXTS, log_extra=told.__setitem__, log_metric=numbers.__setitem__)
    assert numbers == {"rubric/failed": 0, "rubric/mean": pytest.approx(sum(TABLE) / 6)}
    assert [row["score"] for row in told["rubric"]] == pytest.approx(TABLE)
    assert told["rubric"][2]["criteria"][0] == {
        "text": "says alpha",
        "points": 3.0,
        "tags": ["axis:x"],
        "by": "code",
        "verdict": "met",
        "why": "all of it is there",
        "agreement": None,
    }
    assert [c["verdict"] for c in told["rubric"][2]["criteria"]] == ["met", "unmet", "met"]


def test_a_failed_check_masks_drops_or_raises():
    rubric = [RUBRIC[0], ENDLESS, RUBRIC[2]]
    bad = "a" * 60 + "lpha"
    fast = {"check_seconds": 0.3}
    assert ask(Rubric(**fast), [bad, "aaa"], rubric) == [None, pytest.approx(6 / 9)]
    assert ask(Rubric(on_error="drop_criterion", **fast), [bad], rubric) == [1]
    with pytest.raises(
        ValueError, match=r"^row p/1: no verdict on 1 of 3 criteria, first: 'never ends': the check did not end"
    ):
        ask(Rubric(on_error="raise", **fast), [bad], rubric, row_id=["p/1"])


def test_the_alarm_and_the_guard():
    reward = Rubric(at_most=0.002, check_seconds=0.05)
    guard = Guard(lambda: reward)
    bad = "a" * 60 + "b"
    columns = {"rubric": [[ENDLESS]] * 4, "row_id": ["r1", "r2", "r3", "r4"]}
    scores = guard.score(["p"] * 4, [bad, "aa", bad, bad], None, columns)
    assert scores.values == [None] * 4
    assert {fault.row_id for fault in scores.faults} == set(columns["row_id"])
    assert "3 of the last 4 verdicts failed, at_most 0.002 allows 2 of 1000; last: the check did not end" in str(
        scores.faults[0]
    )
    guard.close()


def test_the_alarm_looks_at_the_whole_of_a_call():
    """Of 2400 verdicts 900 failed before the last 1000."""
    reward = Rubric(at_most=0.5, check_seconds=0.01)
    found = [[{"verdict": Verdict.FAILED if k < 900 else Verdict.MET, "why": "w"}] for k in range(2400)]
    with pytest.raises(
        ValueError, match=r"^900 of the last 1000 verdicts failed, at_most 0\.5 allows 500 of 1000; last: w$"
    ):
        reward._watch(found)
    reward._watch(found[:500])  # just as many as may


@pytest.mark.parametrize(
    "value", [[{1: 2, "criterion": "x", "points": 1}], [{(1, 2): 2, "criterion": "x", "points": 1}]], ids=str
)
def test_keys_that_are_no_texts_are_refused_as_others_are(value):
    with pytest.raises(
        ValueError, match=r"^row a, column \"rubric\": criterion 1 has .*; known are criterion, points"
    ):
        Rubric().check([{"row_id": "a", "rubric": value}])


def test_one_rubric_for_all_rows(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("- {criterion: short, points: 2, check: {length: {max: 2}}}\n")
    assert asyncio.run(Rubric(criteria=str(file))(completions=["a b", "a b c"])) == [1, 0]
    assert asyncio.run(Rubric(criteria=RUBRIC)(completions=["alpha"])) == [pytest.approx(1 / 3)]


def test_rows_are_refused_before_training():
    rows = [
        {"row_id": "a", "rubric": RUBRIC},
        {"row_id": "b", "rubric": [{"criterion": "x", "points": 1, "check": {"regex": "["}}]},
    ]
    assert Rubric().check(rows[:1]) == 3
    with pytest.raises(
        ValueError, match=r'^row b, column "rubric": criterion 1: check.regex: not a regular expression'
    ):
        Rubric().check(rows)
    with pytest.raises(ValueError, match=r'^row 1: no column "rubric" with a rubric'):
        Rubric().check([{"prompt": "x"}])
    with pytest.raises(ValueError, match=r'^column "rubric" holds null in every row'):
        Rubric().check([{"rubric": None}] * 2)
    with pytest.raises(ValueError, match=r'the data has no column "rubric" with the rubrics'):
        asyncio.run(Rubric()(completions=["x"], other=["y"]))


def test_a_row_without_a_rubric_is_not_judged():
    told = {}
    found = asyncio.run(Rubric()(completions=["alpha", "alpha"], rubric=[None, RUBRIC], log_extra=told.__setitem__))
    assert found == [None, pytest.approx(1 / 3)]
    assert told["rubric"][0] is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"on_error": "zero"}, "on_error should be one of mask_row, drop_criterion, raise"),
        ({"at_most": 5}, "at_most should be a share"),
        ({"floor": float("nan")}, "floor should be a number"),
        ({"floor": True}, "floor should be a number"),
        ({"check_seconds": True}, "check_seconds should be a positive number"),
        ({"check_seconds": 0}, "check_seconds should be a positive number"),
        ({"criteria": [{"criterion": "x", "points": 0}]}, "^criteria: criterion 1 has 0 points"),
        ({"criteria": "/none.yaml"}, "cannot be read"),
    ],
)
def test_settings(settings, words):
    with pytest.raises(ValueError, match=words):
        Rubric(**settings)


def test_code_that_the_data_names_is_not_run(tmp_path):
    mark = tmp_path / "ran"
    file = tmp_path / "theirs.py"
    file.write_text(f"open({str(mark)!r}, 'w')\ndef f(response):\n    return True\n")
    rubric = [{"criterion": "x", "points": 1, "check": {"use": f"{file}:f"}}]
    for value in (rubric, json.dumps(rubric)):
        with pytest.raises(ValueError, match=r"^row a, .* is code that the data would run; .* set code_in_data: true"):
            Rubric().check([{"row_id": "a", "rubric": value}])
        with pytest.raises(ValueError, match="is code that the data would run"):
            ask(Rubric(), ["x"], value)
    assert not mark.exists()
    assert ask(Rubric(code_in_data=True), ["x"], rubric) == [1]
    assert asyncio.run(Rubric(criteria=rubric)(completions=["x"])) == [1]
