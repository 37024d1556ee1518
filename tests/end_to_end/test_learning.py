"""Runs that must learn something: the embedded recipes, shortened, through the real command."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow


def test_grpo_learns_to_carry(launch, recipes):
    ended = launch(recipes / "arithmetic_grpo.yaml", "trainer.args.max_steps=50")
    assert ended.code == 0, ended.err[-3000:]
    before, after = ended.accuracy("before"), ended.accuracy("after")
    assert before["value"] <= 0.6
    assert after["value"] >= 0.85
    assert before["high"] < after["low"]
    assert len(ended.rollouts()) == 50 * 64
    assert ended.json("status.json")["state"] == "done"
    assert (ended.run / "adapter" / "adapter_model.safetensors").is_file()
    page = (ended.run / "report.html").read_text()
    assert f"{after['value']:.1%}".rstrip("%") in page
    assert "arithmetic" in ended.out


def test_dpo_raises_held_out_accuracy(launch, recipes):
    ended = launch(recipes / "arithmetic_dpo.yaml")
    assert ended.code == 0, ended.err[-3000:]
    before, after = ended.accuracy("before"), ended.accuracy("after")
    assert after["low"] > before["high"]
    assert ended.metrics("rewards/accuracies")[-1] > 0.6


def test_sft_raises_held_out_accuracy(launch, recipes):
    ended = launch(recipes / "arithmetic_sft.yaml", "trainer.args.max_steps=60")
    assert ended.code == 0, ended.err[-3000:]
    before, after = ended.accuracy("before"), ended.accuracy("after")
    assert after["low"] > before["high"]
    losses = ended.metrics("loss")
    assert sum(losses[-5:]) < sum(losses[:5])


def test_a_reward_of_ones_own_changes_what_is_learned(launch, recipes):
    """With `brevity` the long manner of adding disappears; without it, it stays. The recipe is under 30 lines."""
    recipe = recipes / "custom_reward.yaml"
    assert len(recipe.read_text().splitlines()) < 30
    steps = ["trainer.args.max_steps=25", "evaluation=[]"]
    brief = launch(recipe, *steps, name="brief")
    plain = launch(recipes / "arithmetic_grpo.yaml", *steps, name="plain")
    assert brief.code == plain.code == 0, brief.err[-3000:] + plain.err[-3000:]

    def ends(ended):
        lengths = ended.metrics("completions/mean_length")
        return sum(lengths[:3]) / 3, sum(lengths[-3:]) / 3

    (first, last), (_, plain_last) = ends(brief), ends(plain)
    assert last < 0.85 * first
    assert last < 0.9 * plain_last
    assert {"correct", "brevity"} <= brief.rollouts()[0]["rewards"].keys()


@pytest.mark.parametrize("recipe", ["arithmetic_grpo", "arithmetic_sft", "arithmetic_dpo", "custom_reward"])
def test_embedded_recipes_run_two_steps(launch, recipes, recipe):
    ended = launch(recipes / f"{recipe}.yaml", "trainer.args.max_steps=2", "evaluation=[]")
    assert ended.code == 0, ended.err[-3000:]
    assert [m["step"] for m in ended.lines("metrics.jsonl") if m["phase"] == "train"] == [1, 2]
    assert (ended.run / "report.html").is_file()


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
