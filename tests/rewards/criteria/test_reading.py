import json

import numpy as np
import pytest

from rewards.criteria import reading

GOOD = {"criterion": "Names the dose", "points": 5}


def refused(value):
    with pytest.raises(ValueError, match=r"^row 7: ") as caught:
        reading.rubric(value, "row 7")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"criterion": "x", "points": 0}, "0 points"),
        ({"criterion": "x", "points": 0.0}, "0 points"),
        ({"criterion": " \n", "points": 1}, "no text"),
        ({"points": 1}, "no text"),
        ({"criterion": "x"}, "points None"),
        ({"criterion": "x", "points": "5"}, "points '5'"),
        ({"criterion": "x", "points": True}, "points True"),
        ({"criterion": "x", "points": float("nan")}, "points nan; they should be finite"),
        ({"criterion": "x", "points": float("-inf")}, "points -inf"),
        ({"criterion": "x", "points": 10**400}, "points inf"),
        (
            {"criterion": "x", "points": 1, "chekc": {"regex": "a"}},
            "has chekc; known are criterion, points, tags, check",
        ),
        ({"criterion": "x", "points": 1, "check": {"regexp": "a"}}, "unknown check regexp: one of regex, contains"),
        ({"criterion": "x", "points": 1, "check": {"regex": "("}}, "check.regex: not a regular expression"),
        ({"criterion": "x", "points": 1, "tags": "axis"}, "tags should be a list"),
        ({"criterion": "x", "points": 1, "tags": [3]}, "a tag is text"),
        ({"criterion": "x", "points": 1, "tags": {"verifier": "rule", "function": "rm"}}, "unknown rule 'rm'"),
        ("x", "is str, not a mapping"),
    ],
)
def test_what_cannot_be_scored_is_refused_with_its_place(item, words):
    said = refused([GOOD, item])
    assert "criterion 2" in said
    assert words in said


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([{"criterion": "x", "points": -5}, {"criterion": "y", "points": -2}], "no criterion has positive points"),
        ([], "is empty"),
        ([{"criterion": c, "points": 1e308} for c in "xy"], "too large or too far apart to be added up"),
        ([{"criterion": "x", "points": 1}, *({"criterion": c, "points": -1e308} for c in "yz")], "too far apart"),
        ([{"criterion": "x", "points": 5e-324}, {"criterion": "y", "points": -1e10}], "too far apart"),
        ("text", "the rubric is a text, but not JSON: Expecting value"),
        ("[" * 100_000, "the rubric is a text, but not JSON"),
        ("3", "not int"),
        ('[{"criterion": "x", "points": 1, "points": 9}]', "'points' stands twice"),
        ({"criterion": "x", "points": 1}, "not dict"),
    ],
)
def test_a_rubric_without_a_score_is_refused(value, words):
    assert words in refused(value)


def test_a_rubric_as_json_text():
    item = {"criterion": "é", "points": 2, "tags": ["a"], "check": {"contains": "x"}}
    assert reading.rubric(json.dumps([GOOD, item]), "r") == reading.rubric([GOOD, item], "r")


def test_rows_are_named():
    rows = [{"row_id": "a", "rubric": [GOOD]}, {"row_id": "b", "rubric": [{"criterion": "x", "points": -1}]}]
    with pytest.raises(ValueError, match=r'^row b, column "rubric": no criterion has positive'):
        reading.column(rows)
    with pytest.raises(ValueError, match=r'^row 1: no column "other" with a rubric'):
        reading.column([{"rubric": [GOOD]}], "other")
    assert [len(r) for r in reading.column(rows[:1])] == [1]


def test_nulls_of_a_table_are_absences():
    from datasets import Dataset

    rubric = [
        {"criterion": "a", "points": 1, "check": {"regex": "x", "flags": "i"}},
        {"criterion": "b", "points": -2.5, "tags": ["t"], "check": {"length": {"max": 3}}},
        {"criterion": "c", "points": 1},
    ]
    stored = Dataset.from_dict({"rubric": [rubric]})[0]["rubric"]
    assert stored[0]["check"].keys() == {"regex", "flags", "length"}  # the nulls are there
    assert [(c.points, c.check and c.check.kind) for c in reading.rubric(stored, "r")] == [
        (1.0, "regex"),
        (-2.5, "length"),
        (1.0, None),
    ]


