"""`adaptive` under `evaluation` in a recipe: checked before the run, done in it, one line a step in `metrics.jsonl`."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from posttrain import metrics
from posttrain.errors import Mistake
from posttrain.evaluation import BENCHMARKS, find_benchmark
from posttrain.evaluation.adaptive.bank import Bank, Calibrated, Item, text_digest
from posttrain.evaluation.adaptive.entry import check_bank, metrics_line
from posttrain.recipe.check import check
from posttrain.recipe.reading import load
from posttrain.rundir import RunDir

ROOT = Path(__file__).resolve().parents[4]
RECIPE = ROOT / "recipes" / "arithmetic_grpo.yaml"


def write_bank(path, count=60, benchmark="arithmetic", **changes):
    problems = find_benchmark("arithmetic").load(None, count)
    draw = np.random.default_rng(0)
    items = [
        Item(id=p.item_id, a=float(a), b=float(b), text=text_digest(p.question))
        for p, a, b in zip(problems, np.exp(draw.normal(0, 0.3, count)), draw.normal(0, 1, count), strict=True)
    ]
    models = [Calibrated(name=f"m{x}", accuracy=0.5, answered=count, ability=x) for x in (-1.0, 1.0)]
    made = {"benchmark": benchmark, "models": models, "fit": {}, "items": items} | changes
    Bank(**made).write(path)
    return path


def read(words):
    return load(str(RECIPE), ["run.name=x", *words])


def entry(**adaptive):
    return (
        "evaluation=[" + json.dumps({"benchmark": "arithmetic", "limit": 100, "every": 1, "adaptive": adaptive}) + "]"
    )


@pytest.mark.parametrize(
    ("adaptive", "said"),
    [
        ({"items": 5}, "evaluation.0.adaptive.bank"),
        ({"bank": "b.json", "items": 0}, "evaluation.0.adaptive.items"),
        ({"bank": "b.json", "items": 5, "batch": 6}, "adaptive.batch: 6 items at once are more than all 5"),
        ({"bank": "b.json", "se": 0}, "evaluation.0.adaptive.se"),
        ({"bank": "b.json", "itmes": 5}, "items"),
    ],
)
def test_the_recipe_says_what_is_wrong_with_it(adaptive, said):
    with pytest.raises(Mistake, match=said.replace(".", r"\.")):
        read([entry(**adaptive)])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("none", "no such file; make a bank with posttrain irt fit"),
        ({"benchmark": "gsm8k"}, "a bank of gsm8k, not of arithmetic"),
        ({"items": [Item(id="arithmetic/0", a=1.0, b=0.0)]}, "none of its 1 items"),
    ],
)
def test_plan_holds_the_bank_against_the_benchmark(change, said, tmp_path):
    bank = tmp_path / "bank.json"
    if change != "none":
        write_bank(bank, **change)
    recipe = read([entry(bank=str(bank))])
    with pytest.raises(Mistake) as caught:
        check(recipe, benchmarks=BENCHMARKS, bank=check_bank)
    assert "evaluation.0.adaptive.bank: " in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bank_that_fits_passes(tmp_path):
    check(read([entry(bank=str(write_bank(tmp_path / "b.json")))]), benchmarks=BENCHMARKS, bank=check_bank)


def test_every_key_of_the_line_is_in_the_table():
    line = metrics_line("gsm8k", 50, {"ability": 0.3, "se": 0.2, "items": 50, "predicted": {"value": 0.6}})
    for key in set(line) - set(metrics.BOOKKEEPING):
        assert metrics.describe(key) is not None, key
    assert (line["step"], line["phase"], line["adaptive/gsm8k/ability"]) == (50, "evaluation", 0.3)


def test_a_line_that_was_cut_off_is_written_again_and_never_twice(tmp_path, scripted, tokenizer):
    """A launch that goes on keeps the result of its step and may have lost the line."""
    from posttrain.evaluation.adaptive.loop import Rule
    from posttrain.evaluation.adaptive.run import evaluate_adaptive
    from posttrain.schedule import Schedule

    bank = str(write_bank(tmp_path / "b.json"))
    recipe = read([entry(bank=bank)])
    run = RunDir(tmp_path / "run")
    trainer = SimpleNamespace(
        state=SimpleNamespace(global_step=7, is_world_process_zero=True), args=None, control=None, model=None,
        callback_handler=SimpleNamespace(callbacks=[]),
    )  # fmt: skip
    schedule = Schedule(recipe, run, SimpleNamespace(), trainer)
    engine = scripted(lambda prompt, seed: "\\boxed{1}")
    for when in ("before", "step-000002", "after"):
        evaluate_adaptive("arithmetic", engine, tokenizer, bank=bank, out_dir=run.evaluation(when, "arithmetic"),
                          model_name="m", rule=Rule(6, 3), limit=100, when=when)  # fmt: skip
        schedule._note(0, when)
        schedule._note(0, when)
    lines = run.metrics.read_text().splitlines(keepends=True)
    assert [json.loads(line)["step"] for line in lines] == [0, 2, 7]
    run.metrics.write_text(lines[0])
    schedule._note(0, "step-000002")
    again = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert {**again[1], "time": 0} == {**json.loads(lines[1]), "time": 0}


STEPS = 4


def launch(folder, bank, *more):
    warm = {"benchmark": "arithmetic", "limit": 100, "every": 1, "temperature": 1.0,
            "adaptive": {"bank": str(bank), "items": 12, "batch": 4}}  # fmt: skip
    words = [f"evaluation=[{json.dumps(warm)}]", f"trainer.args.max_steps={STEPS}", "trainer.args.num_generations=4",
             "trainer.args.per_device_train_batch_size=8", "rollouts.sampling.max_tokens=64", "preflight=off", "trainer.args.learning_rate=1e-2",
             "checkpoints.every=2", "run.name=x", 'run.report_to=["tensorboard"]', *more]  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-m", "posttrain.train", str(RECIPE), *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, text=True)  # fmt: skip


def abilities(folder):
    """Of `metrics.jsonl`: step and ability, in the order of the lines that are whole."""
    file = folder / "runs" / "x" / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    told = [json.loads(line) for line in lines if line.endswith("\n")]
    return [(r["step"], r["adaptive/arithmetic/ability"]) for r in told if r["phase"] == "evaluation"]


def tracked(folder):
    """The same from tensorboard's files; the last of what was told twice."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found = {}
    for file in sorted(folder.rglob("events.out.tfevents*"), key=lambda file: file.stat().st_mtime):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                if value.tag == "train/adaptive/arithmetic/ability":
                    found[event.step] = value.tensor.float_val[0]
    return found


