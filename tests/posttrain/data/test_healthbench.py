import json

import pytest

from posttrain.data import load_rows
from posttrain.data.healthbench import rows
from posttrain.errors import Mistake
from posttrain.recipe.schema import Source
from rewards.criteria import reading

RULE = {"verifier": "rule", "function": "word_count_range", "parameters": {"min_count": 2, "max_count": 4}}


def published(number, **more):
    return {
        "example_tags": ["theme:hedging"],
        "prompt": [
            {"role": "user", "content": f"Question {number}?"},
            {"role": "assistant", "content": "Which one?"},
            {"role": "user", "content": "The second."},
        ],
        "prompt_id": f"id-{number}",
        "rubrics": [
            {"criterion": "States the dose", "points": 7, "tags": ["level:example", "axis:accuracy"]},
            {"criterion": "Is rude", "points": -3, "tags": []},
        ],
        **more,
    }


def as_verl(row):
    inner = {"style": "rubric", "rubrics": row["rubrics"], "ground_truth": ""}
    return {
        "data_source": "healthbench",
        "ability": "medical_chat",
        "prompt": row["prompt"],
        "reward_model": inner,
        "extra_info": {"prompt": row["prompt"], "prompt_id": row["prompt_id"], "reward_model": inner},
    }


def write(path, given):
    path.write_text("".join(json.dumps(row) + "\n" for row in given))
    return str(path)


def test_published_layout(tmp_path):
    (found,) = rows(write(tmp_path / "h.jsonl", [published(1)]))
    assert found == {
        "row_id": "id-1",
        "prompt": published(1)["prompt"],
        "rubric": [
            {"criterion": "States the dose", "points": 7.0, "tags": ["level:example", "axis:accuracy"]},
            {"criterion": "Is rude", "points": -3.0, "tags": []},
        ],
    }


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_the_layout_of_verl_gives_the_same(tmp_path, ending):
    given = [published(n) for n in range(3)]
    file = tmp_path / f"v.{ending}"
    if ending == "parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist([as_verl(row) for row in given]), file)
    else:
        write(file, [as_verl(row) for row in given])
    assert rows(str(file)) == rows(write(tmp_path / "h.jsonl", given))


def test_rules_in_tags_survive_the_table(tmp_path):
    given = published(1)
    given["rubrics"][0]["tags"] = RULE
    source = Source(
        use="posttrain.data.healthbench:rows", **{"with": {"path": write(tmp_path / "h.jsonl", [given, published(2)])}}
    )
    table, counts = load_rows(source)
    assert counts["kept"] == 2
    assert table["row_id"][:] == ["id-1", "id-2"]
    first, second = reading.column(table)
    assert first[0].check == reading.rubric(given["rubrics"], "r")[0].check
    assert first[0].check.kind == "length"
    assert second[0].check is None


def test_held_out_rows_are_the_same_in_any_order(tmp_path):
    given = [published(n) for n in range(40)]
    file = write(tmp_path / "h.jsonl", given)
    held, kept = rows(file, "held_out", 10), rows(file, "train", 10)
    assert len(held) == 10
    assert sorted(r["row_id"] for r in held + kept) == sorted(r["prompt_id"] for r in given)
    turned = write(tmp_path / "t.jsonl", given[::-1])
    assert {r["row_id"] for r in rows(turned, "held_out", 10)} == {r["row_id"] for r in held}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            published(1, rubrics=[{"criterion": "x", "points": 0, "tags": []}]),
            r"row 1 \(id-1\): criterion 1 has 0 points",
        ),
        (published(1, rubrics=None), "no rubrics"),
        (published(1, prompt="text"), "prompt should be a list of messages, not str"),
        (published(1, prompt=[{"role": "assistant", "content": "x"}]), "should end with a user turn"),
        (published(1, prompt=[{"role": "user", "content": None}]), "message 1 should have a role"),
        (published(1, prompt=[]), "should end with a user turn"),
    ],
)
def test_refusals(tmp_path, row, words):
    with pytest.raises(Mistake, match=words):
        rows(write(tmp_path / "h.jsonl", [row]))


@pytest.mark.parametrize("part", ["all", "train", "held_out"])
def test_two_rows_of_one_name_are_refused_whatever_the_part(tmp_path, part):
    file = write(tmp_path / "h.jsonl", [published(i) for i in (1, 2, 3, 2)])
    with pytest.raises(Mistake, match=r"h\.jsonl, rows 2 and 4 have the same prompt_id 'id-2'; leave one out$"):
        rows(file, part, held_out=1)


def test_a_number_is_a_name_and_a_blank_is_none(tmp_path):
    found = rows(write(tmp_path / "h.jsonl", [published(1, prompt_id=0), published(2, prompt_id=" ")]))
    assert [row.get("row_id") for row in found] == ["0", None]


def test_rows_without_a_name_are_no_rows_of_one_name(tmp_path):
    assert len(rows(write(tmp_path / "h.jsonl", [published(i, prompt_id=None) for i in (1, 2)]))) == 2


def test_settings(tmp_path):
    file = write(tmp_path / "h.jsonl", [published(1), published(2, prompt_id=None)])
    with pytest.raises(Mistake, match="row 2 has no prompt_id"):
        rows(file, "train")
    with pytest.raises(Mistake, match="has 1 rows, so 500 cannot be held out"):
        rows(write(tmp_path / "one.jsonl", [published(1)]), "train")
    with pytest.raises(Mistake, match="part should be one of all"):
        rows(file, "test")
    with pytest.raises(Mistake, match="no file"):
        rows(str(tmp_path / "none.jsonl"))


def test_checks_are_kept_and_none_that_is_code(tmp_path):
    checked = [
        {"criterion": "x", "points": 1, "check": {"contains": "y"}},
        {"criterion": "z", "points": 2, "check": '{"regex": "z"}'},
    ]
    (found,) = rows(write(tmp_path / "h.jsonl", [published(1, rubrics=checked)]))
    assert reading.rubric(found["rubric"], "r") == reading.rubric(checked, "r")
    theirs = [{"criterion": "x", "points": 1, "check": {"use": "os:system"}}]
    with pytest.raises(
        Mistake, match=r"row 1 \(id-1\): criterion 1: check.use: 'os:system' is code that the data would run"
    ):
        rows(write(tmp_path / "h.jsonl", [published(1, rubrics=theirs)]))


def test_code_that_the_file_names_is_taken_only_if_it_is_said(tmp_path):
    given = published(1)
    given["rubrics"][0]["check"] = {"use": "operator:truth"}
    file = write(tmp_path / "h.jsonl", [given])
    with pytest.raises(Mistake, match=r"'operator:truth' is code that the data would run; .* set code_in_data: true"):
        rows(file)
    (found,) = rows(file, code_in_data=True)
    assert json.loads(found["rubric"][0]["check"]) == {"use": "operator:truth"}
    with pytest.raises(Mistake, match="code_in_data should be true or false"):
        rows(file, code_in_data="yes")


def test_a_name_that_is_no_text_for_a_file_is_a_name(tmp_path):
    given = [published(n, prompt_id=f"\ud800{n}") for n in range(4)]
    file = write(tmp_path / "h.jsonl", given)
    held, kept = (rows(file, part=part, held_out=1) for part in ("held_out", "train"))
    assert sorted(row["row_id"] for row in held + kept) == [row["prompt_id"] for row in given]
