"""What makes two evaluations comparable, and what is said when they are not."""

import json
from pathlib import Path
from runpy import run_path

import pytest

from posttrain.errors import Mistake
from posttrain.evaluation.compare import compare
from posttrain.evaluation.results import Result

write = run_path(str(Path(__file__).with_name("recorded.py")))["evaluation"]
SCORES = {f"toy/{i}": [float(i % 2), 1.0] for i in range(10)}


def test_results_on_disk(tmp_path):
    a = write(tmp_path / "a", SCORES)
    b = write(tmp_path / "b", {i: [1.0, 1.0] for i in SCORES})
    found = compare(a, b / "result.json")
    assert found.difference == pytest.approx(0.25)
    assert (found.better, found.worse, found.a, found.b) == (5, 0, "a", "b")
    assert found.notes == []
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("scores", "changes", "says"),
    [
        ({"toy/1": [1.0]}, {}, "not the same problems (1 shared, 9 only in the first, 0 only in the second)"),
        (SCORES, {"prompt_hash": "q"}, "not the same prompt (boxed p, boxed q)"),
        (
            SCORES,
            {"grader": {"name": "g", "version": "2"}},
            "not the same grader (g 1 against g 2; they differ in version",
        ),
        (SCORES, {"grader": {"name": "g", "version": "1", "code": "ab"}}, "(g 1 against g 1 ab; they differ in code"),
        (SCORES, {"adaptive": {"ability": 0.1}}, "problems that were chosen by the answers so far"),
    ],
)
def test_unlike_results_are_refused_in_one_line(tmp_path, scores, changes, says):
    a, b = write(tmp_path / "a", SCORES), write(tmp_path / "b", scores, **changes)
    with pytest.raises(Mistake) as caught:
        compare(a, b)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert any(says in note for note in compare(a, b, anyway=True).notes)


def test_other_settings_are_said_but_not_refused(tmp_path):
    a = write(tmp_path / "a", SCORES)
    b = write(tmp_path / "b", SCORES, sampling={"temperature": 0.6})
    assert compare(a, b).notes == ["sampling.temperature: 1.0 against 0.6"]
    left, right = Result.read(a), Result.read(b)
    left.dtype, right.dtype = "float32", "bfloat16"
    assert "dtype: float32 against bfloat16" in compare(left, right).notes
    right.dtype = None
    assert compare(left, right).notes == ["sampling.temperature: 1.0 against 0.6"], "a server does not say"


def test_truncated_samples_are_said(tmp_path):
    a = write(tmp_path / "a", SCORES, truncated=0.02)
    b = write(tmp_path / "b", SCORES, truncated=0.25)
    (note,) = compare(a, b).notes
    assert note.startswith("2.0% against 25.0% of the samples ended at the token limit")
    assert compare(a, a).notes == []


def test_other_benchmarks_and_missing_files(tmp_path):
    a = write(tmp_path / "a", SCORES)
    with pytest.raises(Mistake, match="two benchmarks"):
        compare(a, write(tmp_path / "b", SCORES, benchmark="other"), anyway=True)
    with pytest.raises(Mistake, match=r"no result\.json here"):
        compare(a, tmp_path / "nothing")
    (a / "samples.jsonl").unlink()
    with pytest.raises(Mistake, match="cannot be compared"):
        compare(a, a)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "result.json").write_text('{"benchmark": 1}')
    with pytest.raises(Mistake, match="not a result"):
        compare(a, tmp_path / "c")
