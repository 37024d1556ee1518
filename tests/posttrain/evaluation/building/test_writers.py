"""Questions that need several chunks, and several writers in one build."""

import json

import pytest

from posttrain.cli import main
from posttrain.errors import Mistake
from posttrain.evaluation.building import gates
from posttrain.evaluation.building.build import build
from posttrain.evaluation.building.chunks import Chunk
from posttrain.evaluation.building.gates import Passed, Refused, check
from posttrain.evaluation.building.journal import Reply
from posttrain.evaluation.building.plan import Plan
from posttrain.evaluation.building.questions import Draft
from posttrain.evaluation.building.report import Files
from posttrain.evaluation.building.wording import CHOICE, OPEN, Wishes, messages

HALE = "The observatory on Mount Hale was opened in 2022 after nine years of work. Ann Lee became its first director."
PIKE = "The observatory on Pike Hill was opened in 1987 after two years of work. Bo Ray became its first director."
OPENED = ["The observatory on Mount Hale was opened in 2022", "The observatory on Pike Hill was opened in 1987"]


def two():
    return [Chunk("hale.md", 0, 0, len(HALE), 20, HALE), Chunk("pike.md", 0, 0, len(PIKE), 20, PIKE)]


def older(*citations, answer="Pike Hill"):
    return Draft("Which observatory is older, Mount Hale's or Pike Hill's?", answer, tuple(citations))


def test_each_citation_is_found_in_its_own_chunk():
    found = check(older(*OPENED), two(), several=True)
    assert isinstance(found, Passed)
    assert [place.document for place in found.places] == ["hale.md", "pike.md"]
    assert [(HALE, PIKE)[i][p.start : p.end] for i, p in enumerate(found.places)] == OPENED


def test_one_chunk_alone_is_refused():
    for cited in ([OPENED[0]], [OPENED[0], "Ann Lee became its first director"]):
        assert isinstance(check(older(*cited), two()), Passed), "it is well grounded, ..."
        assert check(older(*cited), two(), several=True) == Refused(gates.ONE_CHUNK), "... in one chunk"
    missing = check(older(OPENED[0], "The observatory on Loch Ness was closed long ago"), two(), several=True)
    assert missing.reason == gates.ABSENT


def test_a_sentence_in_the_overlap_is_no_second_hop():
    """Its first chunk is not where the other citation stands, but one chunk still holds both."""
    text = HALE + " " + PIKE
    cut = text.index("Ann Lee")
    first = Chunk("d", 0, 0, len(HALE), 20, text[: len(HALE)])
    second = Chunk("d", 1, cut, len(text), 30, text[cut:])
    cited = ["Ann Lee became its first director", OPENED[1]]
    found = check(older(*cited), [first, second])
    assert {place.chunk for place in found.places} == {"d#0", "d#1"}
    assert check(older(*cited), [first, second], several=True).reason == gates.ONE_CHUNK


def test_sentences_that_are_nearly_the_same_are_two():
    """Each is a partial match of 85 and more of the other's chunk, and word by word in its own."""
    cited = [text.split(".")[0] for text in (HALE, PIKE)]
    assert isinstance(check(older(*cited), two(), several=True), Passed)


def test_what_is_asked_for():
    system, user = (
        m["content"] for m in messages(two(), OPEN, 3, Wishes(("cause", "numeric"), (4, 7), "Write about domes."))
    )
    assert user.count("=== ") == 4
    assert user.index(HALE) < user.index(PIKE)
    for words in ("at least two from different excerpts", "write questions from 4 to 7", "cause (asks what brought",
                  '"question_type": "cause"', "rules above go first: Write about domes."):  # fmt: skip
        assert words in system
    assert "{" not in system.replace('{"question"', "")
    plain = messages(two()[0], CHOICE, 3)[0]["content"]
    assert "question_type" not in plain
    assert "\n\nWrite nothing but a JSON list" in plain
    odd = Chunk("d", 0, 0, 9, 2, "a {n} {kind} {what}")
    assert "a {n} {kind} {what}" in messages(odd, OPEN, 3)[1]["content"]


def row(question, answer, *citations, **more):
    return {"question": question, "answer": answer, "citations": list(citations), "estimated_difficulty": 4, **more}


WHEN = row("When was the observatory on Mount Hale opened?", "2022", OPENED[0], question_type="Numeric")
WHO = row("Who was the first director of the Pike Hill observatory?", "Bo Ray", "Bo Ray became its first director")
OLDER = row("Which observatory is older, the one on Mount Hale or the one on Pike Hill?", "Pike Hill", *OPENED)
LAZY = row("Who was the first director of Mount Hale?", "Ann Lee", "Ann Lee became its first director")


