"""Another grader or another right answer: judged again, never asked again."""

import json
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest

from posttrain.errors import Mistake
from posttrain.evaluation import Benchmark, Problem, Result, evaluate
from posttrain.evaluation.provenance import digest_of
from posttrain.evaluation.regrading import regrade
from posttrain.evaluation.resuming import read_settings
from rewards.grading import GRADER, grade_many
from rollouts.records import Sampling

ROWS = [{"question": f"{i} + {i}?", "answer": 2 * i} for i in range(10)]
TOY = Benchmark(
    "toy", lambda row: Problem(row.text("question"), row.number_or_text("answer")), rows=lambda limit: ROWS
)
WARM = Sampling(temperature=1.0, max_tokens=120)


def says(prompt, seed):
    """Short and right, long and right at the end, a thought with a number in it, text that is no ASCII, nothing."""
    i = int(prompt.split("|>")[1].split(" +")[0])
    return [
        f"\\boxed{{{2 * i}}}",
        f"First \\boxed{{{2 * i + 1}}}. No, since it is the double of {i}, it has to be \\boxed{{{2 * i}}}.",
        f"<think>perhaps it is \\boxed{{7}}, or not</think>\\boxed{{{2 * i}}}",
        f"Größe über π → \\boxed{{{2 * i}}} für α β γ δ",
        "I do not know",
    ][(i + seed) % 5]


def kinder(problems, texts):
    """Another grader: one more than the gold is right too."""
    exact = grade_many([(p.gold, text) for p, text in zip(problems, texts, strict=True)])
    more = grade_many([(str(int(p.gold) + 1), text) for p, text in zip(problems, texts, strict=True)])
    return [b if b.verdict == "RIGHT" else a for a, b in zip(exact, more, strict=True)]


def run(engine, tokenizer, folder, benchmark=TOY, **changes):
    settings = {"out_dir": folder, "model_name": "toy-model", "samples": 4, "sampling": WARM, "progress": False}
    return evaluate(benchmark, engine, tokenizer, **(settings | changes))


def lines(folder, name="samples.jsonl"):
    found = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "grading_seconds")} for line in found]


@pytest.fixture
def other_grader(monkeypatch):
    def change():
        for module in ("sampling", "regrading"):
            monkeypatch.setattr(f"posttrain.evaluation.{module}.GRADER", {**GRADER, "code": "another"})

    return change


def test_another_grader_judges_again_and_asks_nothing(scripted, tokenizer, tmp_path, other_grader, capsys):
    first = run(scripted(says), tokenizer, tmp_path / "a")
    old = (tmp_path / "a" / "samples.jsonl").read_bytes()
    other_grader()
    task = replace(TOY, judge=kinder)
    engine = scripted(says)
    capsys.readouterr()
    second = run(engine, tokenizer, tmp_path / "a", task)
    assert engine.asked == []
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "40 samples were judged again" in said[0]
    fresh = run(scripted(says), tokenizer, tmp_path / "fresh", task)
    assert (second.metrics, second.budgets, second.curves) == (fresh.metrics, fresh.budgets, fresh.curves)
    assert lines(tmp_path / "a") == lines(tmp_path / "fresh")
    assert second.settings == fresh.settings != first.settings
    assert second.budgets[0]["accuracy"] != first.budgets[0]["accuracy"], "cuts are judged again too"
    (aside,) = (tmp_path / "a").glob("samples-*.jsonl")
    assert aside.read_bytes() == old
    changed = sum(
        a["verdict"] != b["verdict"]
        for a, b in zip(lines(tmp_path / "a"), lines(aside.parent, aside.name), strict=True)
    )
    assert any(f"{changed} verdicts changed" in note for note in second.notes)
    assert not any("earlier call" in note for note in run(scripted(says), tokenizer, tmp_path / "fresh", task).notes)


def test_a_mended_gold_is_judged_again_alone(scripted, tokenizer, tmp_path):
    run(scripted(says), tokenizer, tmp_path)
    mended = [*ROWS[:3], {"question": "3 + 3?", "answer": 8}, *ROWS[4:]]
    task = replace(TOY, rows=lambda limit: mended)
    engine = scripted(says)
    second = run(engine, tokenizer, tmp_path, task)
    assert engine.asked == []
    assert any(note.startswith("4 samples were judged again") for note in second.notes)
    assert {line["gold"] for line in lines(tmp_path) if line["prompt"][0]["content"].startswith("3 + 3")} == {"8"}
    assert second.metrics == run(scripted(says), tokenizer, tmp_path / "fresh", task).metrics
    run(engine, tokenizer, tmp_path, TOY)
    assert engine.asked == []
    assert len(list(tmp_path.glob("samples-*.jsonl"))) == 2, "what was kept aside is never written over"


