"""A file as a benchmark: how answers are judged, how YourBench's table is read, and what is refused in one line."""

import json

import pytest

from posttrain.errors import Mistake
from posttrain.evaluation import find_benchmark
from posttrain.evaluation.benchmarks.own import kind_of, same_words

TEXT = (
    "The observatory on Mount Hale was opened in 2022 after nine years of work. Its mirror is made of 412 hexagonal "
    "segments, each of which can be moved by three motors."
)
HALE = "The observatory on Mount Hale was opened in 2022"


def own(**changes):
    row = {"format": "posttrain-benchmark-1", "question": "When was it opened?", "answer": "2022", "kind": "number"}
    return row | {"citations": [], "document": "a.txt", "cluster": "a.txt"} | changes


def table(**changes):
    row = {
        "question": "When was the observatory on Mount Hale opened?",
        "ground_truth_answer": "2022",
        "choices": ["2022"],
        "gold": [0],
        "citations": [HALE],
        "chunks": [TEXT],
        "sources": [{"document_id": "doc-1", "chunk_id": "doc-1_0"}],
        "document_ids": ["doc-1"],
        "kind": "single_hop",
        "estimated_difficulty": 5,
        "question_generating_model": "writer-7b",
    }
    return row | changes


def write(folder, *rows, name="mine.jsonl"):
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def verdicts(task, problem, *texts):
    return [v.verdict.value for v in task.judge([problem] * len(texts), texts)]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("412", "number"), ("1,234.5", "number"), ("-5 °C", "number"), ("45%", "number"), ("$12", "number"),
        ("12 km", "number"), ("3.5 million", "words"), ("5 pm", "words"), ("12 March", "words"), ("3rd", "words"),
        ("350 BC", "words"), ("12k", "words"), ("nine", "words"), ("Ann Lee", "words"), ("2022-03-01", "words"),
        ("1 of 2", "words"), ("7 may", "words"),
    ],
)  # fmt: skip
def test_what_is_judged_as_a_number(answer, kind):
    assert kind_of(answer) == kind


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("Ann Lee", "ann  lee.", True),
        ("The Hague", "Hague", True),
        ("12 March 1998", "12 march, 1998", True),
        ("São Tomé", "Sao Tome", True),
        ("well-known", "well known", True),
        ("1,200 boats", "1200 boats", True),
        ("Ann Lee", "Lee Ann", False),
        ("Ann Lee", "Ann", False),
        ("3.5 million", "3.5", False),
        ("-5 to 3", "5 to 3", False),
        ("C++", "C", False),
        ("1.5 mm", "15 mm", False),
        ("", "the", False),
    ],
)
def test_the_same_words(a, b, same):
    assert same_words(a, b) is same
    assert same_words(b, a) is same


def test_a_number_goes_through_the_grader(tmp_path):
    task = find_benchmark(write(tmp_path, own(answer=1234)))
    (problem,) = task.load()
    assert task.name == "mine"
    assert (problem.gold, problem.cluster) == ("1234", "a.txt")
    right = [r"\boxed{1,234}", "The answer is 1234.", r"\boxed{1234.0}"]
    assert verdicts(task, problem, *right, r"\boxed{1235}", "I really could not say what it was, sorry.") == [
        "RIGHT"
    ] * 3 + ["WRONG", "NONE"]


def test_multiple_choice_by_letter_or_text(tmp_path):
    row = own(question="Which town?", answer="Rome", kind="choice", choices=["Paris", "Rome", "B flat"], gold=[1])
    task = find_benchmark(write(tmp_path, row))
    (problem,) = task.load()
    assert problem.gold == "B"
    assert problem.question.startswith("Which town?\n\n(A) Paris\n(B) Rome\n(C) B flat\n")
    right = [r"\boxed{B}", r"\boxed{\text{(B)}}", r"\boxed{B. Rome}", r"\boxed{rome}", "The answer is (B)."]
    assert verdicts(task, problem, *right) == ["RIGHT"] * 5
    wrong = [r"\boxed{A}", r"\boxed{B. Paris}", r"\boxed{B flat}", r"\boxed{A, B}", r"\boxed{2}", r"\boxed{D}"]
    assert verdicts(task, problem, *wrong, "I really could not say what it was, sorry.") == ["WRONG"] * 6 + ["NONE"]