def test_a_yaml_file(tmp_path):
    file = tmp_path / "r.yaml"
    text = "- criterion: Names a dose\n  points: 5\n  check: {regex: '\\d+ mg'}\n- {criterion: Rude, points: -3}\n"
    file.write_text(text)
    assert [c.points for c in reading.yaml_file(file)] == [5, -3]
    file.write_text("criteria:\n" + "".join(f"  {line}\n" for line in text.splitlines()))
    assert [c.text for c in reading.yaml_file(file)] == ["Names a dose", "Rude"]
    file.write_text("- {criterion: x, points: .nan}\n")
    with pytest.raises(ValueError, match=r"r\.yaml: criterion 1 has points nan"):
        reading.yaml_file(file)
    file.write_text("[" * 5000)
    with pytest.raises(ValueError, match=r"r\.yaml: not YAML"):
        reading.yaml_file(file)
    file.write_text("- {criterion: [")
    with pytest.raises(ValueError, match=r"r\.yaml: not YAML"):
        reading.yaml_file(file)
    file.write_text("- criterion: x\n  points: 1\n  points: -3\n")
    with pytest.raises(ValueError, match=r"r\.yaml: not YAML: 'points' stands twice .*line 3"):
        reading.yaml_file(file)
    file.write_text("- &one {criterion: x, points: 1}\n- {<<: *one, criterion: y}\n")
    assert [(c.text, c.points) for c in reading.yaml_file(file)] == [("x", 1), ("y", 1)]
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        reading.yaml_file(tmp_path / "none.yaml")


RULES = [
    ({"verifier": "rule", "function": "word_count_range", "parameters": {"min_count": 2, "max_count": 4}}, "length"),
    ([{"verifier": "rule", "function": "math_verify", "parameters": {"answer": "3/4"}}], "math_equal"),
    (["verifier:rule", "function:word_count_range", 'parameters:{"min_count": 2, "max_count": 4}'], "length"),
    (["verifier:rule", "function:word_count_range", "parameters:{'min_count': 2, 'max_count': 4}"], "length"),
    (["verifier:rule", "function:word_count_range", "parameters:2-4"], "length"),
    (["verifier:rule", "function:math_verify", "parameters:3/4"], "math_equal"),
    (["axis:completeness", "level:example"], None),
    (["verifier:llm", "function:word_count_range", "parameters:2-4"], None),
]


@pytest.mark.parametrize(("tags", "kind"), RULES)
def test_three_ways_to_write_tags(tags, kind):
    (found,) = reading.rubric([{"criterion": "x", "points": 1, "tags": tags}], "r")
    if kind is None:
        assert found.check is None
        assert found.tags == tuple(tags)
        return
    assert found.check.kind == kind
    assert json.loads(found.check.value) == ("3/4" if kind == "math_equal" else {"unit": "words", "min": 2, "max": 4})


@pytest.mark.parametrize("gold", ["(1, 2)", "[1, 2]", "{1, 2}", "1,000", "07", r"\frac{1}{2}", "1e5"])
def test_a_gold_in_a_text_tag_is_that_text(gold):
    """As Python or JSON some of them would be other things: a list of golds, a set, (1, 0)."""
    tags = ["verifier:rule", "function:math_verify", f"parameters:{gold}"]
    (found,) = reading.rubric([{"criterion": "x", "points": 1, "tags": tags}], "r")
    assert json.loads(found.check.value) == gold


def test_points_of_numpy():
    points = [np.int64(3), np.float32(-1.5), np.float64(2)]
    found = reading.rubric(np.array([{"criterion": "x", "points": p} for p in points]), "r")
    assert [c.points for c in found] == [3, -1.5, 2]
    assert all(type(c.points) is float for c in found)


def test_a_rule_and_a_check_are_one_too_many():
    assert "keep one" in refused([{**GOOD, "tags": RULES[0][0], "check": {"contains": "x"}}])


HB = [{"criterion": "States the dose", "points": 7, "tags": ["level:example", "axis:accuracy"]}]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [], "prompt_id": "p", "rubrics": HB, "example_tags": []},
        {"reward_model": {"style": "rubric", "rubrics": HB, "ground_truth": ""}},
        {"extra_info": {"reward_model": {"rubrics": HB}}},
        {"extra_info": {"rubrics": json.dumps(HB)}},
    ],
)
def test_healthbench_layouts(row):
    (found,) = reading.rubric(reading.healthbench(row, "r"), "r")
    assert (found.text, found.points, found.tags) == ("States the dose", 7, ("level:example", "axis:accuracy"))


def test_a_row_without_rubrics_says_where_it_was_looked_for():
    with pytest.raises(ValueError, match=r"^r: no rubrics"):
        reading.healthbench({"prompt": []}, "r")
