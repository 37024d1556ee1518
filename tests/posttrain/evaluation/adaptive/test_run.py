"""An adaptive evaluation with an engine: what is asked, what is written, and going on after a cut."""

import json
import math

import numpy as np
import pytest

from posttrain import cli
from posttrain.errors import Mistake
from posttrain.evaluation import Benchmark, Problem, Result, evaluate
from posttrain.evaluation.adaptive.bank import Bank, Calibrated, Item, gold_digest, text_digest
from posttrain.evaluation.adaptive.calibrate import fit_command
from posttrain.evaluation.adaptive.loop import Rule, Session, replay
from posttrain.evaluation.adaptive.run import evaluate_adaptive
from posttrain.evaluation.compare import compare
from posttrain.evaluation.run import evaluate_command
from rewards.grading import GRADER
from rollouts.records import Sampling

TOY = Benchmark(
    "toy",
    lambda row: Problem(row.text("question"), row.number_or_text("answer")),
    rows=lambda limit: [{"question": f"{i} + {i}?", "answer": 2 * i} for i in range(80)],
)
PROBLEMS = TOY.load()
WARM = Sampling(temperature=1.0, max_tokens=200)


def number(prompt):
    return int(prompt.split("|>")[1].split(" +")[0])


def knows_small_numbers(prompt, seed):
    """Right with a chance of 1/2 at 50 + 50, less above."""
    i = number(prompt)
    return f"So \\boxed{{{2 * i if seed % 1009 / 1009 < 1 / (1 + math.exp((i - 50) / 15)) else 1}}}."


@pytest.fixture
def bank(tmp_path):
    """Item i is as hard as i is large."""
    draw = np.random.default_rng(0)
    a = np.exp(draw.normal(0, 0.3, 80))
    made = Bank(
        benchmark="toy",
        models=[Calibrated(name=f"m{x}", accuracy=0.5, answered=80, ability=x) for x in (-1.0, 1.0)],
        fit={"date": "2026-01-01"},
        items=[
            Item(id=p.item_id, a=float(a[i]), b=(i - 40) / 15, text=text_digest(p.question), gold=gold_digest(p.gold))
            for i, p in enumerate(PROBLEMS)
        ],
    ).write(tmp_path / "bank.json")
    return made, tmp_path / "bank.json"


def run(engine, tokenizer, bank, folder, **changes):
    settings = {"model_name": "toy-model", "sampling": WARM, "rule": Rule(20, 5), "progress": False}
    return evaluate_adaptive(TOY, engine, tokenizer, bank=bank[1], out_dir=folder, **(settings | changes))


def lines(folder):
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def test_samples_and_result(scripted, tokenizer, bank, tmp_path):
    engine = scripted(knows_small_numbers)
    result = run(engine, tokenizer, bank, tmp_path / "out", samples=2)
    samples = lines(tmp_path / "out")
    found = result.adaptive
    assert len(engine.asked) == len(samples) == 40
    assert {s["item_id"] for s in samples} == {step["item"] for step in found["trace"]}
    assert (result.n, result.k, found["items"], found["of"], found["stop"]) == (20, 2, 20, 80, "items")
    by_item = {}
    for s in samples:
        by_item.setdefault(s["item_id"], []).append(s["score"])
    assert all(step["score"] == np.mean(by_item[step["item"]]) for step in found["trace"])
    # the trace is that of the answers
    place = {p.item_id: i for i, p in enumerate(PROBLEMS)}
    again = replay(
        Session(bank[0].a, bank[0].b, Rule(20, 5), bank[0].prior, bank[0].start),
        {place[item]: float(np.mean(scores)) for item, scores in by_item.items()},
        {place[item]: 2 for item in by_item},
    )
    assert [s.ability for s in again.trace] == [s["ability"] for s in found["trace"]]
    assert found["ability"] == found["trace"][-1]["ability"]
    assert found["se"] == found["trace"][-1]["se"]
    assert found["bank"]["digest"] == bank[0].digest
    # accuracy is the predicted one
    assert result.accuracy == found["predicted"]
    everything = evaluate(TOY, scripted(knows_small_numbers), tokenizer, out_dir=tmp_path / "full", model_name="toy-model",
                          samples=2, sampling=WARM, progress=False)  # fmt: skip
    assert result.accuracy["low"] < everything.accuracy["value"] < result.accuracy["high"]
    assert set(result.metrics) == {"accuracy"}, "shares of chosen items are no estimates"
    assert Result.read(tmp_path / "out") == result
    # the requests are those of the full evaluation
    full = {(s["item_id"], s["sample"]): s["seed"] for s in lines(tmp_path / "full")}
    assert all(full[s["item_id"], s["sample"]] == s["seed"] for s in samples)
    assert samples[0]["settings"] == everything.settings


