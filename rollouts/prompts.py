"""The one place where a prompt becomes token ids."""

from __future__ import annotations

from typing import Any

from rollouts.records import Prompt


def encode(tokenizer: Any, prompt: Prompt, **template_kwargs: Any) -> list[int]:
    """Token ids of `prompt`, ending where the policy's completion starts.

    Messages go through the tokenizer's chat template with its generation prompt. Plain text gets the tokenizer's
    special tokens, but never a second BOS: text on which the user already ran a template keeps its own (TRL 1.16
    adds another one there).
    """
    if not isinstance(prompt, str):
        encoded = tokenizer.apply_chat_template(
            prompt, add_generation_prompt=True, tokenize=True, return_dict=True, **template_kwargs
        )
        return list(encoded["input_ids"])
    bos = tokenizer.bos_token
    has_bos = bool(bos) and prompt.startswith(bos)
    return list(tokenizer(prompt, add_special_tokens=not has_bos)["input_ids"])
