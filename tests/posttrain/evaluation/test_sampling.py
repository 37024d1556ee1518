"""An evaluation from the first request to the table."""

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from posttrain.errors import Mistake
from posttrain.evaluation import Benchmark, Problem, Result, evaluate
from posttrain.evaluation.compare import compare
from posttrain.evaluation.run import compare_command, evaluate_command
from posttrain.evaluation.sampling import grown
from posttrain.evaluation.summary import notes
from rollouts.records import Completion, Sampling

TOY = Benchmark(
    "toy",
    lambda row: Problem(row.text("question"), row.number_or_text("answer")),
    rows=lambda limit: [{"question": f"{i} + {i}?", "answer": 2 * i} for i in range(10)],
    size=10,
)
WARM = Sampling(temperature=1.0, max_tokens=200)


def number(prompt):
    return int(prompt.split("|>")[1].split(" +")[0])


def clever(prompt, seed):
    """Right on even numbers, by chance on odd ones, says nothing on 9."""
    i = number(prompt)
    if i == 9:
        return "I do not know."
    return f"So \\boxed{{{2 * i if i % 2 == 0 or seed % 2 else 1000 + seed % 3}}}."


def lines(folder):
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def run(engine, tokenizer, folder, **changes):
    settings = {"out_dir": folder, "model_name": "toy-model", "samples": 4, "sampling": WARM, "progress": False}
    return evaluate(TOY, engine, tokenizer, **(settings | changes))


def test_samples_and_result(scripted, tokenizer, tmp_path):
    engine = scripted(clever)
    result = run(engine, tokenizer, tmp_path, when="before", chunk=7, seed=3)
    samples = lines(tmp_path)
    assert len(samples) == len(engine.asked) == 40
    assert len({s["seed"] for s in samples}) == 40, "two samples never share a stream"
    first = samples[0]
    assert first["prompt"][0]["content"].startswith("0 + 0?")
    assert first["completion"] == "So \\boxed{0}."
    assert first["completion_tokens"] == len("So \\boxed{0}.") + 1
    assert first["prompt_tokens"] == len(
        tokenizer.apply_chat_template(first["prompt"], add_generation_prompt=True)["input_ids"]
    )
    assert (first["gold"], first["verdict"], first["score"], first["finish"]) == ("0", "RIGHT", 1.0, "stop")
    expected = {
        (i, s["sample"]): float(i != 9 and (i % 2 == 0 or s["seed"] % 2 == 1))
        for s in samples
        for i in [number("|>" + s["prompt"][0]["content"])]
    }
    found = {(number("|>" + s["prompt"][0]["content"]), s["sample"]): s["score"] for s in samples}
    assert found == expected
    assert result.accuracy["value"] == pytest.approx(sum(expected.values()) / 40)
    assert result.no_answer == pytest.approx(0.1)
    assert (result.n, result.k, result.when, result.truncated, result.timeouts) == (10, 4, "before", 0.0, 0.0)
    assert set(result.metrics) == {"accuracy", "avg@4", "pass@1", "pass@2", "pass@4", "maj@4"}
    assert result.tokens == sum(s["completion_tokens"] for s in samples)
    written = json.loads((tmp_path / "result.json").read_text())
    for key in ("benchmark", "when", "n", "k", "model", "adapter", "engine", "sampling", "seed", "prompt_style", "prompt_hash",
                "grader", "metrics", "truncated", "no_answer", "timeouts", "tokens", "seconds", "created", "versions"):  # fmt: skip
        assert key in written
    assert Result.read(tmp_path) == result
    assert Result.read(tmp_path / "result.json").samples() == samples


def test_the_same_seed_gives_the_same_and_another_other_streams(scripted, tokenizer, tmp_path):
    one, two, three = (scripted(clever) for _ in range(3))
    run(one, tokenizer, tmp_path / "1", chunk=3)
    run(two, tokenizer, tmp_path / "2", limit=5)
    run(three, tokenizer, tmp_path / "3", seed=1)
    assert one.asked[:20] == two.asked, "neither chunk nor limit changes a stream"
    assert not {s for _, s in one.asked} & {s for _, s in three.asked}


