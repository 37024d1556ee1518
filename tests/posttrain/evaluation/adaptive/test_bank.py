"""Response tables, the bank made of them, and what a bank refuses."""

import csv
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from posttrain.errors import Mistake
from posttrain.evaluation import Benchmark, Problem
from posttrain.evaluation.adaptive import responses
from posttrain.evaluation.adaptive.bank import gold_digest, pool, read_bank, text_digest
from posttrain.evaluation.adaptive.calibrate import bank_of, fit_command
from posttrain.evaluation.adaptive.fit import fit

TOY = Benchmark(
    "toy",
    lambda row: Problem(row.text("question"), row.number_or_text("answer")),
    rows=lambda limit: [{"question": f"{i} + {i}?", "answer": 2 * i} for i in range(30)],
)
PROBLEMS = TOY.load()


@pytest.fixture(scope="module")
def answers(simulate):
    draw = np.random.default_rng(0)
    return simulate.respond(draw, draw.normal(size=25), *simulate.items(draw, 30))


def write_lines(path, answers, items):
    records = [
        {"subject_id": f"m{i}", "responses": {k: int(x) for k, x in zip(items, row, strict=True) if x == x}}
        for i, row in enumerate(answers)
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def test_the_three_kinds_of_table_say_the_same(answers, tmp_path):
    items = [p.item_id for p in PROBLEMS]
    lines = write_lines(tmp_path / "r.jsonl", answers, items)
    with (tmp_path / "r.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["item", *(f"m{i}" for i in range(len(answers)))])
        writer.writerows([item, *map(int, column)] for item, column in zip(items, answers.T, strict=True))
    folders = []
    for i, row in enumerate(answers):
        folder = tmp_path / f"m{i}"
        folder.mkdir()
        folders.append(folder)
        samples = [
            {"benchmark": "toy", "item_id": p.item_id, "sample": 0, "score": x, "gold": p.gold}
            for p, x in zip(PROBLEMS, row, strict=True)
        ]
        (folder / "samples.jsonl").write_text("".join(json.dumps(s) + "\n" for s in samples))
    tables = [responses.read([lines]), responses.read([tmp_path / "r.csv"]), responses.read(folders)]
    for table in tables:
        assert np.array_equal(table.shares, answers)
        assert table.items == items
    banks = [bank_of(table) for table in tables]
    assert {b.benchmark for b in banks} == {"toy"}
    for bank in banks:
        assert np.array_equal(bank.a, fit(answers).a)
        assert [item.text for item in bank.items] == [text_digest(p.question) for p in PROBLEMS]
    assert [item.gold for item in banks[2].items] == [gold_digest(p.gold) for p in PROBLEMS]
    assert banks[0].models[3].accuracy == pytest.approx(answers[3].mean())


def test_shares_missing_answers_and_samples(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    samples = [{"benchmark": "toy", "item_id": "x", "sample": j, "score": float(j < 3), "gold": "1"} for j in range(4)]
    (folder / "samples.jsonl").write_text("".join(json.dumps(s) + "\n" for s in samples))
    (tmp_path / "t.csv").write_text("item,one,two\nx,1,\ny,true,0.5\n")
    table = responses.read([folder, tmp_path / "t.csv"])
    assert table.items == ["x", "y"]
    assert np.array_equal(table.shares, [[0.75, np.nan], [1, 1], [np.nan, 0.5]], equal_nan=True)
    assert table.samples.tolist() == [[4, 1], [1, 1], [1, 1]]


def test_a_bank_is_written_with_where_it_comes_from_and_read_back(answers, tmp_path, capsys):
    file = write_lines(tmp_path / "r.jsonl", answers, [f"toy_{i}" for i in range(30)])
    bank = fit_command([file], tmp_path / "deep" / "bank.json", benchmark=f"{__file__}:TOY")
    assert bank == read_bank(tmp_path / "deep" / "bank.json")
    assert [item.id for item in bank.items] == [p.item_id for p in PROBLEMS]
    assert any("named by their row of toy" in note for note in bank.notes)
    assert bank.fit["settings"]["b_sd"] == 3.0
    assert bank.fit["date"][:2] == "20"
    assert bank.start == pytest.approx(0, abs=1e-9)
    out = capsys.readouterr().out
    assert bank.digest in out
    assert "25, accuracy" in out
    found = pool(bank, "bank.json", "toy", PROBLEMS[::-1])
    assert [p.item_id for p in found.problems] == [p.item_id for p in PROBLEMS], "in the bank's order"
    assert found.notes == []


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.jsonl", '{"subject_id": "m", "responses": {"x": 1}}\n{"subject_id": \n', "a.jsonl, line 2: not JSON"),
        ("a.jsonl", '{"subject_id": "m"}\n', "a.jsonl, line 1: should be"),
        ("a.jsonl", '{"subject_id": 3, "responses": {"x": 1}}\n', "line 1: subject_id should be"),
        ("a.jsonl", '\n{"subject_id": "m", "responses": {"x": 2}}\n', "line 2, item x: a response should be 0, 1"),
        ("a.jsonl", '{"subject_id": "m", "responses": {"x": [1]}}\n', "line 1, item x: a response"),
        ("a.jsonl", '{"subject_id": "m", "responses": {"x": NaN}}\n', "line 1, item x: a response"),
        ("a.jsonl", '{"subject_id": "m", "responses": {}}\n', "has no responses"),
        ("a.jsonl", '{"subject_id": "m", "responses": {"x": 1, "x": 0}}\n', 'line 1: "x" is there twice'),
        ("a.csv", "item,m,n\nx,1,nan\n", "row 2, model n: a response should be 0, 1 or a share between, not 'nan'"),
        ("a.jsonl", "", "holds no models"),
        ("a.jsonl", '{"subject_id": "m", "responses": {"x": 1}}\n' * 2, 'line 2: model "m" is in'),
        ("a.csv", "item,m,n\nx,1\n", "a.csv, row 2: 2 columns, where the first row has 3"),
        ("a.csv", "item,m,n\nx,1,right\n", "a.csv, row 2, model n: a response should be"),
        ("a.csv", "item,m,m\nx,1,0\n", 'row 1, column 3: model "m" is there twice'),
        ("a.csv", "item,m,n\nx,1,0\nx,1,0\n", "row 3: item x is in row 2 already"),
        ("a.csv", "item\nx\n", "first row with models' names"),
        ("a.csv", "item,m,n\nx,1,\n", "column n: no responses"),
        ("a.parquet", "", "a .jsonl or .csv file, or the folder"),
    ],
)
def test_tables_that_are_none_say_where(name, text, said, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(Mistake) as caught:
        responses.read([tmp_path / name])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tables_that_cannot_become_a_bank(answers, tmp_path):
    def refused(said, *places, **settings):
        with pytest.raises(Mistake, match=said):
            fit_command(places, tmp_path / "bank.json", quiet=True, **settings)
        assert not (tmp_path / "bank.json").exists()

    refused("no such file or folder", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    refused("empty: no samples.jsonl here", tmp_path / "empty")
    one = write_lines(tmp_path / "one.jsonl", answers[:1], [p.item_id for p in PROBLEMS])
    refused("at least 2 models", one)
    other = write_lines(tmp_path / "other.jsonl", answers, [f"q{i}x" for i in range(30)])
    refused("item q0x is none of the 30 problems of toy", other, benchmark=f"{__file__}:TOY")
    far = write_lines(tmp_path / "far.jsonl", answers, [str(i + 5) for i in range(30)])
    refused("item 5 is none of the 30 problems", far, benchmark=f"{__file__}:TOY")
    refused("say of which", one, data="rows.jsonl")
    same = write_lines(tmp_path / "same.jsonl", np.ones((3, 30)), [p.item_id for p in PROBLEMS])
    refused("same ability", same)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        line = {"benchmark": name, "item_id": "x", "sample": 0, "score": 1, "gold": "1"}
        (tmp_path / name / "samples.jsonl").write_text(json.dumps(line) + "\n")
    refused("benchmark b, but .* has a; one bank is of one benchmark", tmp_path / "a", tmp_path / "b")


@pytest.fixture
def bank(answers, tmp_path):
    table = responses.read([write_lines(tmp_path / "r.jsonl", answers, [p.item_id for p in PROBLEMS])])
    return bank_of(table, "toy", PROBLEMS).model_copy(update={"grader": {"name": "g", "version": "1"}}).signed()


def test_a_bank_refuses_what_it_was_not_made_for(bank):
    with pytest.raises(Mistake, match=r"b\.json: a bank of toy, not of gsm8k"):
        pool(bank, "b.json", "gsm8k", PROBLEMS)
    other = [Problem("another question", p.gold, p.item_id) for p in PROBLEMS]
    with pytest.raises(Mistake, match="fitted with another question text"):
        pool(bank, "b.json", "toy", other)
    other = [Problem(p.question, "7", p.item_id) for p in PROBLEMS]
    with pytest.raises(Mistake, match="another right answer"):
        pool(bank, "b.json", "toy", other)
    with pytest.raises(Mistake, match=r"10 of its 30 items \(the first: toy/.*--data PATH"):
        pool(bank, "b.json", "toy", PROBLEMS[:20])
    assert len(pool(bank, "b.json", "toy", PROBLEMS[:20], part=True).items) == 20
    with pytest.raises(Mistake, match="none of its 30 items"):
        pool(bank, "b.json", "toy", [Problem("q", "1", "toy/0")])


def test_a_bank_warns_of_another_grader_and_prompt(bank):
    notes = pool(bank, "b.json", "toy", PROBLEMS, grader={"name": "g", "version": "2"}).notes
    assert notes == ["another grader than the bank's (version: 1 then, 2 now): its difficulties may not hold"]
    asked = bank.model_copy(update={"prompt": "abc"})
    assert "another prompt style" in pool(asked, "b.json", "toy", PROBLEMS, prompt="def").notes[0]
    more = [*PROBLEMS, Problem("new?", "1", "toy/0")]
    assert pool(bank, "b.json", "toy", more).notes == ["1 of 31 problems are not in the bank and are never asked"]


def test_files_that_are_no_bank(bank, tmp_path):
    path = tmp_path / "bank.json"
    bank.write(path)
    whole = json.loads(path.read_text())

    def refused(said, record):
        path.write_text(record if isinstance(record, str) else json.dumps(record))
        with pytest.raises(Mistake, match=said):
            read_bank(path)

    refused("altered since it was written", {**whole, "notes": ["mine"]})
    refused("not an item bank", "{")
    refused("not an item bank", "[]")
    refused("not an item bank", "[" * 100_000)
    refused("of another version", {**whole, "version": 2})
    items = [{**whole["items"][0], "a": -1.0}, *whole["items"][1:]]
    refused(r"items\.0\.a", {**whole, "items": items})
    refused("items", {**whole, "items": []})
    with pytest.raises(Mistake, match="posttrain irt fit"):
        read_bank(tmp_path / "none.json")
    twice = bank.model_copy(update={"items": [*bank.items, bank.items[0]]})
    twice.write(path)
    with pytest.raises(Mistake, match="is there twice"):
        read_bank(path)


def tried(do):
    """What it returned, or the mistake it told."""
    try:
        return do(), ""
    except Mistake as told:
        return None, str(told)


cells = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 2), st.floats(), st.text(max_size=3), st.lists(st.integers(), max_size=1)
)
names = st.text(st.characters(codec=None), min_size=0, max_size=4)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(names, st.dictionaries(names, cells, max_size=4)), max_size=4))
@example([("0", {"": True}), ("1", {"": False})])
def test_any_table_is_fitted_and_read_back_or_told_in_one_line(tmp_path, rows):
    """Names may hold anything that JSON can: control characters, halves of surrogate pairs."""
    file = tmp_path / "r.jsonl"
    file.write_text("".join(json.dumps({"subject_id": n, "responses": r}) + "\n" for n, r in rows))
    made, told = tried(lambda: fit_command([file], tmp_path / "bank.json", quiet=True))
    assert "\n" not in told
    assert made is None or read_bank(tmp_path / "bank.json") == made


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=60), st.text("item,mn01.\n\r\"'\x00 ", max_size=60).map(str.encode)))
def test_any_file_is_a_table_or_told_in_one_line(tmp_path, content):
    for name in ("r.csv", "r.jsonl", "bank.json"):
        (tmp_path / name).write_bytes(content)
        look = read_bank if name == "bank.json" else lambda path: responses.read([path])
        assert "\n" not in tried(lambda path=tmp_path / name, look=look: look(path))[1]