def test_what_was_cut_off_goes_on_where_it_stopped(scripted, tokenizer, bank, tmp_path):
    whole = run(scripted(knows_small_numbers), tokenizer, bank, tmp_path / "whole", samples=2)

    class Broken(Exception): ...

    class Breaks:
        def __init__(self, inner, after):
            self.inner, self.left, self.version, self.asked = inner, after, 0, inner.asked

        def generate(self, *given):
            if not self.left:
                raise Broken
            self.left -= 1
            return self.inner.generate(*given)

    first = Breaks(scripted(knows_small_numbers), 2)
    with pytest.raises(Broken):
        run(first, tokenizer, bank, tmp_path / "cut", samples=2, engine_name="Scripted")
    assert not (tmp_path / "cut" / "result.json").exists()
    file = tmp_path / "cut" / "samples.jsonl"
    kept = file.read_text().splitlines(keepends=True)
    assert len(kept) == 20
    file.write_text("".join(kept[:-3]) + kept[-3][:50])  # and the last lines did not reach the disk
    second = scripted(knows_small_numbers)
    mended = run(second, tokenizer, bank, tmp_path / "cut", samples=2)
    assert len(second.asked) == 40 - 17
    assert not set(first.asked[:17]) & set(second.asked)
    assert mended.adaptive["trace"] == whole.adaptive["trace"]
    third = scripted(knows_small_numbers)
    assert run(third, tokenizer, bank, tmp_path / "cut", samples=2) == mended
    assert third.asked == []


def test_a_larger_budget_and_a_full_evaluation_ask_only_what_is_missing(scripted, tokenizer, bank, tmp_path):
    engine = scripted(knows_small_numbers)
    small = run(engine, tokenizer, bank, tmp_path / "out")
    large = run(engine, tokenizer, bank, tmp_path / "out", rule=Rule(35, 5))
    assert len(engine.asked) == 35
    assert large.adaptive["trace"][:20] == small.adaptive["trace"]
    full = evaluate(TOY, engine, tokenizer, out_dir=tmp_path / "out", model_name="toy-model", sampling=WARM,
                    progress=False)  # fmt: skip
    assert len(engine.asked) == 80
    assert (full.n, full.adaptive) == (80, None)


def test_all_items_of_the_bank_are_no_full_evaluation(scripted, tokenizer, bank, tmp_path):
    found = run(scripted(knows_small_numbers), tokenizer, bank, tmp_path / "out", rule=Rule(80, 40))
    full = evaluate(TOY, scripted(knows_small_numbers), tokenizer, out_dir=tmp_path / "out", model_name="toy-model",
                    sampling=WARM, progress=False)  # fmt: skip
    assert full.adaptive is None
    assert found.accuracy["value"] == pytest.approx(full.accuracy["value"])


def test_the_error_asked_for_ends_it(scripted, tokenizer, bank, tmp_path):
    found = run(scripted(knows_small_numbers), tokenizer, bank, tmp_path / "out", rule=Rule(80, 5, se=0.4)).adaptive
    assert found["stop"] == "se"
    assert found["se"] < 0.4
    assert found["items"] < 60