def test_half_of_it_by_another_grader(scripted, tokenizer, tmp_path, other_grader):
    run(scripted(says), tokenizer, tmp_path, samples=2)
    other_grader()
    engine = scripted(says)
    second = run(engine, tokenizer, tmp_path, replace(TOY, judge=kinder))
    assert len(engine.asked) == 20, "only the samples that were not there"
    assert second.metrics == run(scripted(says), tokenizer, tmp_path / "fresh", replace(TOY, judge=kinder)).metrics
    assert {line["settings"] for line in lines(tmp_path)} == {second.settings}


def test_lines_without_their_texts_are_asked_again(scripted, tokenizer, tmp_path, other_grader):
    run(scripted(says), tokenizer, tmp_path)
    file = tmp_path / "samples.jsonl"
    old = [{k: v for k, v in json.loads(x).items() if k != "generation"} for x in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(line) + "\n" for line in old))
    engine = scripted(says)
    run(engine, tokenizer, tmp_path)
    assert engine.asked == [], "of the same settings they count"
    other_grader()
    run(engine, tokenizer, tmp_path)
    assert len(engine.asked) == 40


def test_other_settings_are_named(scripted, tokenizer, tmp_path, capsys):
    run(scripted(says), tokenizer, tmp_path)
    run(scripted(says), tokenizer, tmp_path, sampling=Sampling(temperature=0.5, max_tokens=120))
    assert "sampling.temperature: 1.0 → 0.5" in capsys.readouterr().err


def test_regrading_on_purpose(scripted, tokenizer, tmp_path, other_grader):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "toys.py").write_text(
        "from posttrain.evaluation import Benchmark, Problem\n"
        "def read(row): return Problem(row.text('question'), row.number_or_text('answer'))\n"
        "toy = Benchmark('toy', read)\n"
    )
    named = f"{tmp_path}/toys.py:toy"
    first = run(scripted(says), tokenizer, tmp_path / "a", named, path=str(rows), samples=4)
    assert read_settings(tmp_path / "a")["benchmark"] == named
    same = regrade(tmp_path / "a")
    assert same.metrics == first.metrics
    assert any("0 verdicts changed" in note for note in same.notes)
    other_grader()
    mended = tmp_path / "mended.jsonl"
    mended.write_text("".join(json.dumps(row | {"answer": row["answer"] + 1}) + "\n" for row in ROWS))
    found = regrade(tmp_path / "a", path=str(mended))
    assert digest_of(read_settings(tmp_path / "a")["settings"]) == found.settings, (
        "the folder says by whom it is judged"
    )
    found = regrade(tmp_path / "a")
    engine = scripted(says)
    whole = run(engine, tokenizer, tmp_path / "a", named, path=str(mended), samples=4)
    assert engine.asked == []
    assert whole == found, "the command itself finds it finished"
    fresh = run(engine, tokenizer, tmp_path / "fresh", named, path=str(mended), samples=4)
    assert (found.metrics, found.budgets) == (fresh.metrics, fresh.budgets)
    assert found.cost["per_correct"]["tokens"] == fresh.cost["per_correct"]["tokens"]


def test_regrading_one_that_stops_by_itself(scripted, tokenizer, tmp_path):
    first = run(scripted(says), tokenizer, tmp_path, until_interval=40)
    problems = TOY.load()
    assert first.n < len(problems)
    with pytest.raises(Mistake, match="--benchmark"):
        regrade(tmp_path)
    assert Result.read(tmp_path) == first, "a mistake leaves the folder as it is"


def test_regrading_what_cannot_be(scripted, tokenizer, tmp_path):
    with pytest.raises(Mistake, match="no result"):
        regrade(tmp_path)
    first = run(scripted(says), tokenizer, tmp_path)
    (tmp_path / "settings.json").write_text("[]")
    with pytest.raises(Mistake, match="no settings"):
        regrade(tmp_path)
    assert Result.read(tmp_path) == first


@dataclass(frozen=True)
class Later(Sampling):
    """As `Sampling` will be with a field more."""

    patience: int = 3


def test_a_field_that_sampling_is_given_later_asks_nothing_again(scripted, tokenizer, tmp_path):
    run(scripted(says), tokenizer, tmp_path)
    (tmp_path / "result.json").unlink()
    engine = scripted(says)
    run(engine, tokenizer, tmp_path, sampling=Later(temperature=1.0, max_tokens=120))
    assert engine.asked == [], "what is absent is the default"
    run(engine, tokenizer, tmp_path, sampling=Later(temperature=1.0, max_tokens=120, patience=4))
    assert len(engine.asked) == 40


def test_samples_of_another_precision_do_not_count(scripted, tokenizer, tmp_path, capsys):
    def of(dtype, shared=False):
        engine = scripted(says)
        engine.spec, engine.shared = SimpleNamespace(dtype=dtype), shared
        return engine

    run(of("float32"), tokenizer, tmp_path)
    same, server, other = of("float32"), of("bfloat16", shared=True), of("bfloat16")
    for engine in (same, server, other):
        run(engine, tokenizer, tmp_path)
    assert (len(same.asked), len(server.asked), len(other.asked)) == (0, 0, 40)
    assert "dtype: None → bfloat16" in capsys.readouterr().err
