"""The whole way from a source to a trainer's data set."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from posttrain.data import load_rows
from posttrain.errors import Mistake
from posttrain.miniature import tokenizer as miniature
from posttrain.recipe.schema import Source

TOKENIZER = miniature.build()
QA = [{"id": i, "question": f"{i}+{i}", "solution": f"#### {2 * i}"} for i in range(5)]


@pytest.fixture
def path(tmp_path) -> str:
    file = tmp_path / "qa.jsonl"
    file.write_text("\n".join(map(json.dumps, QA)))
    return str(file)


def test_columns_prompts_names_and_counts(path):
    source = Source(path=path, columns={"answer": "solution"}, prompt="{question}=?", system="s", limit=3)
    rows, counts = load_rows(source, TOKENIZER, max_prompt_tokens=100)
    assert counts == {"read": 3, "dropped": 0, "cut": 0, "kept": 3}
    assert rows.column_names == ["row_id", "prompt", "id", "question", "answer"]
    assert rows["answer"] == ["#### 0", "#### 2", "#### 4"]
    assert rows[1]["prompt"] == [{"role": "system", "content": "s"}, {"role": "user", "content": "1+1=?"}]
    assert rows[1]["row_id"].startswith("qa.jsonl:")


def test_the_same_twice_and_the_same_names_under_another_prompt_or_folder(path, tmp_path):
    source = Source(path=path, prompt="{question}")
    first = load_rows(source, TOKENIZER, max_prompt_tokens=50)[0]
    assert load_rows(source, TOKENIZER, max_prompt_tokens=50)[0].to_list() == first.to_list()
    other = tmp_path / "elsewhere" / "qa.jsonl"
    other.parent.mkdir()
    other.write_text(Path(path).read_text())
    moved = load_rows(Source(path=str(other), prompt="Say {question}", columns={"a": "solution"}), None)[0]
    assert moved["row_id"] == first["row_id"]


def test_rows_keep_their_names_when_others_are_dropped(path):
    source = Source(path=path, prompt="{question}" + "x" * 20, overlong="drop")
    every = load_rows(source, None)[0]
    with open(path, "a") as file:
        file.write("\n" + json.dumps({"id": 9, "question": "y" * 99, "solution": ""}))
    some, counts = load_rows(source, TOKENIZER, max_prompt_tokens=30)
    assert counts == {"read": 6, "dropped": 1, "cut": 0, "kept": 5}
    assert some["row_id"] == every["row_id"]


def test_a_mapped_row_id_is_used(path):
    rows, _ = load_rows(Source(path=path, prompt="{question}", columns={"row_id": "id"}), None)
    assert rows["row_id"] == ["0", "1", "2", "3", "4"]


def test_columns_that_some_rows_lack_are_null(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"q": "x", "a": 1}\n{"q": "y", "b": [1, 2]}\n')
    rows, _ = load_rows(Source(path=str(file), prompt="{q}"), None)
    assert (rows["a"], rows["b"]) == ([1, None], [None, [1, 2]])


def test_mixed_kinds_in_a_column_name_it(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"q": "x", "a": 1}\n{"q": "y", "a": "two"}\n')
    with pytest.raises(Mistake, match=r'column "a" holds different kinds of values: int \(row 1\), str \(row 2\)'):
        load_rows(Source(path=str(file), prompt="{q}"), None)


RUBRICS = [
    [
        {"criterion": "x", "points": 1, "check": {"contains": "a"}},
        {"criterion": "y", "points": 2.5, "check": {"contains": ["a", "b"], "ignore_case": True}},
    ],
    [
        {
            "criterion": "y",
            "points": -2,
            "check": {"json_schema": {"type": "object", "properties": {"k": {"type": "string"}}}},
        },
        {
            "criterion": "z",
            "points": 3,
            "tags": {"verifier": "rule", "function": "math_verify", "parameters": {"answer": "3"}},
        },
        {
            "criterion": "z",
            "points": 3,
            "tags": ["level:example"],
            "check": {"json_schema": {"properties": {"j": {}}}},
        },
    ],
    None,
]


def test_rubrics_whose_checks_differ_in_kind_come_through_as_they_are(tmp_path):
    """Arrow refuses a text beside a list ("cannot mix"), and would write the keys of every schema into every other."""
    from rewards.criteria import reading

    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps({"prompt": "q", "n": i, "rubric": r}) + "\n" for i, r in enumerate(RUBRICS)))
    rows, _ = load_rows(Source(path=str(file)), TOKENIZER, max_prompt_tokens=100)
    assert rows["rubric"] == RUBRICS
    assert [row["rubric"] for row in rows.select([2, 1])] == [RUBRICS[2], RUBRICS[1]]
    assert rows["n"] == [0, 1, 2]
    assert len(reading.column(rows.select([0, 1]))[1]) == 3


def test_a_rubric_that_is_a_text_beside_one_that_is_a_list_is_named(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps({"prompt": "q", "rubric": r}) + "\n" for r in (RUBRICS[0], "[]")))
    with pytest.raises(
        Mistake, match=r'column "rubric" holds different kinds of values: list \(row 1\), str \(row 2\)'
    ):
        load_rows(Source(path=str(file)), None)


def test_messages_with_different_keys_survive(tmp_path):
    file = tmp_path / "a.jsonl"
    lines = [
        {"prompt": [{"role": "user", "content": "x"}], "chosen": "a", "rejected": "b"},
        {"prompt": [{"role": "user", "content": "y", "name": "n"}], "chosen": "c", "rejected": "d"},
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    rows, _ = load_rows(Source(path=str(file)), TOKENIZER, max_prompt_tokens=50)
    assert rows["chosen"] == [[{"role": "assistant", "content": "a"}], [{"role": "assistant", "content": "c"}]]
    assert [r["prompt"][0]["content"] for r in rows] == ["x", "y"]


def test_the_miniature_passes_through_whole():
    from posttrain.miniature import arithmetic

    source = Source.model_validate({"use": "miniature/arithmetic", "with": {"n": 20}})
    rows, counts = load_rows(source, TOKENIZER, max_prompt_tokens=20)
    assert counts["kept"] == 20
    assert rows.to_list() == arithmetic.train(20).to_list()
    shown = arithmetic.demonstrations(10)
    source = Source.model_validate({"use": "posttrain.miniature.arithmetic:demonstrations", "with": {"n": 10}})
    assert load_rows(source, TOKENIZER, max_prompt_tokens=20)[0]["completion"] == shown["completion"]


def test_trl_reads_what_comes_out(path):
    """TRL's own helpers take the rows for what they are meant to be."""
    from trl.data_utils import apply_chat_template, is_conversational

    source = Source(path=path, prompt="{question}", completion="{solution}")
    row = load_rows(source, TOKENIZER, max_prompt_tokens=50)[0][1]
    assert is_conversational(row)
    text = apply_chat_template({"prompt": row["prompt"], "completion": row["completion"]}, TOKENIZER)
    assert text == {"prompt": "<|user|>1+1<|end|><|assistant|>", "completion": "#### 2<|end|>"}


