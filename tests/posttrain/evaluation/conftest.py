"""Where the real benchmark files are, and a small engine whose every word is decided by the test."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from rollouts.records import Completion, Policy, Sampling


@pytest.fixture(scope="session")
def data() -> Path:
    folder = os.environ.get("POSTTRAIN_BENCHMARKS")
    if not folder:
        pytest.skip("POSTTRAIN_BENCHMARKS names no folder with the benchmark files")
    return Path(folder)


@pytest.fixture(scope="session")
def tokenizer():
    from posttrain.miniature.tokenizer import build

    return build()


@pytest.fixture(scope="session")
def long(tmp_path_factory) -> str:
    """The tiny model with room for real questions: its tokens are bytes."""
    import torch
    from transformers import Qwen2ForCausalLM

    from posttrain.miniature import models, tokenizer

    folder = tmp_path_factory.mktemp("long")
    made = tokenizer.build()
    made.model_max_length = 4096
    config = models.config(made, hidden_size=64, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1)
    config.max_position_embeddings = 4096
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(config)
    models.save(model, made, folder)
    return str(folder)


class Scripted:
    """An engine that says `say(prompt, seed)` and ends with EOS; longer texts are cut at the limit."""

    shared: ClassVar[bool] = False
    same_numerics: ClassVar[bool] = False

    def __init__(self, tokenizer, say: Callable[[str, int], str]):
        self.tokenizer = tokenizer
        self.say = say
        self.version = 0
        self.asked: list[tuple[str, int]] = []

    def generate(self, prompt_ids: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]):
        made = []
        for ids, seed in zip(prompt_ids, seeds, strict=True):
            prompt = self.tokenizer.decode(ids)
            self.asked.append((prompt, seed))
            text = self.tokenizer(self.say(prompt, seed), add_special_tokens=False)["input_ids"]
            whole = [*text, self.tokenizer.eos_token_id]
            ids = whole[: sampling.max_tokens]
            finish = "stop" if len(ids) == len(whole) else "length"
            made.append(Completion(ids, [0.0] * len(ids), finish, self.version))
        return made

    def sync(self, policy: Policy, *, publish: bool = True) -> None:
        self.version = policy.version

    def close(self) -> None: ...


@pytest.fixture
def scripted(tokenizer):
    return lambda say: Scripted(tokenizer, say)
