"""Sources: what is in a file, on the hub or behind a function comes out as it is, and what is broken is one line."""

from __future__ import annotations

import csv
import json
from datetime import date

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posttrain.data.sources import SOURCES, read
from posttrain.errors import Mistake
from posttrain.recipe.schema import Source

CELL = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
TABLE = st.lists(st.fixed_dictionaries({"question": CELL, "answer": CELL}), min_size=1, max_size=6)
RELAXED = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ROWS = [{"question": "1+1", "answer": 2}, {"question": "2+2", "answer": 4}, {"question": "ü\n", "answer": 5}]


def rows(**source):
    return read(Source.model_validate(source), "data.train")[1]


def complaint(**source) -> str:
    with pytest.raises(Mistake) as caught:
        rows(**source)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("data.train")
    return str(caught.value)


def write(file, text: str) -> str:
    file.write_text(text, encoding="utf-8")
    return str(file)


class TestFiles:
    @RELAXED
    @given(TABLE)
    def test_json_lines(self, tmp_path, table):
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in table) + "\n\n"
        assert rows(path=write(tmp_path / "a.jsonl", text)) == table

    @RELAXED
    @given(TABLE)
    def test_json(self, tmp_path, table):
        assert rows(path=write(tmp_path / "a.json", json.dumps(table, indent=1))) == table

    @RELAXED
    @given(TABLE)
    def test_csv_cells_are_text(self, tmp_path, table):
        with (tmp_path / "a.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["question", "answer"], quoting=csv.QUOTE_ALL)
            writer.writeheader()
            writer.writerows(table)
        assert rows(path=str(tmp_path / "a.csv")) == table

    def test_csv_keeps_leading_zeros_empty_cells_and_long_cells(self, tmp_path):
        long = "x" * 300_000
        text = f'id,text\n007,\nNA,"a\nb"\n1e3,{long}\n'
        expected = [{"id": "007", "text": ""}, {"id": "NA", "text": "a\nb"}, {"id": "1e3", "text": long}]
        assert rows(path=write(tmp_path / "a.csv", text)) == expected

    def test_parquet(self, tmp_path):
        from datasets import Dataset

        Dataset.from_list(ROWS).to_parquet(tmp_path / "a.parquet")
        assert rows(path=str(tmp_path / "a.parquet")) == ROWS

    def test_lines_in_a_json_file_and_a_byte_order_mark(self, tmp_path):
        text = "\ufeff" + "\n".join(map(json.dumps, ROWS))
        assert rows(path=write(tmp_path / "a.json", text)) == ROWS
        assert rows(path=write(tmp_path / "a.jsonl", text)) == ROWS

    def test_a_line_separator_inside_text_does_not_split_a_line(self, tmp_path):
        row = {"question": "a\u2028b\x85c"}
        assert rows(path=write(tmp_path / "a.jsonl", json.dumps(row, ensure_ascii=False))) == [row]

    def test_the_limit_takes_the_first(self, tmp_path):
        path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, ROWS)))
        assert rows(path=path, limit=2) == ROWS[:2]
        assert rows(path=path, limit=99) == ROWS

    @pytest.mark.parametrize(
        ("name", "text", "says"),
        [
            ("a.jsonl", '{"a": 1}\n\n{"a": }\n', "line 3, column 7: not JSON"),
            ("a.jsonl", '{"a": 1}\n[1]\n', "line 2 is a list, not an object"),
            ("a.jsonl", '{"a": 1}\n"x"', "line 2 is text"),
            ("a.jsonl", "", "has no rows"),
            ("a.jsonl", "\n \n", "has no rows"),
            ("a.json", "[]", "has no rows"),
            ("a.json", '[{"a": 1}, 2]', "entry 2 is int"),
            ("a.json", '[{"a": 1},\n{"a"}]', "line 2"),
            ("a.json", "[" * 100_000, "not JSON"),
            ("a.csv", "a,b\n1,2\n1,2,3\n", "Expected 2 columns, got 3"),
            ("a.csv", "a,a\n1,2\n", 'two columns named "a"'),
            ("a.csv", "", "has no rows"),
            ("a.csv", "a,b\n", "has no rows"),
            ("a.parquet", "nothing of the kind", "not a parquet file"),
            ("a.txt", "x", "ends in none of .json, .jsonl, .csv, .parquet"),
        ],
    )
    def test_what_is_broken(self, tmp_path, name, text, says):
        assert says in complaint(path=write(tmp_path / name, text))

    def test_not_utf8(self, tmp_path):
        for name in ("a.jsonl", "a.json", "a.csv"):
            (tmp_path / name).write_bytes(b'{"a": "\xff\xfe"}\n\xff\n')
            assert "UTF" in complaint(path=str(tmp_path / name)).upper()

    def test_no_such_file(self, tmp_path):
        assert "no file" in complaint(path=str(tmp_path / "none.jsonl"))
        (tmp_path / "d.jsonl").mkdir()
        assert "is not a file" in complaint(path=str(tmp_path / "d.jsonl"))