def test_no_setting_of_datasets_changes_and_nothing_is_cached(path, tmp_path, monkeypatch):
    import datasets

    before = (datasets.is_caching_enabled(), datasets.config.HF_DATASETS_CACHE, dict(os.environ))
    rows, _ = load_rows(Source(path=path, prompt="{question}"), TOKENIZER, max_prompt_tokens=50)
    assert rows.cache_files == []
    assert (datasets.is_caching_enabled(), datasets.config.HF_DATASETS_CACHE, dict(os.environ)) == before


BENCHMARKS = os.environ.get("POSTTRAIN_BENCHMARKS")


@pytest.mark.skipif(not BENCHMARKS, reason="POSTTRAIN_BENCHMARKS names no folder with benchmark files")
@pytest.mark.parametrize(
    ("name", "column", "n"),
    [
        ("gsm8k", "question", 1319),
        ("math500", "problem", 500),
        ("amc23", "question", 40),
        ("olympiadbench", "question", 675),
    ],
)
def test_real_files_load_as_they_are(name, column, n):
    file = Path(BENCHMARKS) / f"{name}.jsonl"
    first = json.loads(file.open().readline())
    assert column in first
    rows, counts = load_rows(Source(path=str(file), prompt=f"{{{column}}}"), None)
    assert counts["kept"] == len(rows)
    assert len(set(rows["row_id"])) == len(rows) == sum(bool(line.strip()) for line in file.open())
    assert rows[0]["prompt"][0]["content"] == first[column]
