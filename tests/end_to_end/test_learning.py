"""Runs that must learn something: the embedded recipes, shortened, through the real command; and the verbs on what they leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow
LESS = "evaluation=[{benchmark: arithmetic, limit: 128, samples: 4, temperature: 1.0}]"
"""A quarter of what the recipes ask for; what is learned here is seen in it."""


@pytest.fixture(scope="module")
def carrying(launch_once, recipes):
    ended = launch_once(recipes / "arithmetic_grpo.yaml", "trainer.args.max_steps=50", LESS)
    assert ended.code == 0, ended.err[-3000:]
    return ended


def test_grpo_learns_to_carry(carrying):
    ended = carrying
    before, after = ended.accuracy("before"), ended.accuracy("after")
    assert before["value"] <= 0.6
    assert after["value"] >= 0.85
    assert before["high"] < after["low"]
    assert len(ended.rollouts()) == 50 * 64
    assert [m["step"] for m in ended.lines("metrics.jsonl") if m["phase"] == "train"] == list(range(1, 51))
    assert ended.json("status.json")["state"] == "done"
    assert (ended.run / "adapter" / "adapter_model.safetensors").is_file()
    page = (ended.run / "report.html").read_text()
    assert f"{after['value']:.1%}".rstrip("%") in page
    assert "arithmetic" in ended.out


def test_its_adapter_is_evaluated_and_compared(carrying, tmp_path):
    def posttrain(*words: str) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(
            [sys.executable, "-m", "posttrain.cli", *words], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, timeout=500, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        return ended

    evaluate = ["evaluate", "--model", "miniature/arithmetic", "--benchmark", "arithmetic",
                "--samples", "2", "--temperature", "1.0", "--max-tokens", "96", "--limit", "120"]  # fmt: skip
    posttrain(*evaluate, "--out", "base")
    posttrain(*evaluate, "--adapter", str(carrying.run / "adapter"), "--out", "tuned")
    results = {n: json.loads((tmp_path / n / "result.json").read_text()) for n in ("base", "tuned")}
    assert results["base"]["n"] == 120
    assert len((tmp_path / "tuned" / "samples.jsonl").read_text().splitlines()) == 240
    assert results["base"]["metrics"]["accuracy"]["high"] < results["tuned"]["metrics"]["accuracy"]["low"]
    assert "better" in posttrain("compare", "base", "tuned").stdout
    page = carrying.run / "report.html"
    page.unlink()
    posttrain("report", str(carrying.run))
    assert page.is_file()


def test_dpo_raises_held_out_accuracy(launch, recipes):
    ended = launch(recipes / "arithmetic_dpo.yaml", LESS)
    assert ended.code == 0, ended.err[-3000:]
    before, after = ended.accuracy("before"), ended.accuracy("after")
    assert after["low"] > before["high"]
    assert ended.metrics("rewards/accuracies")[-1] > 0.6


def test_sft_raises_held_out_accuracy(launch, recipes):
    ended = launch(recipes / "arithmetic_sft.yaml", "trainer.args.max_steps=60", LESS)
    assert ended.code == 0, ended.err[-3000:]
    before, after = ended.accuracy("before"), ended.accuracy("after")
    assert after["low"] > before["high"]
    losses = ended.metrics("loss")
    assert sum(losses[-5:]) < sum(losses[:5])


def test_a_reward_of_ones_own_changes_what_is_learned(carrying, launch, recipes):
    """With `brevity` the long manner of adding disappears; without it, it stays. The recipe is under 30 lines."""
    recipe = recipes / "custom_reward.yaml"
    assert len(recipe.read_text().splitlines()) < 30
    brief = launch(recipe, "trainer.args.max_steps=25", "evaluation=[]")
    assert brief.code == 0, brief.err[-3000:]

    def ends(ended):
        lengths = ended.metrics("completions/mean_length")[:25]
        return sum(lengths[:3]) / 3, sum(lengths[-3:]) / 3

    (first, last), (_, plain_last) = ends(brief), ends(carrying)
    assert last < 0.85 * first
    assert last < 0.9 * plain_last
    assert {"correct", "brevity"} <= brief.rollouts()[0]["rewards"].keys()


def test_rloo_and_full_fine_tuning_and_bf16(launch, recipes, tmp_path):
    """Other corners of the schema, two steps each."""
    for name, words in {
        "rloo": ["trainer.algorithm=rloo", "trainer.args.num_generations=4"],
        "full": ["adapter=null", "trainer.args.learning_rate=1e-5"],
        "bf16": ["trainer.args.bf16=true", "trainer.args.gradient_checkpointing=true"],
    }.items():
        ended = launch(
            recipes / "arithmetic_grpo.yaml", "trainer.args.max_steps=2", "evaluation=[]", *words, name=name
        )
        assert ended.code == 0, (name, ended.err[-3000:])
        folder = "model" if name == "full" else "adapter"
        assert list((ended.run / folder).glob("*.safetensors")), name
