"""A small valid recipe, and a way to write it to a file."""

import copy
import json

import pytest

VALID = {
    "model": {"name": "miniature/arithmetic"},
    "adapter": {"r": 16, "lora_alpha": 32, "target_modules": ["q_proj", "v_proj"]},
    "data": {"train": {"use": "posttrain.miniature.arithmetic:train", "with": {"n": 100}}},
    "rewards": [
        {"use": "rewards.math:correct", "weight": 1.0},
        {"use": "rewards.length:cosine", "weight": 0.5, "on_error": {"do": "skip_row", "at_most": 0.1}},
    ],
    "rollouts": {"engine": "transformers", "sampling": {"temperature": 1.0, "max_tokens": 96, "stop": ["\n\n"]}},
    "trainer": {"algorithm": "grpo", "args": {"per_device_train_batch_size": 64, "learning_rate": 1e-3}},
    "evaluation": [{"benchmark": "arithmetic", "limit": 512, "samples": 4, "temperature": 0.7}],
    "run": {"name": "demo", "seed": 7, "report_to": ["tensorboard"]},
}


@pytest.fixture
def valid():
    return copy.deepcopy(VALID)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a file into an empty working directory; its bare name is returned, as a user would type it."""
    monkeypatch.chdir(tmp_path)

    def write(text, name="recipe.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
        return name

    return write
