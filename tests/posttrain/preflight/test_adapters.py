"""Adapters that would not arrive as what they are, and merges."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rollouts.engines.transformers import TransformersEngine


class Files(TransformersEngine):
    same_numerics = False


def by_files(parts):
    parts.engine = Files(parts.engine.spec)


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora"])
def test_what_changes_the_base_is_refused(look, init):
    row = look(f"adapter.init_lora_weights={init}")["adapter"]
    assert row.ok is False
    assert f"init_lora_weights: {init} changes the base weights" in row.looked


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_and_rightly_so(build, init):
    """PEFT's own files: base model + saved adapter is not what was trained."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    trainer, parts = build(f"adapter.init_lora_weights={init}")
    folder = str(parts.run.root / "saved")
    trainer.model.save_pretrained(folder, save_embedding_layers=False)
    config = Path(folder) / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "init_lora_weights": True}))
    base = AutoModelForCausalLM.from_pretrained(parts.engine.spec.model, dtype=torch.float32)
    again = PeftModel.from_pretrained(base, folder)
    ids = torch.arange(10, 30)[None]
    with torch.no_grad():
        gap = (trainer.model(ids).logits - again(ids).logits).abs().max()
    assert gap > 0.1


@pytest.mark.parametrize("word", ["adapter.use_dora=true", "adapter.modules_to_save=[embed_tokens]"])
def test_what_the_engine_cannot_carry(look, word):
    """The trainer's own module carries everything, files in vLLM's form do not."""
    assert look(word)["adapter"].ok
    row = look(word, change=by_files)["adapter"]
    assert row.ok is False
    assert word.removeprefix("adapter.").split("=")[0] in row.looked


def test_an_adapter_to_go_on_from_says_itself_what_it_is(build, look, tmp_path):
    """The recipe does not mention DoRA; the folder does."""
    trainer, _ = build("adapter.use_dora=true")
    trainer.model.save_pretrained(str(tmp_path / "dora"), save_embedding_layers=False)
    row = look(f"adapter.start_from={tmp_path / 'dora'}", change=by_files)["adapter"]
    assert row.ok is False
    assert "use_dora" in row.looked


def test_no_adapter_at_all(look):
    rows = look("adapter=null")
    assert rows["adapter"].ok is None
    assert rows["base weights"].ok is None


def test_a_merged_adapter(build, alone):
    from posttrain import preflight

    trainer, parts = build("model.dtype=bfloat16")
    trainer.model.merge_adapter()
    row = {r.name: r for r in preflight.run(trainer, parts, alone, "warn")}["base weights"]
    assert row.ok is False
    assert "merged into the bfloat16 weights" in row.looked


def test_a_trainer_that_would_merge(build, alone):
    """A subclass of the user's that switches TRL's own engine on, past the recipe."""
    from posttrain.preflight import adapter
    from posttrain.preflight.scene import Scene

    trainer, parts = build()
    assert adapter.nothing_merges(Scene(trainer, parts, alone, online=True)).ok
    trainer.use_vllm = True
    found = adapter.nothing_merges(Scene(trainer, parts, alone, online=True))
    assert found.ok is False
    assert "merge the adapter into the base weights" in found.looked


def test_nothing_of_ours_merges():
    """PEFT's ways to put an adapter into the base weights are nowhere called."""
    root = Path(__file__).resolve().parents[3]
    calls = ("merge_adapter(", "merge_and_unload(", ".merge(")
    for package in ("posttrain", "rollouts", "rewards"):
        for file in (root / package).rglob("*.py"):
            text = "\n".join(line for line in file.read_text().split("\n") if "unmerge_adapter()" not in line)
            assert not any(call in text for call in calls), file
