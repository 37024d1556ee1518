"""With the real in-process engine: streams do not depend on how requests are chunked, and a real model is scored."""

import json

import pytest

from posttrain.evaluation import evaluate
from rollouts.records import EngineSpec, Sampling


def engine_of(folder):
    from transformers import AutoTokenizer

    from rollouts.engines.transformers import TransformersEngine

    tokenizer = AutoTokenizer.from_pretrained(folder)
    spec = EngineSpec(folder, (tokenizer.eos_token_id,), tokenizer.pad_token_id, 1024)
    return TransformersEngine(spec), tokenizer


def test_chunks_and_restarts_change_no_sample(tiny, tmp_path):
    engine, tokenizer = engine_of(tiny)
    common = {"model_name": tiny, "samples": 3, "limit": 6, "sampling": Sampling(max_tokens=12), "progress": False}
    whole = evaluate("arithmetic", engine, tokenizer, out_dir=tmp_path / "whole", **common)
    parts = evaluate("arithmetic", engine, tokenizer, out_dir=tmp_path / "parts", chunk=4, **common)
    evaluate("arithmetic", engine, tokenizer, out_dir=tmp_path / "less", **(common | {"limit": 2, "samples": 1}))
    rest = evaluate("arithmetic", engine, tokenizer, out_dir=tmp_path / "less", **common)

    def texts(result):
        return {(s["item_id"], s["sample"]): s["completion"] for s in result.samples()}

    assert texts(whole) == texts(parts) == texts(rest)
    assert len(set(texts(whole).values())) > 6, "samples differ"
    assert whole.metrics == parts.metrics == rest.metrics
    assert whole.truncated > 0


@pytest.mark.slow
def test_the_miniature_base_is_half_right_sampled_and_worse_greedily(tmp_path):
    from posttrain.miniature.arithmetic import base

    folder = base()
    engine, tokenizer = engine_of(folder)
    warm = evaluate(
        "arithmetic", engine, tokenizer, out_dir=tmp_path / "warm", model_name=folder, samples=4, limit=100,
        sampling=Sampling(temperature=1.0, max_tokens=96), progress=False,
    )  # fmt: skip
    greedy = evaluate(
        "arithmetic", engine, tokenizer, out_dir=tmp_path / "greedy", model_name=folder, limit=100,
        sampling=Sampling(temperature=0.0, max_tokens=96), progress=False,
    )  # fmt: skip
    assert 0.25 < warm.accuracy["value"] < 0.7
    assert warm.metrics["pass@4"]["value"] > warm.accuracy["high"]
    assert greedy.accuracy["value"] < 2 / 3
    assert greedy.accuracy["low"] < greedy.accuracy["value"] < greedy.accuracy["high"]
    # The task's own exact scorer is an oracle for the verdicts.
    import re

    for sample in map(json.loads, (tmp_path / "warm" / "samples.jsonl").read_text().splitlines()):
        boxes = re.findall(r"\\boxed\{([^{}]*)\}", sample["completion"])
        assert sample["score"] == float(bool(boxes) and boxes[-1].strip() == sample["gold"])