class Writer:
    def __init__(self, model, *rows):
        self.settings = {"model": model, "temperature": None, "max_tokens": 9}
        self.rows, self.asked = rows, []

    def ask(self, requests, done):
        for request in requests:
            self.asked.append(request.name)
            done(request, Reply(json.dumps(self.rows), "stop", self.settings["model"]))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/hale.md").write_text(HALE)
    (tmp_path / "docs/pike.md").write_text(PIKE)
    return tmp_path


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_groups_and_writers_add_up(folder):
    out = folder / "own.jsonl"
    writers = [Writer("a", WHEN, OLDER, LAZY), Writer("b", WHEN, WHO, OLDER)]
    report = build([folder / "docs"], writers, out, Plan(kinds=(OPEN,), cross_document=9))
    assert report.scopes == {"single_hop": 2, "cross_document": 1}
    assert (report.chunks, report.requests, report.replies, report.drafts) == (3, 6, 6, 18)
    rows = lines(out)
    by_question = {one["question"]: one for one in rows}
    assert len(rows) == report.kept == len(by_question) == 4
    older = by_question[OLDER["question"]]
    assert older["scope"] == "cross_document"
    assert older["documents"] == ["hale.md", "pike.md"]
    assert older["cluster"] == older["document"] == "hale.md"
    assert [chunk["id"] for chunk in older["chunks"]] == ["hale.md#0", "pike.md#0"]
    assert {one["scope"] for one in rows} == {"single_hop", "cross_document"} == set(report.kept_scopes)
    assert by_question[WHEN["question"]]["weight"] == 2, "both writers have it"
    assert by_question[WHEN["question"]]["question_type"] == "numeric"
    assert {one["generator"]["model"] for one in rows} == {"a", "b"}
    # Of each: LAZY and the others about the two chunks stand in one of them.
    assert report.dropped[gates.ONE_CHUNK] == 4
    for counts in [report, *report.writers.values()]:
        assert counts.drafts == counts.kept + sum(counts.dropped.values())
        assert counts.requests == counts.replies + sum(counts.failed.values())
    for name in ("requests", "replies", "drafts", "kept"):
        assert getattr(report, name) == sum(getattr(one, name) for one in report.writers.values())
    drops = lines(Files(out).dropped)
    assert len(drops) == sum(report.dropped.values())
    assert {one["writer"] for one in drops} == {"a", "b"}
    assert len(lines(Files(out).journal)) == 6


def test_a_further_writer_asks_only_for_itself(folder):
    out = folder / "own.jsonl"
    build([folder / "docs"], Writer("a", WHEN), out)
    again, further = Writer("a", WHEN), Writer("b", WHO)
    report = build([folder / "docs"], [again, further], out)
    assert again.asked == []
    assert len(further.asked) == 4
    assert (report.writers["a"].from_journal, report.writers["b"].from_journal) == (4, 0)


def test_one_model_twice_is_no_second_family(folder):
    with pytest.raises(Mistake, match='two writers are the model "a"'):
        build([folder / "docs"], [Writer("a"), Writer("a")], folder / "own.jsonl")


def test_two_endpoints_by_the_command(folder, faulty, capsys):
    one = faulty(lambda server, body: faulty.said(json.dumps([WHEN, OLDER])), models=("a",))
    other = faulty(lambda server, body: faulty.said(json.dumps([WHO])), models=("b",))
    out = folder / "own.jsonl"
    (folder / "wishes.txt").write_text("Write about directors.")
    command = ["benchmark", "build", str(folder / "docs"), "--model", one.url, "--model", other.url, "--out", str(out)]
    command += ["--kinds", "open", "--cross-document", "5", "--hops", "2", "--types", "factual,numeric"]
    assert main([*command, "--difficulty", "3-6", "--instructions", f"@{folder / 'wishes.txt'}"]) == 0
    told = capsys.readouterr()
    assert "6 of 6 requests" in told.err
    for words in ("2 single_hop, 1 cross_document", "by a", "by b", "of 6 drafts in 3 replies"):
        assert words in told.out
    assert all("about directors" in body["messages"][0]["content"] for body in one.asked + other.asked)
    plan = json.loads(Files(out).report.read_text())["plan"]
    assert (plan["hops"], plan["types"], plan["difficulty"]) == ([2, 2], ["factual", "numeric"], [3, 6])


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--model", "http://127.0.0.1:1", "--model-name", "a"], "--model-name: 1 for 2 times --model"),
        (["--hops", "2-x"], "--hops 2-x: two whole numbers"),
        (["--instructions", "@nowhere.txt"], "nowhere.txt: No such file"),
        (["--types", "trick"], "types: trick"),
    ],
)
def test_wrong_options_are_one_line(folder, more, told, capsys):
    command = [
        "benchmark",
        "build",
        str(folder / "docs"),
        "--model",
        "http://127.0.0.1:1",
        "--out",
        str(folder / "o.jsonl"),
    ]
    assert main([*command, *more]) == 2
    assert told in capsys.readouterr().err


def test_a_result_says_who_wrote_what(folder, scripted, tokenizer):
    """A model that knows years alone: right where "a" asked for one, wrong where "b" asked for a name."""
    from posttrain.evaluation import evaluate, find_benchmark
    from posttrain.evaluation.results import Result

    out = folder / "own.jsonl"
    plan = Plan(kinds=(OPEN,), cross_document=1)
    build([folder / "docs"], [Writer("a", WHEN, OLDER), Writer("b", WHEN, WHO)], out, plan)
    engine = scripted(lambda prompt, seed: r"\boxed{2022}")
    made = evaluate(find_benchmark(str(out)), engine, tokenizer, out_dir=folder / "e", model_name="m", progress=False)
    assert made.accuracy["value"] == pytest.approx(1 / 3)
    read = Result.read(folder / "e").parts
    assert read["by_writer"]["a"]["value"] == 0.5
    assert read["by_writer"]["b"] == {**read["by_writer"]["b"], "n": 1, "value": 0.0}
    assert read["by_scope"]["cross_document"]["value"] == 0.0
    assert read["by_scope"]["single_hop"]["value"] == 0.5
    assert read["weighted"]["value"] == pytest.approx(2 / 4), "WHEN stands for two"
    assert any("a, b: a model of one of their families" in note for note in made.notes)
