"""Training from scratch: reproducible, harmless to the caller's torch, and really learning."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
import torch

from posttrain.miniature import models, tokenizer, train

SHAPE = {
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "intermediate_size": 64,
}
BUILT = tokenizer.build()
SHORT = train.Schedule(steps=4, batch=4, shape=SHAPE)


def chats(n: int) -> list[list[dict[str, str]]]:
    rng = random.Random(0)
    drawn = [rng.randint(0, 9) for _ in range(n)]
    return [
        [{"role": "user", "content": f"{d}"}, {"role": "assistant", "content": f"{d}" * (d % 3 + 1)}] for d in drawn
    ]


def weights(seed: int = 0, schedule: train.Schedule = SHORT) -> dict[str, torch.Tensor]:
    return train.train(BUILT, chats(16), schedule, seed=seed, show=False).state_dict()


def test_the_same_seed_gives_the_same_tensors_whatever_the_process_is_set_to():
    before = torch.get_num_threads()
    first = weights()
    torch.manual_seed(12345)
    torch.set_num_threads(1)
    try:
        second = weights()
        other = weights(seed=1)
    finally:
        torch.set_num_threads(before)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_torch_is_left_as_it_was():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        torch.manual_seed(7)
        expected = torch.rand(3)
        torch.manual_seed(7)
        python, dtype = random.getstate(), torch.get_default_dtype()
        weights()
        assert torch.get_num_threads() == 1
        assert torch.equal(torch.rand(3), expected)
        assert random.getstate() == python
        assert torch.get_default_dtype() == dtype
        assert torch.is_grad_enabled()
    finally:
        torch.set_num_threads(before)


def test_torch_is_left_as_it_was_when_training_fails():
    before = torch.get_num_threads()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)

    def fail() -> None:
        with train.isolated(0):
            torch.rand(5)
            torch.set_num_threads(1)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert torch.get_num_threads() == before
    assert torch.equal(torch.rand(3), expected)


def test_it_learns_to_repeat_a_digit():
    schedule = train.Schedule(steps=120, batch=32, shape=SHAPE)
    model = train.train(BUILT, chats(64), schedule, seed=0, show=False)
    right = 0
    for digit in range(10):
        ids = BUILT.apply_chat_template(
            [{"role": "user", "content": str(digit)}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )["input_ids"]
        with torch.no_grad():
            right += int(model(ids).logits[0, -1].argmax() == BUILT(str(digit))["input_ids"][0])
    assert right == 10


def test_the_loss_is_transformers_own_on_what_the_assistant_wrote():
    """One batch: cross-entropy over the kept positions equals transformers' loss with the prompt masked out."""
    torch.manual_seed(0)
    model = models.new(BUILT, **SHAPE)
    rows = tokenizer.encode_chats(BUILT, chats(5))
    ids, targets = train._batch(rows, BUILT.pad_token_id)
    hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
    kept = targets[:, 1:] >= 0
    ours = torch.nn.functional.cross_entropy(model.lm_head(hidden[kept]), targets[:, 1:][kept])
    theirs = model(input_ids=ids, attention_mask=(ids != BUILT.pad_token_id).long(), labels=targets).loss
    torch.testing.assert_close(ours, theirs)


def test_the_rate_warms_up_peaks_and_comes_down():
    schedule = train.Schedule(steps=100, learning_rate=1.0)
    rates = [schedule.rate(step) for step in range(100)]
    assert max(rates) == rates[9] == pytest.approx(1.0)
    assert all(a < b for a, b in pairwise(rates[:10]))
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert 0.05 <= rates[-1] < 0.06


def test_the_usual_shape_has_under_a_million_parameters_and_heads_that_vllm_serves_with_lora():
    config = models.config(BUILT)
    model = models.new(BUILT)
    assert type(model).__name__ == "Qwen2ForCausalLM"
    assert 800_000 < sum(p.numel() for p in model.parameters()) < 950_000
    assert config.hidden_size // config.num_attention_heads >= 64
    assert sorted(config.eos_token_id) == sorted(BUILT.convert_tokens_to_ids([tokenizer.END, tokenizer.STOP]))


def test_a_saved_model_is_loaded_unchanged_and_samples_plainly(tmp_path):
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    model = train.train(BUILT, chats(16), SHORT, show=False)
    models.save(model, BUILT, tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert load_file(tmp_path / "model.safetensors").keys() == model.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
    assert loaded.generation_config.eos_token_id == model.config.eos_token_id
    assert (loaded.generation_config.temperature, loaded.generation_config.top_p) == (1.0, 1.0)
    assert loaded.generation_config.top_k == 0