@pytest.mark.parametrize(("trainers_own", "sizes"), [(False, [256, 512, 432]), (True, [256, 256, 256, 256, 176])])
def test_a_quick_engine_that_schedules_itself_gets_more_at_once(
    scripted, tokenizer, tmp_path, monkeypatch, trainers_own, sizes
):
    monkeypatch.setattr("posttrain.evaluation.sampling.QUICK", float("inf"))
    many = Benchmark(
        "many", TOY.read, rows=lambda limit: [{"question": f"{i} + {i}?", "answer": 2 * i} for i in range(1200)]
    )
    engine = scripted(lambda prompt, seed: "\\boxed{0}")
    engine.same_numerics = trainers_own
    answer, asked = engine.generate, []
    engine.generate = lambda ids, *rest: asked.append(len(ids)) or answer(ids, *rest)
    evaluate(many, engine, tokenizer, out_dir=tmp_path, model_name="m", sampling=Sampling(0.0, max_tokens=20))
    assert asked == sizes


def test_a_slow_engine_does_not_get_more():
    assert [grown(256, 29.0), grown(256, 31.0), grown(4096, 1.0)] == [512, 256, 4096]


def test_majority_merges_what_the_grader_holds_equal(scripted, tokenizer, tmp_path):
    task = Benchmark(
        "toy", TOY.read, rows=lambda limit: [{"question": "1 + 1?", "answer": 2}, {"question": "2 + 2?", "answer": 4}]
    )
    said = iter([r"\frac{1}{2}", "0.5", "2", "2", "7", "4", "4", "1"])
    engine = scripted(lambda prompt, seed: f"\\boxed{{{next(said)}}}")
    result = evaluate(task, engine, tokenizer, out_dir=tmp_path, model_name="m", samples=4, sampling=WARM)
    assert result.metrics["maj@4"]["value"] == pytest.approx((0.5 + 1.0) / 2), (
        "a tie of two answers, then a clear right one"
    )


def test_cut_answers_are_counted_and_said(scripted, tokenizer, tmp_path):
    engine = scripted(lambda prompt, seed: "Let me think about that for a very long time, then \\boxed{0}")
    result = run(engine, tokenizer, tmp_path, sampling=Sampling(temperature=1.0, max_tokens=20))
    assert result.truncated == 1.0
    assert result.accuracy["value"] == 0.0
    assert result.accuracy["high"] > 0.1, "0 of 10 is not known to be 0"
    assert any("token limit" in note for note in result.notes)


def test_a_number_in_a_thought_is_no_answer(scripted, tokenizer, tmp_path):
    engine = scripted(lambda prompt, seed: f"<think>\\boxed{{{2 * number(prompt)}}}, or not")
    assert run(engine, tokenizer, tmp_path / "open").no_answer == 1.0
    engine = scripted(lambda prompt, seed: f"<think>\\boxed{{77}}</think> \\boxed{{{2 * number(prompt)}}}")
    assert run(engine, tokenizer, tmp_path / "closed").accuracy["value"] == 1.0


def test_thinking_marks_that_are_special_tokens(tmp_path):
    from posttrain.miniature.tokenizer import build

    tokenizer = build()
    tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]"]})
    begin, end = tokenizer.convert_tokens_to_ids(["[THINK]", "[/THINK]"])

    class Thinker:
        version = 0

        def generate(self, prompt_ids, sampling, seeds):
            ids = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
            whole = [begin, *ids("\\boxed{77}"), end, *ids("\\boxed{0}"), tokenizer.eos_token_id]
            cut = [begin, *ids("\\boxed{2}")]
            return [Completion(one, [0.0] * len(one), "stop", 0) for one in [whole, cut]]

    result = run(Thinker(), tokenizer, tmp_path, samples=1, limit=2)
    assert [s["extracted"] for s in result.samples()] == ["0", None]


def test_a_second_call_asks_nothing_and_more_samples_only_what_is_missing(scripted, tokenizer, tmp_path):
    first = run(scripted(clever), tokenizer, tmp_path, samples=2, limit=5)
    again = scripted(clever)
    second = run(again, tokenizer, tmp_path, samples=2, limit=5)
    assert again.asked == []
    assert second == first, "what is whole is left as it is"
    more = scripted(clever)
    third = run(more, tokenizer, tmp_path, samples=4)
    assert len(more.asked) == 40 - 10
    assert any("10 of 40 samples were there from an earlier call" in note for note in third.notes)
    whole = run(scripted(clever), tokenizer, tmp_path / "whole", samples=4)
    assert third.metrics == whole.metrics
    fewer = run(scripted(clever), tokenizer, tmp_path, samples=2, limit=5)
    assert fewer.metrics == first.metrics, "samples beyond those asked for are kept but not counted"