class TestFunctions:
    @pytest.fixture
    def module(self, tmp_path):
        count = iter(range(1000))

        def make(body: str) -> str:
            file = tmp_path / f"mine{next(count)}.py"
            file.write_text(body)
            return f"{file}:rows"

        return make

    @pytest.mark.parametrize(
        "body",
        [
            f"def rows(): return {ROWS!r}",
            f"def rows():\n    yield from {ROWS!r}",
            f"import datasets\ndef rows(): return datasets.Dataset.from_list({ROWS!r})",
            f"import datasets\ndef rows(): return datasets.Dataset.from_list({ROWS!r}).to_iterable_dataset()",
            f"rows = {ROWS!r}",
        ],
    )
    def test_every_kind_of_rows(self, module, body):
        assert rows(use=module(body)) == ROWS

    def test_arguments_and_a_generator_without_end(self, module):
        use = module("def rows(start):\n    while True:\n        yield {'n': start}\n        start += 1\n")
        assert rows(use=use, limit=3, **{"with": {"start": 5}}) == [{"n": 5}, {"n": 6}, {"n": 7}]

    def test_the_functions_own_rows_are_not_touched(self, module):
        from posttrain.data import load_rows
        from posttrain.imports import load_object

        use = module("KEPT = [{'q': 'x', 'a': [1, 2]}]\ndef rows(): return KEPT\n")
        load_rows(Source(use=use, prompt="{b}", columns={"b": "q"}, completion="{a}"), None)
        assert load_object(use.replace(":rows", ":KEPT")) == [{"q": "x", "a": [1, 2]}]

    @pytest.mark.parametrize(
        ("body", "says"),
        [
            ("def rows(): return None", "returned null"),
            ("def rows(): return 'text'", "returned text"),
            ("def rows(): return {'train': []}", "returned a mapping (train)"),
            ("def rows(): return [1]", "row 1 of"),
            ("def rows(): return [{1: 2}]", "names are text"),
            ("def rows(): return []", "has no rows"),
            ("def rows(): raise ValueError('no\\nluck')", "failed: ValueError: no luck"),
            ("def rows():\n    yield {'a': 1}\n    raise OSError('gone')", "failed: OSError: gone"),
            ("def rows(n): return []", "failed: TypeError"),
            ("def other(): return []", 'has no "rows"'),
        ],
    )
    def test_what_is_broken(self, module, body, says):
        assert says in complaint(use=module(body))

    def test_an_unknown_argument(self, module):
        assert 'did you mean "start"' in complaint(use=module("def rows(start=1): return []"), **{"with": {"stat": 2}})

    def test_short_names_lead_to_functions_that_exist(self):
        from posttrain.imports import load_object

        assert all(callable(load_object(path)) for path in SOURCES.values())
        assert "did you mean" in complaint(use="miniature/arithmetics")


class TestHub:
    def test_a_local_copy_by_its_name(self, tmp_path):
        """`load_dataset` reads a folder as it reads a repository."""
        folder = tmp_path / "repository"
        folder.mkdir()
        write(folder / "train.jsonl", "\n".join(map(json.dumps, ROWS)))
        assert rows(hub=str(folder), split="train[1:]") == ROWS[1:]
        assert "cannot load" in complaint(hub=str(folder), split="nothing")
        assert "cannot load" in complaint(hub=str(folder), config="nothing")

    def test_an_unknown_name_is_one_line(self, monkeypatch, tmp_path):
        import datasets.config
        import huggingface_hub.constants as constants

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
        assert "posttrain-tests/none" in complaint(hub="posttrain-tests/none")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({}, "give one of use, hub, path, not none"),
        ({"use": "a:b", "path": "c.json"}, "not use and path"),
        ({"path": "c.json", "with": {"a": 1}}, "takes arguments"),
    ],
)
def test_exactly_one_place(source, says):
    assert says in complaint(**source)


def test_dates_and_bytes_do_not_stop_a_parquet_file(tmp_path):
    from datasets import Dataset

    made = [{"q": "x", "day": date(2024, 1, 2), "raw": b"\x00\xff"}]
    Dataset.from_list(made).to_parquet(tmp_path / "a.parquet")
    from posttrain.data import load_rows

    found, _ = load_rows(Source(path=str(tmp_path / "a.parquet"), prompt="{q}"), None)
    assert found[0]["raw"] == b"\x00\xff"
    assert found[0]["day"] == date(2024, 1, 2)
