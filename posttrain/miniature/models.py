"""The one shape of a miniature policy: a Qwen2 of about 0.9 million parameters, small enough to train on two cores.

A head is 64 wide, not less, so that vLLM's CPU build serves it with LoRA.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from posttrain.miniature.tokenizer import END, MAX_LENGTH, STOP

SHAPE = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 384,
}
"""Layers and widths; a miniature of another size overrides some of them."""


def config(tokenizer: Any, **shape: int) -> Any:
    """A `Qwen2Config` for `tokenizer`'s vocabulary."""
    from transformers import Qwen2Config

    return Qwen2Config(
        vocab_size=len(tokenizer),
        max_position_embeddings=MAX_LENGTH,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        tie_word_embeddings=False,
        initializer_range=0.06,  # about 1 / sqrt(2 * width); the usual 0.02 needs twice the steps here
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids([END, STOP]),
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
        **{**SHAPE, **shape},
    )


def new(tokenizer: Any, **shape: int) -> Any:
    """A randomly initialised float32 `Qwen2ForCausalLM`; the draw comes from torch's global generator."""
    from transformers import Qwen2ForCausalLM

    return Qwen2ForCausalLM(config(tokenizer, **shape))


def save(model: Any, tokenizer: Any, directory: Path) -> None:
    """What `AutoModelForCausalLM`, `AutoTokenizer` and vLLM need: safetensors, configs, tokenizer.

    The generation config says how a completion ends and is sampled plainly (temperature 1, nothing cut off), so that
    no engine picks up other defaults from it.
    """
    from transformers import GenerationConfig
    from transformers.utils import logging

    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.convert_tokens_to_ids([END, STOP]),
        pad_token_id=tokenizer.pad_token_id,
        do_sample=True,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
    )
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
    finally:
        if shown:
            logging.enable_progress_bar()