@pytest.mark.parametrize("name", ["result.json", "samples.jsonl"])
@pytest.mark.parametrize("content", [None, b"", b"{}"])
def test_a_result_that_does_not_fit_its_samples_is_made_again(scripted, tokenizer, tmp_path, name, content):
    first = run(scripted(clever), tokenizer, tmp_path, samples=2)
    (tmp_path / name).unlink() if content is None else (tmp_path / name).write_bytes(content)
    second = run(scripted(clever), tokenizer, tmp_path, samples=2)
    assert second.metrics == first.metrics
    assert len(second.samples()) == 20
    assert Result.read(tmp_path).metrics == first.metrics


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"model_name": "other"},
        {"sampling": Sampling(max_tokens=100)},
        {"style": "question"},
        {"adapter": "x"},
    ],
)
def test_other_settings_start_anew_and_keep_the_old_samples_aside(scripted, tokenizer, tmp_path, change):
    run(scripted(clever), tokenizer, tmp_path)
    engine = scripted(clever)
    run(engine, tokenizer, tmp_path, **change)
    assert len(engine.asked) == 40
    assert len(lines(tmp_path)) == 40
    (aside,) = tmp_path.glob("samples-*.jsonl")
    assert len(aside.read_text().splitlines()) == 40


def test_another_policy_version_starts_anew(scripted, tokenizer, tmp_path):
    run(scripted(clever), tokenizer, tmp_path)
    engine = scripted(clever)
    engine.version = 5
    run(engine, tokenizer, tmp_path)
    assert len(engine.asked) == 40
    assert {s["version"] for s in lines(tmp_path)} == {5}


def test_new_weights_at_the_same_place_start_anew(scripted, tokenizer, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"one")
    run(scripted(clever), tokenizer, tmp_path / "out", model_name=str(model))
    (model / "model.safetensors").write_bytes(b"other")
    engine = scripted(clever)
    run(engine, tokenizer, tmp_path / "out", model_name=str(model))
    assert len(engine.asked) == 40


def test_the_same_weights_saved_again_go_on(scripted, tokenizer, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for asked in (40, 0):
        (adapter / "adapter_model.safetensors").write_bytes(b"one")
        os.utime(adapter / "adapter_model.safetensors", (asked, asked))
        engine = scripted(clever)
        run(engine, tokenizer, tmp_path / "out", adapter=str(adapter))
        assert len(engine.asked) == asked


KILLED = """
import os, sys
sys.path[:0] = {paths!r}
from conftest import Scripted
from test_sampling import TOY, WARM, clever
from posttrain.evaluation import evaluate
from posttrain.miniature.tokenizer import build

class Dies(Scripted):
    calls = 0
    def generate(self, *args):
        Dies.calls += 1
        if Dies.calls == 4:
            with open({out!r} + "/samples.jsonl", "a") as file:  # as if the kill came in the middle of a write
                file.write('{{"item_id": "toy/half a li')
            os._exit(9)
        return super().generate(*args)

tokenizer = build()
evaluate(TOY, Dies(tokenizer, clever), tokenizer, out_dir={out!r}, model_name="toy-model", samples=4, sampling=WARM, engine_name="e", chunk=6)
"""


def test_killed_in_the_middle_it_goes_on_without_asking_twice(scripted, tokenizer, tmp_path):
    here = Path(__file__).parent
    script = KILLED.format(paths=[str(here), str(here.parents[2])], out=str(tmp_path))
    dead = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=300)
    assert dead.returncode == 9, dead.stderr
    assert not (tmp_path / "result.json").exists()
    engine = scripted(clever)
    result = run(engine, tokenizer, tmp_path, engine_name="e")
    assert len(engine.asked) == 40 - 3 * 6
    asked = [(s["item_id"], s["sample"]) for s in lines(tmp_path)]
    assert len(asked) == len(set(asked)) == 40
    assert result.metrics == run(scripted(clever), tokenizer, tmp_path / "whole", engine_name="e").metrics