def test_a_bank_of_something_else_is_refused_before_anything_is_asked(scripted, tokenizer, bank, tmp_path):
    engine = scripted(knows_small_numbers)
    (bank[0].model_copy(update={"benchmark": "gsm8k"})).write(bank[1])
    with pytest.raises(Mistake, match="a bank of gsm8k, not of toy"):
        run(engine, tokenizer, bank, tmp_path / "out")
    graded = bank[0].model_copy(update={"grader": {"name": "another"}})
    graded.write(bank[1])
    result = run(engine, tokenizer, bank, tmp_path / "out")
    assert any("another grader than the bank's" in note for note in result.notes)


def test_it_prints_what_it_found(scripted, tokenizer, bank, tmp_path, capsys):
    result = evaluate_command(model="toy-model", benchmark=TOY, engine=scripted(knows_small_numbers), tokenizer=tokenizer,
                              out=tmp_path / "out", temperature=1.0, max_tokens=200, bank=bank[1], rule=Rule(20, 5))  # fmt: skip
    out = " ".join(capsys.readouterr().out.split())
    assert f"{result.adaptive['ability']:+.2f}" in out
    assert "20 of 80" in out
    assert "budget is spent" in out


def test_a_model_that_the_bank_cannot_place_is_told(scripted, tokenizer, bank, tmp_path):
    hard = [item.model_copy(update={"solved": 0.0, "b": item.b + 6}) for item in bank[0].items]
    bank[0].model_copy(update={"items": hard}).write(bank[1])
    told = run(
        scripted(lambda p, s: f"\\boxed{{{2 * number(p)}}}"), tokenizer, bank, tmp_path / "a", rule=Rule(80, 20)
    ).notes
    assert any("end of the scale (+4)" in note for note in told)
    assert any("80 of the asked items were solved by no model" in note for note in told)
    assert any("all of the asked answers were right: the model is above" in note for note in told)


def test_it_is_not_paired_with_another(scripted, tokenizer, bank, tmp_path):
    run(scripted(knows_small_numbers), tokenizer, bank, tmp_path / "a")
    run(scripted(lambda prompt, seed: "\\boxed{1}"), tokenizer, bank, tmp_path / "b")
    with pytest.raises(Mistake, match="chosen by the answers so far"):
        compare(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--items", "5"], "--items belongs to --adaptive"),
        (["--bank", "b.json"], "--bank belongs to --adaptive"),
        (["--adaptive"], "--adaptive needs an item bank"),
        (["--adaptive", "--bank", "b.json", "--items", "0"], "at least 1"),
        (["--adaptive", "--bank", "nowhere.json"], "nowhere.json: no such file"),
    ],
)
def test_the_command_line_says_what_is_missing(words, said, capsys):
    code = cli.main(["evaluate", "--model", "miniature/arithmetic", "--benchmark", "arithmetic", *words])
    assert code == 2
    assert said in capsys.readouterr().err


def test_from_evaluations_to_a_bank_to_an_adaptive_evaluation(scripted, tokenizer, tmp_path):
    """Full evaluations of a few models make a bank that knows how they were made, and that judges another."""

    def knows_up_to(limit):
        def say(prompt, seed):
            i = number(prompt)
            return f"So \\boxed{{{2 * i if seed % 1009 / 1009 < 1 / (1 + math.exp((i - limit) / 8)) else 1}}}."

        return say

    def full(name, limit):
        return evaluate(TOY, scripted(knows_up_to(limit)), tokenizer, out_dir=tmp_path / name, model_name=name,
                        samples=4, sampling=WARM, progress=False)  # fmt: skip

    limits = (5, 15, 25, 35, 45, 55, 65, 75)
    known = [full(f"m{limit}", limit) for limit in limits]
    made = fit_command([r.directory for r in known], tmp_path / "bank.json", quiet=True)
    assert (made.benchmark, made.samples, made.grader, made.prompt) == ("toy", 4, GRADER, known[0].prompt_hash)
    assert [m.accuracy for m in made.models] == pytest.approx([r.accuracy["value"] for r in known])
    assert [m.ability for m in made.models] == sorted(m.ability for m in made.models)
    assert [item.gold for item in made.items] == [gold_digest(p.gold) for p in PROBLEMS]
    assert np.corrcoef(made.b, range(80))[0, 1] > 0.9
    found = [
        run(
            scripted(knows_up_to(limit)),
            tokenizer,
            (made, tmp_path / "bank.json"),
            tmp_path / f"adaptive-{limit}",
            samples=4,
        )
        for limit in (20, 40, 60)
    ]
    abilities = [result.adaptive["ability"] for result in found]
    assert abilities == sorted(abilities)
    for result, limit in zip(found, (20, 40, 60), strict=True):
        assert result.accuracy["value"] == pytest.approx(full(f"judged{limit}", limit).accuracy["value"], abs=0.06)
        assert not any("another" in note for note in result.notes)


