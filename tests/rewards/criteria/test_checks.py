import json
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.criteria import Verdict, checks, running

NESTED = r"^(a+)+$"
ENDLESS = "a" * 60 + "b"


@pytest.fixture(scope="module", autouse=True)
def _ended():
    yield
    running.close()


def one(check, text, seconds=running.SECONDS):
    ((finding,),) = running.run([(text, [checks.read(check, "r")])], seconds)
    return finding


MET, UNMET = Verdict.MET, Verdict.UNMET


@pytest.mark.parametrize(
    ("check", "text", "verdict"),
    [
        ({"regex": r"\b\d+ mg\b"}, "take 20 mg", MET),
        ({"regex": r"\b\d+ mg\b"}, "take 20mg", UNMET),
        ({"regex": "DOSE", "flags": "i"}, "the dose", MET),
        ({"regex": "^b", "flags": "m"}, "a\nb", MET),
        ({"regex": "^b"}, "a\nb", UNMET),
        ({"contains": "Straße"}, "in der STRASSE", MET),
        ({"contains": "Dose", "ignore_case": False}, "the dose", UNMET),
        ({"contains": ["a", "b"]}, "only a", UNMET),
        ({"contains": ["a", "b"]}, "b and a", MET),
        ({"length": {"max": 3}}, "one two three", MET),
        ({"length": {"max": 3}}, "one two three four", UNMET),
        ({"length": {"unit": "chars", "min": 2, "max": 2}}, "é!", MET),
        ({"length": {"min": 1}}, "", UNMET),
        ({"math_equal": "3/4"}, r"so $\boxed{0.75}$", MET),
        ({"math_equal": "3/4"}, r"so $\boxed{0.74}$", UNMET),
        ({"math_equal": 12}, "no idea", UNMET),
        ({"math_equal": 12}, "The answer is 12.", MET),
        ({"math_equal": 12, "boxed_only": True}, "The answer is 12.", UNMET),
        ({"json_schema": {"type": "object", "required": ["a"]}}, '{"a": 1}', MET),
        ({"json_schema": {"type": "object", "required": ["a"]}}, '```json\n{"a": 1}\n```', MET),
        ({"json_schema": {"type": "object", "required": ["a"]}}, '{"b": 1}', UNMET),
        ({"json_schema": {"type": "object", "required": ["a"]}}, 'Here: {"a": 1}', UNMET),
        ({"json_schema": {"$ref": "#/$defs/n", "$defs": {"n": {"type": "number"}}}}, "4", MET),
        ({"json_schema": {"$ref": "#n", "$defs": {"n": {"$anchor": "n", "type": "number"}}}}, "4", MET),
        ({"json_schema": {"$id": "http://x/", "$ref": "#/$defs/n", "$defs": {"n": {"type": "number"}}}}, '"4"', UNMET),
        ({"json_schema": {"const": {"$ref": "http://x/"}}}, '{"$ref": "http://x/"}', MET),
        ({"json_schema": {"properties": {"$ref": {"type": "string"}}}}, '{"$ref": "#/nowhere"}', MET),
        ({"json_schema": {"type": "number"}}, "NaN", UNMET),
        ({"json_schema": {"type": "array"}}, "[" * 100_000, UNMET),
        (json.dumps({"contains": "a"}), "a", MET),
    ],
)
def test_kinds(check, text, verdict):
    assert one(check, text)[0] is verdict


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ({}, "unknown check (empty)"),
        ({"regex": "a", "contains": "a"}, "unknown check regex, contains"),
        ({"regex": "a", "ignore_case": True}, "ignore_case is not a setting of it; beside it may stand flags"),
        ({"regex": 3}, "should be text, not int"),
        ({"regex": "a", "flags": "q"}, "flags 'q'"),
        ({"contains": []}, "should be a text, or a list"),
        ({"contains": ""}, "none of them empty"),
        ({"length": {"max": -1}}, "max should be a whole number"),
        ({"length": {"max": 2.5}}, "max should be a whole number"),
        ({"length": {"min": 3, "max": 2}}, "min 3 is above max 2"),
        ({"length": {}}, "needs min, max or both"),
        ({"length": {"unit": "tokens", "max": 1}}, "words or chars"),
        ({"json_schema": {"type": "objekt"}}, "not a JSON schema"),
        ({"json_schema": {"$ref": "http://127.0.0.1:9/x.json"}}, "nothing is fetched"),
        ({"json_schema": {"$dynamicRef": "http://127.0.0.1:9/x.json"}}, "nothing is fetched"),
        ({"json_schema": {"items": {"$ref": "#/$defs/none"}}}, "$ref '#/$defs/none' leads nowhere"),
        ({"json_schema": {"$ref": "#none"}}, "$ref '#none' leads nowhere"),
        ({"math_equal": ""}, "should be the gold answer"),
        ({"math_equal": float("nan")}, "cannot be written as JSON"),
        ({"use": "no_such_module_here:f"}, "cannot be imported"),
        ({"use": "rewards.rubric:none"}, "has no function none"),
        ({"use": "json"}, "is no import path"),
        ({"use": "json:loads", "with": [1]}, "with a mapping under `with`"),
        ("{", "not JSON"),
        (7, "should be a mapping"),
    ],
)
def test_refusals(check, words):
    with pytest.raises(ValueError, match=r"^row 1") as caught:
        checks.read(check, "row 1")
    assert words in str(caught.value)