def test_settings_that_make_no_sense(scripted, tokenizer, tmp_path):
    engine = scripted(clever)
    for change, says in (
        ({"sampling": Sampling(temperature=0.0)}, "greedy samples"),
        ({"samples": 0}, "samples: at least 1"),
        ({"limit": 0}, "limit: at least 1"),
        ({"chunk": 0}, "chunk: at least 1"),
        ({"style": "nice"}, "not known"),
    ):
        with pytest.raises(Mistake, match=says):
            run(engine, tokenizer, tmp_path, **change)
    assert engine.asked == []
    assert list(tmp_path.iterdir()) == []


def test_a_bar_with_a_running_estimate(scripted, tokenizer, tmp_path, capsys):
    run(scripted(clever), tokenizer, tmp_path, progress=True)
    assert "toy" in capsys.readouterr().err


def test_tables(scripted, tokenizer, tmp_path, capsys):
    (tmp_path / "riddles.py").write_text(
        "from posttrain.evaluation import Benchmark, Problem\n"
        "riddles = Benchmark('riddles', lambda row: Problem(row.text('q'), row.text('a')),\n"
        "    rows=lambda limit: [{'q': f'{i} + {i}?', 'a': str(2 * i)} for i in range(10)])\n"
    )
    closed = []

    def make(say):
        engine = scripted(say)
        engine.close = lambda: closed.append(1)
        return engine

    common = {
        "benchmark": f"{tmp_path}/riddles.py:riddles",
        "tokenizer": tokenizer,
        "samples": 2,
        "temperature": 1.0,
        "max_tokens": 99,
    }
    a = evaluate_command(model="[bold]a", engine=lambda: make(clever), out=tmp_path / "a", **common)
    right = lambda prompt, seed: f"\\boxed{{{2 * number(prompt)}}}"  # noqa: E731
    b = evaluate_command(model="b", engine=make(right), out=tmp_path / "b", **common)
    assert closed == [1], "an engine that was made is closed, one that was given is not"
    said = capsys.readouterr().out
    for word in (
        "riddles",
        "[bold]a",
        "accuracy",
        "pass@2",
        "maj@2",
        "truncated",
        "no answer",
        "tokens",
        "seconds",
        "Wilson",
    ):
        assert word in said
    assert f"{a.accuracy['value'] * 100:.1f}%" in said
    assert b.accuracy["value"] == 1.0
    ((_, found),) = compare_command(tmp_path / "a", tmp_path / "b").found
    said = capsys.readouterr().out
    for word in ("paired", "B - A", "could have seen", found.verdict):
        assert word in said
    assert found == compare(a, b)
    assert found.difference == pytest.approx(1 - a.accuracy["value"])


def test_an_answer_that_filled_the_context_is_told_from_one_at_the_limit(scripted, tokenizer, tmp_path):
    class Small(type(scripted(clever))):
        def generate(self, prompt_ids, sampling, seeds):
            return super().generate(prompt_ids, replace(sampling, max_tokens=9), seeds)

    found = run(Small(tokenizer, clever), tokenizer, tmp_path / "a", sampling=replace(WARM, max_tokens=900))
    assert found.truncated == 1.0
    assert any("context of" in note and "before 900 tokens" in note for note in found.notes)
    limit = run(scripted(clever), tokenizer, tmp_path / "b", sampling=replace(WARM, max_tokens=9))
    assert limit.truncated == 1.0
    assert not any("context of" in note for note in limit.notes)


@pytest.mark.parametrize(("count", "words"), [(1, "1 sample"), (2, "2 samples")])
def test_notes_count_samples(count, words):
    def line(**changes):
        return {"finish": "stop", "verdict": "WRONG", "prompt_tokens": 90, "completion_tokens": 10} | changes

    cut, lost, slow = line(finish="length"), line(finish="abort"), line(verdict="TIMEOUT")
    said = "\n".join(notes(TOY, 10, [cut, lost, slow] * count, 0, max_tokens=50))
    assert f"{words} ended where the model's context of 100 tokens was full, before 50 tokens were out" in said
    assert f"the engine gave up on {words}: " in said
    assert f"grading ran out of time on {words}, " in said
    whole = "\n".join(notes(TOY, 10, [cut] * count, 0, max_tokens=10))
    assert "context" not in whole, "cut where it was meant to be"
