"""The trained base itself: as flawed as it is meant to be. Uses the user's own cache, so it is trained once a machine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from posttrain.errors import Mistake
from posttrain.miniature import arithmetic
from posttrain.miniature.arithmetic import SCHEDULE, TASK, Sum
from posttrain.miniature.base import base
from posttrain.miniature.pairs import pairs

SHAPE = {
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "intermediate_size": 64,
}
SMALL = replace(SCHEDULE, steps=3, batch=4, shape=SHAPE)


def problem(row) -> Sum:
    return Sum(*map(int, row["question"].split("+")))


@pytest.fixture(scope="module")
def trained() -> str:
    return arithmetic.base()


def answers(directory: str, rows, *, sample: bool) -> list[str]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory)
    ids = torch.tensor(
        [tokenizer.apply_chat_template(p, add_generation_prompt=True)["input_ids"] for p in rows["prompt"]]
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        made = model.generate(ids, do_sample=sample, max_new_tokens=96)
    return tokenizer.batch_decode(made[:, ids.shape[1] :], skip_special_tokens=True)


def share(rows, texts: list[str]) -> float:
    return sum(
        TASK.score(problem(r), [{"role": "assistant", "content": t}]) for r, t in zip(rows, texts, strict=True)
    ) / len(texts)


@pytest.mark.slow
def test_sampled_it_is_right_on_30_to_60_percent(trained):
    rows = arithmetic.held_out(512)
    texts = answers(trained, rows, sample=True)
    assert 0.30 <= share(rows, texts) <= 0.60
    assert sum("\\boxed{" in t for t in texts) / len(texts) > 0.98
    assert 0.3 < sum("ones:" in t for t in texts) / len(texts) < 0.7


@pytest.mark.slow
def test_greedily_it_is_wrong_on_a_third_at_least(trained):
    rows = arithmetic.held_out(512)
    assert share(rows, answers(trained, rows, sample=False)) <= 2 / 3


@pytest.mark.slow
def test_the_cached_one_is_found_again_and_says_how_it_was_made(trained):
    assert arithmetic.base() == trained
    made = json.loads((Path(trained) / "made.json").read_text())
    assert made["made_of"]["flawed"] == arithmetic.DROP > 0.5


@pytest.mark.slow
def test_pairs_are_a_right_and_a_wrong_answer_of_the_base(trained):
    rows = arithmetic.pairs(64)
    assert len(set(rows["row_id"])) == 64
    assert {"prompt", "chosen", "rejected", "question", "answer"} <= set(rows.column_names)
    for row in rows:
        assert not TASK.is_held_out(problem(row))
        assert TASK.score(problem(row), row["chosen"]) == 1.0
        assert TASK.score(problem(row), row["rejected"]) == 0.0
        assert [turn["role"] for turn in row["chosen"]] == ["assistant"]
    assert arithmetic.pairs(64).to_list() == rows.to_list()


def test_what_makes_a_base_names_it(tmp_path, monkeypatch):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path))
    first = base(TASK, SMALL, seed=0, flawed=0.5, show=False)
    assert base(TASK, SMALL, seed=0, flawed=0.5, show=False) == first
    others = [
        base(TASK, SMALL, seed=1, flawed=0.5, show=False),
        base(TASK, SMALL, seed=0, flawed=0.6, show=False),
        base(TASK, replace(SMALL, steps=2), seed=0, flawed=0.5, show=False),
    ]
    assert len({first, *others}) == 4


def test_a_base_made_again_is_the_same(tmp_path, monkeypatch):
    from safetensors.torch import load_file

    made = []
    for name in ("a", "b"):
        monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path / name))
        made.append(load_file(Path(base(TASK, SMALL, seed=0, flawed=0.5, show=False)) / "model.safetensors"))
    assert made[0].keys() == made[1].keys()
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])


def test_pairs_from_a_model_that_gives_none_end_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path))
    monkeypatch.setattr("posttrain.miniature.pairs.AT_ONCE", 8)
    untrained = base(TASK, SMALL, seed=0, flawed=0.5, show=False)
    with pytest.raises(Mistake, match="draw more samples"):
        pairs(TASK, untrained, 4, samples=2, max_tokens=8)
    with pytest.raises(Mistake, match="at least 2"):
        pairs(TASK, untrained, 4, samples=1)
