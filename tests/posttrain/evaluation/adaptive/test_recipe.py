"""`adaptive` under `evaluation` in a recipe: checked before the run, done in it, one line a step in `metrics.jsonl`."""

import json
import os
import subprocess
import sys
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
    trainer = SimpleNamespace(state=SimpleNamespace(global_step=7))
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


@pytest.mark.slow
def test_in_training_every_step_has_its_ability(tmp_path):
    bank = write_bank(tmp_path / "bank.json")
    words = [entry(bank=str(bank), items=12, batch=4), "trainer.args.max_steps=3", "trainer.args.num_generations=4",
             "trainer.args.per_device_train_batch_size=8", "rollouts.sampling.max_tokens=16", "preflight=off",
             "checkpoints.every=1", "run.name=x"]  # fmt: skip

    def launch():
        return subprocess.run(
            [sys.executable, "-m", "posttrain.train", str(RECIPE), *words], cwd=tmp_path, capture_output=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, text=True, check=False, timeout=400)  # fmt: skip

    ended = launch()
    assert ended.returncode == 0, ended.stderr[-2000:]
    run = tmp_path / "runs" / "x"

    def abilities():
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return {r["step"]: r["adaptive/arithmetic/ability"] for r in lines if r["phase"] == "evaluation"}

    def told(when):
        return json.loads((run / "evaluation" / f"{when}-arithmetic" / "result.json").read_text())

    found = abilities()
    assert list(found) == [0, 1, 2, 3]
    for step, when in enumerate(("before", "step-000001", "step-000002", "after")):
        result = told(when)
        assert result["adaptive"]["ability"] == found[step]
        assert (result["n"], result["adaptive"]["items"], result["when"]) == (12, 12, when)
