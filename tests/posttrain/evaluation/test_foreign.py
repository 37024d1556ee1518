"""Files that lm-evaluation-harness 0.4.13 (its dummy model on tiny tasks) and lighteval 0.13.0 (its writer, made-up answers)
wrote, read and compared."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from posttrain.cli import main
from posttrain.errors import Mistake
from posttrain.evaluation.compare import compare
from posttrain.evaluation.foreign import files_in, read
from posttrain.evaluation.places import evaluations

HERE = Path(__file__).parent / "foreign"


@pytest.fixture
def theirs(tmp_path):
    """The files under the names that lighteval gives them (`|` is a `+` in the repository, for file systems without it)."""
    shutil.copytree(HERE, tmp_path / "foreign")
    for file in list((tmp_path / "foreign").rglob("*+*")):
        file.rename(file.with_name(file.name.replace("+", "|")))
    return tmp_path / "foreign"


@pytest.mark.parametrize("number", [1, 2])
def test_the_harness_says_the_same(theirs, number):
    folder = theirs / f"lm-eval-{number}"
    (results,) = folder.glob("results_*.json")
    told = json.loads(results.read_text())["results"]
    found = evaluations(folder)
    assert set(found) == {"pick", "sums (first-word)", "sums (strict)"}
    for name, key in (
        ("pick", "acc,none"),
        ("sums (first-word)", "exact_match,first-word"),
        ("sums (strict)", "exact_match,strict"),
    ):
        one = found[name]
        task = name.split()[0]
        assert one.accuracy["value"] == pytest.approx(told[task][key])
        assert one.n == told[task]["sample_len"] == 8
        # their standard error is that of the mean over problems: ours
        assert one.accuracy["se"] == pytest.approx(told[task][key.replace(",", "_stderr,")])
        assert "0.4.13" in one.grader["version"]
        assert one.prompt_style == "0-shot"


@pytest.mark.parametrize("number", [1, 2])
def test_lighteval_says_the_same(theirs, number):
    found = evaluations(theirs / f"lighteval-{number}", ["avg@n:n=2"])
    one = found["sums|0"]
    assert (one.n, one.model, one.prompt_style) == (10, f"dummy-{number}", "0-shot")
    assert one.sampling["temperature"] == 0
    assert one.grader["name"] == "lighteval, avg@n:n=2"
    from pyarrow.parquet import read_table

    (file,) = files_in(theirs / f"lighteval-{number}")
    metric = read_table(file).column("metric").to_pylist()
    assert one.accuracy["value"] == pytest.approx(sum(m["avg@n:n=2"] for m in metric) / 10)
    assert [line["gold"] for line in one.samples()] == [str(i + 1) for i in range(10)]


def test_both_kinds_are_compared(theirs, capsys):
    for kind, count, choice in (("lm-eval", 3, []), ("lighteval", 1, ["--metric", "avg@n:n=2"])):
        folders = [str(theirs / f"{kind}-{number}") for number in (1, 2)]
        assert main(["compare", *folders, *choice]) == 0
        record = json.loads((theirs / f"{kind}-2" / "comparison.json").read_text())
        assert len(record["comparisons"]) == count
        assert all(one["n"] in (8, 10) for one in record["comparisons"])
    assert "distinguishable" in capsys.readouterr().out


def test_one_file_alone(theirs, tmp_path):
    a, b = (next((theirs / f"lm-eval-{number}").glob("samples_pick*")) for number in (1, 2))
    assert main(["compare", str(a), str(b)]) == 0
    assert (theirs / "lm-eval-2" / "comparison.json").is_file()
    (one,), (other,) = read(a), read(b)
    rows = [[json.loads(line)["acc"] for line in file.read_text().splitlines()] for file in (a, b)]
    found = compare(one, other)
    assert found.better == sum(x < y for x, y in zip(*rows, strict=True))
    assert found.worse == sum(x > y for x, y in zip(*rows, strict=True))
    # shuffled rows pair all the same
    lines = b.read_text().splitlines(keepends=True)
    shuffled = tmp_path / b.name
    for results in b.parent.glob("results_*.json"):
        shutil.copy(results, tmp_path)
    shuffled.write_text("".join(lines[::-1]))
    assert compare(one, read(shuffled)[0]).p == found.p
    # other problems are refused
    shuffled.write_text("".join(lines[:5]))
    with pytest.raises(Mistake, match="not the same problems"):
        compare(one, read(shuffled)[0])


def test_a_question_twice_is_two_problems(theirs, tmp_path):
    file = next((theirs / "lm-eval-1").glob("samples_pick*"))
    row = json.loads(file.read_text().splitlines()[0])
    twice = tmp_path / "samples_pick_2026-01-01T00-00-00.0.jsonl"
    twice.write_text("".join(json.dumps(row | {"doc_id": i, "acc": float(i)}) + "\n" for i in range(2)))
    (one,) = read(twice)
    assert one.n == 2
    assert one.accuracy["value"] == 0.5
    assert one.model == tmp_path.name, "no results file beside it"


def row(**changes):
    return {"doc_id": 0, "doc": {"q": "x"}, "target": "1", "arguments": {}, "filter": "none", "acc": 1.0} | changes


def test_older_files_without_digests_or_names_of_metrics(tmp_path):
    file = tmp_path / "samples_old.jsonl"
    rows = [row(doc_id=i, doc={"q": i}, acc=float(i % 2), bleu=44.0, exact_match=[1, 0]) for i in range(4)]
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    (one,) = read(file, ["exact_match"])
    assert one.benchmark == "samples_old"
    assert one.accuracy["value"] == 0.5
    assert "exact_match" in one.grader["name"]
    assert len({line["item_id"] for line in one.samples()}) == 4


def test_older_details_of_lighteval(tmp_path):
    import pyarrow as pa
    from pyarrow.parquet import write_table

    rows = [{"example": f"q{i}", "full_prompt": f"Q: q{i}", "gold": "1", "metrics": {"em": float(i % 2), "f1": 0.3}} for i in range(4)]  # fmt: skip
    file = tmp_path / "details_lighteval|gsm8k|5_2024-01-01T00-00-00.0.parquet"
    write_table(pa.Table.from_pylist(rows), file)
    (one,) = read(file, ["em"])
    assert (one.benchmark, one.accuracy["value"], one.prompt_style) == ("lighteval|gsm8k|5", 0.5, "5-shot")


def test_which_of_several_scores_is_the_readers_choice(theirs, tmp_path, capsys):
    """As of minerva_math: what the string says and what Math-Verify says differ by far, and neither is taken unasked."""
    files = []
    for side, right in (("a", 1), ("b", 5)):
        file = tmp_path / side / "samples_minerva.jsonl"
        file.parent.mkdir()
        rows = [row(doc_id=i, doc={"q": i}, exact_match=0, math_verify=int(i < right), bleu=44.0) for i in range(9)]
        for one in rows:
            del one["acc"]
        file.write_text("".join(json.dumps(r) + "\n" for r in rows))
        files.append(str(file))

    def told(*choice):
        capsys.readouterr()
        code = main(["compare", *files, *choice])
        err = capsys.readouterr().err
        assert err.count("\n") == (code == 2)
        return code, err

    code, err = told()
    assert code == 2
    assert "2 metrics that could be its score ('exact_match', 'math_verify')" in err
    assert "--metric" in err
    assert told("--metric", "math_verify")[0] == 0
    (one,) = json.loads((tmp_path / "b" / "comparison.json").read_text())["comparisons"]
    assert (one["value_a"], one["value_b"]) == (pytest.approx(1 / 9), pytest.approx(5 / 9))
    assert told("--metric", "exact_match")[0] == 0
    (one,) = json.loads((tmp_path / "b" / "comparison.json").read_text())["comparisons"]
    assert one["difference"] == 0
    for wrong in ("bleu", "em"):
        code, err = told("--metric", wrong)
        assert code == 2
        assert f"no metric {wrong} that is between 0 and 1 in every row; it has 'exact_match', 'math_verify'" in err
    # the first that a file has, so that tasks with other scores can be read in one call
    assert told("--metric", "em", "--metric", "math_verify")[0] == 0
    # a folder of lighteval's asks in the same way, and has the names to choose from
    folders = [str(theirs / f"lighteval-{number}") for number in (1, 2)]
    assert main(["compare", *folders]) == 2
    assert "'avg@n:n=2'" in capsys.readouterr().err


def test_one_score_needs_no_choice_but_holds_to_one(theirs, tmp_path):
    file = tmp_path / "samples_x.jsonl"
    file.write_text(json.dumps(row()) + "\n")
    assert read(file)[0].grader["name"] == read(file, ["acc"])[0].grader["name"]
    with pytest.raises(Mistake, match="no metric em"):
        read(file, ["em"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no rows"),
        ('{"a": 1}\n', 'line 1: no column "doc_id"'),
        (json.dumps(row(acc=7.0)) + "\n", "no metric that is between 0 and 1"),
        (json.dumps(row(acc="yes")) + "\n", "no metric that is between 0 and 1"),
        (json.dumps(row()) + "\n" + json.dumps(row(doc_id=1, acc=None)) + "\n", "no metric"),
        ("[1]\n", "line 1"),
        ("{\n", "line 1"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, text, said):
    file = tmp_path / "samples_x.jsonl"
    file.write_text(text)
    with pytest.raises(Mistake) as caught:
        read(file)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert main(["compare", str(file), str(file)]) == 2


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=6)
values = st.recursive(
    leaves, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=4), x, max_size=3), max_leaves=5
)
quick = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("any")


@quick
@example("metrics", [["acc"], {}, "acc"])
@example("doc", [10**400])
@given(st.sampled_from([*row(), "metrics", "doc_hash", "prompt_hash"]), values)
def test_any_value_for_any_key_is_read_or_one_line(folder, key, value):
    file = folder / "samples_x.jsonl"
    rows = [row(doc_id=i, doc={"q": i}, metrics=["acc"]) for i in range(3)]
    rows[1][key] = value
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    try:
        for one in read(file):
            compare(one, one)
    except Mistake as mistake:
        assert len(str(mistake)) < 2000  # noqa: PT017


@quick
@example(b'{"doc_id": 0, "target": 1, "filter": "", "acc": 1, "doc": ' + b"[" * 500 + b"]" * 500 + b"}")
@given(st.binary(max_size=80))
def test_any_bytes_are_one_line(folder, content):
    for name in ("samples_y.jsonl", "details_y.parquet"):
        (folder / name).write_bytes(content)
        with pytest.raises(Mistake):
            read(folder / name)


@quick
@given(values)
def test_any_results_beside_the_samples(folder, value):
    date = "2026-01-01T00-00-00.0"
    file = folder / f"samples_z_{date}.jsonl"
    file.write_text(json.dumps(row()) + "\n")
    for told in (value, {"config": value, "versions": value, "n-shot": value, "model_name": value}):
        (folder / f"results_{date}.json").write_text(json.dumps(told))
        (one,) = read(file)
        assert one.benchmark == "z"