def test_what_it_cost_and_what_all_items_would_have(scripted, tokenizer, bank, tmp_path, capsys):
    """Right answers are much longer than wrong ones here: how many are right decides what the whole bank takes."""

    def say(prompt, seed):
        said = knows_small_numbers(prompt, seed)
        return said if said.endswith("{1}.") else "word " * 10 + said

    engine = scripted(say)
    result = run(engine, tokenizer, bank, tmp_path / "out", samples=2, show=True)
    samples = lines(tmp_path / "out")
    cost, whole = result.cost, result.cost["of_full"]
    assert cost["chains"] == len(samples) == 40
    assert cost["tokens"]["output"] == sum(s["completion_tokens"] for s in samples)
    assert cost["tokens"]["prompt"] == sum(s["prompt_tokens"] for s in samples)
    assert cost["per_item"]["tokens"] == cost["tokens"]["output"] / 20
    assert set(cost["per_correct"].values()) == {None}, "half of the chosen items are right, whatever the model"
    full = evaluate(TOY, scripted(say), tokenizer, out_dir=tmp_path / "full", model_name="toy-model", samples=2,
                    sampling=WARM, progress=False).cost["tokens"]  # fmt: skip
    assert whole["items"] == 80
    right, wrong = (np.mean([s["completion_tokens"] for s in samples if s["score"] == score]) for score in (1, 0))
    value, low, high = (
        160 * (p * right + (1 - p) * wrong) for p in (result.accuracy[k] for k in ("value", "low", "high"))
    )
    assert whole["output"] == pytest.approx(value, rel=0.01), "right and wrong answers are of one length each here"
    assert low < full["output"] < high
    assert whole["total"] - whole["output"] == pytest.approx(full["prompt"], rel=0.02)
    assert whole["share"] == pytest.approx(cost["tokens"]["total"] / whole["total"], rel=1e-3)
    assert f"{whole['share']:.0%} of about {whole['total']:,} tokens" in " ".join(capsys.readouterr().out.split())


def test_all_items_asked_are_all_of_the_cost(scripted, tokenizer, bank, tmp_path):
    cost = run(scripted(knows_small_numbers), tokenizer, bank, tmp_path / "out", rule=Rule(80, 40)).cost
    assert cost["of_full"] == {
        "items": 80,
        "output": cost["tokens"]["output"],
        "total": cost["tokens"]["total"],
        "share": 1.0,
    }


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"samples": 0}, "samples: at least 1"),
        ({"samples": 2, "sampling": Sampling(temperature=0.0)}, "would all be the same"),
        ({"limit": 0}, "limit: at least 1"),
        ({"chunk": -1}, "chunk: at least 1"),
        ({"until_interval": 2.0}, "until_interval"),
    ],
)
def test_settings_that_no_evaluation_has(scripted, tokenizer, bank, tmp_path, wrong, said):
    engine = scripted(knows_small_numbers)
    with pytest.raises(Mistake, match=said):
        run(engine, tokenizer, bank, tmp_path / "out", **wrong)
    assert not engine.asked


def test_the_device_is_said_and_chunks_change_nothing(scripted, tokenizer, bank, tmp_path):
    whole = run(scripted(knows_small_numbers), tokenizer, bank, tmp_path / "a", device="2 x H100")
    parts = run(scripted(knows_small_numbers), tokenizer, bank, tmp_path / "b", chunk=3)
    assert (whole.cost["device"], whole.cost["devices"]) == ("H100", 2)
    assert parts.adaptive["trace"] == whole.adaptive["trace"]