@pytest.fixture
def own(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(
        "import os, time\n"
        "def starts(response, letter):\n    return response.startswith(letter)\n"
        "def vague(response):\n    return 'yes'\n"
        "def broken(response):\n    raise KeyError('lost')\n"
        "def dies(response):\n    os._exit(3)\n"
        "def hangs(response):\n    time.sleep(600)\n"
    )
    return str(file)


def test_own_functions(own):
    check = {"use": f"{own}:starts", "with": {"letter": "x"}}
    assert one(check, "xyz")[0] is MET
    assert one(check, "yz")[0] is UNMET
    with pytest.raises(ValueError, match="cannot be called with"):
        checks.read({"use": f"{own}:starts"}, "r")


@pytest.mark.parametrize(
    ("name", "words"), [("vague", "returned str"), ("broken", "lost"), ("dies", "crash"), ("hangs", "timeout")]
)
def test_a_check_that_fails_is_no_verdict_and_fails_alone(own, name, words):
    good = checks.read({"regex": "a"}, "r")
    (findings,) = running.run([("a", [good, checks.read({"use": f"{own}:{name}"}, "r"), good])], 0.5)
    assert [verdict for verdict, _ in findings] == [MET, Verdict.FAILED, MET]
    assert words in findings[1][1]


@pytest.mark.parametrize("check", [{"regex": NESTED}, {"json_schema": {"pattern": NESTED}}])
def test_an_endless_pattern_costs_a_deadline_and_not_the_run(check):
    text = ENDLESS if "regex" in check else json.dumps(ENDLESS)
    assert one(check, text, 0.3)[0] is Verdict.FAILED
    assert one(check, "aaa" if "regex" in check else '"aaa"')[0] is MET  # on other texts it works


def test_a_batch_of_endless_ones_ends():
    check, good = checks.read({"regex": NESTED}, "r"), checks.read({"regex": "b$"}, "r")
    began = time.monotonic()
    found = running.run([(ENDLESS + str(i), [check, good]) for i in range(200)], 0.2)
    assert time.monotonic() - began < 60  # 200 deadlines, twice, would be 80 s on one worker
    assert all(row[0][0] is Verdict.FAILED for row in found)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.text("ab \n", max_size=8), st.lists(st.sampled_from(["a", "ab", "^b", r"a\sb"]), max_size=4)), max_size=6))  # fmt: skip
def test_many_jobs_keep_their_order(jobs):
    found = running.run([(text, [checks.read({"regex": p}, "r") for p in patterns]) for text, patterns in jobs])
    assert [[v is MET for v, _ in row] for row in found] == [
        [re.search(p, text) is not None for p in patterns] for text, patterns in jobs
    ]