@pytest.mark.slow
def test_in_training_every_step_has_its_ability_and_a_cut_changes_none(tmp_path):
    pytest.importorskip("tensorboard")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    bank = write_bank(tmp_path / "bank.json")
    running = launch(whole, bank)
    said, _ = running.communicate(timeout=500)
    assert running.returncode == 0, said[-2000:]
    run = whole / "runs" / "x"
    found = abilities(whole)
    assert [step for step, _ in found] == list(range(STEPS + 1))
    assert len({ability for _, ability in found}) > 1, "a curve that cannot differ shows nothing"
    for (_, ability), when in zip(
        found, ("before", *(f"step-{s:06d}" for s in range(1, STEPS)), "after"), strict=True
    ):
        result = json.loads((run / "evaluation" / f"{when}-arithmetic" / "result.json").read_text())
        assert result["adaptive"]["ability"] == ability
        assert (result["n"], result["adaptive"]["items"], result["when"]) == (12, 12, when)
    assert tracked(whole) == {step: pytest.approx(ability, abs=1e-6) for step, ability in found}

    # Killed in the middle of the evaluation of step 3: the checkpoint is that of step 2.
    running = launch(cut, bank)
    partly = cut / "runs" / "x" / "evaluation" / "step-000003-arithmetic" / "samples.jsonl"
    end = time.monotonic() + 500
    while not partly.exists():
        assert running.poll() is None, running.communicate()[0][-2000:]
        assert time.monotonic() < end
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    running = launch(cut, bank)
    said, _ = running.communicate(timeout=500)
    assert running.returncode == 0, said[-2000:]
    assert abilities(cut) == found
    assert tracked(cut) == tracked(whole)
