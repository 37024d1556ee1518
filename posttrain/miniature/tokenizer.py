"""A real fast tokenizer for tiny models: one token a byte (a character, in ASCII), and the marks of a chat.

A chat is `<|system|>…<|end|><|user|>…<|end|><|assistant|>…<|end|>`: one token a mark, no separators, so the prompt of
a turn is always a prefix of the chat that goes on from it. `<|end|>` ends a turn and is the EOS; `<|pad|>` is nothing
else but padding. Any Unicode text in composed form (NFC) comes back exactly, since what is not ASCII is spelled in its
UTF-8 bytes; decomposed text is composed first, because `AutoTokenizer` gives every `qwen2` model Qwen2's own class, which
does so, and the tokenizer built here must be the one that is loaded later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PAD, END, STOP = "<|pad|>", "<|end|>", "<|endoftext|>"
ROLES = ("system", "user", "assistant")

MAX_LENGTH = 1024
"""Longest prompt and completion together, tokens, of every miniature model."""

# `{% generation %}` marks what the assistant wrote, its end-of-turn token included: TRL's assistant-only loss reads it.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{- '<|assistant|>' -}}{%- generation -%}{{- message['content'] + '<|end|>' -}}{%- endgeneration -%}"
    "{%- elif message['role'] in ['system', 'user'] -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- else -%}{{- raise_exception('roles are system, user and assistant, not ' + message['role']) -}}"
    "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def build() -> Any:
    """A `PreTrainedTokenizerFast` of 262 tokens; the same one each time."""
    from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers import models as parts
    from transformers import PreTrainedTokenizerFast

    marks = [PAD, END, STOP, *(f"<|{role}|>" for role in ROLES)]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*marks, *letters])}
    core = Tokenizer(parts.BPE(vocab=vocabulary, merges=[]))
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens=[STOP, *(f"<|{role}|>" for role in ROLES)],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_LENGTH,
    )


def encode_chats(tokenizer: Any, chats: Sequence[Sequence[dict[str, str]]]) -> list[tuple[list[int], list[int]]]:
    """Token ids of whole chats, and 1 where the assistant wrote them (its end-of-turn token too), else 0.

    The same as `apply_chat_template(..., return_assistant_tokens_mask=True)`, for tens of thousands of chats in a second.
    """
    pieces = ["".join(f"<|{m['role']}|>{m['content']}{END}" for m in chat) for chat in chats]
    start, end = tokenizer.convert_tokens_to_ids(["<|assistant|>", END])
    out = []
    for ids in tokenizer(pieces, add_special_tokens=False)["input_ids"]:
        mask, inside = [], False
        for token in ids:
            mask.append(int(inside))
            if token == start:
                inside = True
            elif token == end:
                inside = False
        out.append((ids, mask))
    return out