def test_words_and_the_note_that_says_how(tmp_path):
    row = own(answer="Ann Lee", kind="words", generator={"model": "writer-7b"}, weight=3)
    task = find_benchmark(write(tmp_path, row, own(question="Other?")))
    problem, other = task.load()
    said = [r"\boxed{\text{ann lee}}", "So the answer is Ann Lee.", r"\boxed{Ann~Lee}"]
    assert verdicts(task, problem, *said) == ["RIGHT"] * 3
    assert verdicts(
        task, problem, r"\boxed{Ann}", r"\boxed{not Ann Lee}", "I really could not say, sorry, who it was."
    ) == ["WRONG", "WRONG", "NONE"]
    (found,) = task.judge([problem], [r"\boxed{\text{ann lee}}"])
    assert (found.strict.value, found.rule) == ("RIGHT", "words")
    words, writer, weight = task.notes([problem, other])
    assert words.startswith("1 of 2 answers are words")
    assert "writer-7b" in writer
    assert weight.startswith("near-duplicates are merged in 1 of the questions")
    mixed = task.judge([problem, other, problem], [r"\boxed{Ann Lee}", r"\boxed{2022}", r"\boxed{Bo}"])
    assert [v.verdict.value for v in mixed] == ["RIGHT", "RIGHT", "WRONG"]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "no rows"),
        ([{"problem": "x", "answer": 1}], "neither a file of `posttrain benchmark build`"),
        ([own(), {"problem": "x"}], 'line 2: no column "format"'),
        ([own(), own(kind="maths")], 'line 2: column "kind"'),
        ([own(kind="choice", choices=["a"], gold=[0])], 'line 1: column "choices"'),
        ([own(kind="choice", choices=["a", "b"], gold=[2])], 'line 1: column "gold"'),
        ([own(kind="choice", choices=["a", "b"])], 'line 1: no column "gold"'),
        ([own(question=" ")], 'line 1: column "question"'),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, rows, told):
    with pytest.raises(Mistake) as caught:
        find_benchmark(write(tmp_path, *rows)).load()
    assert told in str(caught.value)


def test_no_such_file(tmp_path):
    with pytest.raises(Mistake, match="No such file"):
        find_benchmark(str(tmp_path / "missing.jsonl"))


# -- YourBench's table


def rows_of_a_table():
    choice = {"choices": ["(A) 310", "(B) 412", "(C) 96"], "gold": [1], "ground_truth_answer": "B"}
    mirror = {"question": "How many segments has the mirror of Mount Hale?", "citations": ["mirror is made of 412 hexagonal segments"]}  # fmt: skip
    return [
        table(),
        table(gold="2022", choices=None, question="In which year could astronomers first use Mount Hale?"),
        table(**mirror, **choice),
        table(
            citations=[HALE.replace("2022", "2023")], ground_truth_answer="2023", question="Year of opening of Hale?"
        ),
        table(citations=[]),
        table(citations=["the"]),
        table(question="When was the observatory opened on Mount Hale?"),
        table(**mirror | {"question": "Segments?"}, **choice | {"ground_truth_answer": "A"}),
        table(citations=["Penguins huddle to keep warm during the polar night."]),
    ]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_the_table_passes_the_gates_or_says_why_not(tmp_path, kind):
    rows = rows_of_a_table()
    if kind == "jsonl":
        path = write(tmp_path, *rows)
    else:
        import pyarrow as pa
        from pyarrow import parquet

        for row in rows:  # a column has one type there
            row["gold"] = row["gold"] if isinstance(row["gold"], list) else None
        path = str(tmp_path / "mine.parquet")
        parquet.write_table(pa.Table.from_pylist(rows), path)
    task = find_benchmark(path)
    problems = task.load()
    assert [p.gold for p in problems] == ["2022", "2022", "B"]
    assert [p.columns["kind"] for p in problems] == ["number", "number", "choice"]
    assert problems[2].columns["choices"] == ["310", "412", "96"]
    assert {p.cluster for p in problems} == {"doc-1"}
    (citation,) = problems[0].columns["citations"]
    assert TEXT[citation["start"] : citation["end"]] == HALE
    assert problems[0].columns["weight"] == 2
    left_out, *_ = task.notes(problems)
    assert left_out.startswith("6 of the 9 rows of mine.")
    for reason in ("a number of the citation is not in the text: 1", "no citation: 1", "citation too short: 1",
                   "near-duplicate: 1", "gold and answer differ: 1", "citation not in the text: 1"):  # fmt: skip
        assert reason in left_out
    assert len(task.load(limit=2)) == 2


def test_unreadable_difficulty_is_none_not_five(tmp_path):
    (problem,) = find_benchmark(write(tmp_path, table(estimated_difficulty="hard"))).load()
    assert "difficulty" not in problem.columns


def test_a_table_without_chunks_is_one_line(tmp_path):
    row = table()
    del row["chunks"]
    with pytest.raises(Mistake, match='no column "chunks"'):
        find_benchmark(write(tmp_path, row)).load()
    with pytest.raises(Mistake, match="a list of texts"):
        find_benchmark(write(tmp_path, table(chunks=[None]))).load()
