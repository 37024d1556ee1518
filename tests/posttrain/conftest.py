"""A tiny untrained model on disk, with a real tokenizer: quick to load, good for everything but accuracy."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> str:
    """Directory of a one-layer Qwen2 with random weights (std 0.3, so that its distribution is not flat)."""
    import torch

    from posttrain.miniature import models, tokenizer

    folder = tmp_path_factory.mktemp("tiny")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = tokenizer.build()
        model = models.new(made, hidden_size=64, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=0.3)
    models.save(model, made, folder)
    return str(folder)
