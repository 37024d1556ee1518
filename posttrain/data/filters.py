"""Prompts that are too long, measured with the tokenizer and template that the policy will see: dropped, cut, or refused."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.errors import Mistake
from rollouts.prompts import encode

Prompt = str | list[dict[str, Any]]


def fit(
    rows: Sequence[dict[str, Any]],
    tokenizer: Any,
    most: int,
    overlong: str,
    where: str,
    template_args: Mapping[str, Any] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Rows whose prompts have at most `most` tokens, and how many were `dropped` and `cut`.

    Args:
        overlong: `error`, `drop` or `keep_tail`.

    Raises:
        Mistake: a prompt is too long and `overlong` is `error`; the template refuses a prompt; nothing is left.
    """
    arguments = dict(template_args or {})
    kept, dropped, cut = [], 0, 0
    lengths = [
        _length(tokenizer, row["prompt"], arguments | with_tools(row), number, where)
        for number, row in enumerate(rows, 1)
    ]
    long = [(length, number) for number, length in enumerate(lengths, 1) if length > most]
    if long and overlong == "error":
        length, number = max(long)
        raise Mistake(
            f"{where}.overlong: {len(long)} of {len(rows)} prompts are longer than {most} tokens (row {number} has "
            f"{length}); use drop or keep_tail, or raise max_prompt_tokens"
        )
    for number, (row, length) in enumerate(zip(rows, lengths, strict=True), 1):
        if length <= most:
            kept.append(row)
        elif overlong == "drop":
            dropped += 1
        else:
            cut += 1
            kept.append(
                {**row, "prompt": _tail(tokenizer, row["prompt"], most, arguments | with_tools(row), number, where)}
            )
    if not kept:
        raise Mistake(
            f"{where}.overlong: all {len(rows)} prompts are longer than {most} tokens (the shortest has "
            f"{min(lengths)}), so dropping them leaves none"
        )
    return kept, {"dropped": dropped, "cut": cut}


def with_tools(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a chat template is told of a row besides its turns: its definitions of tools (a list, or that as JSON), if it has some."""
    tools = row.get("tools")
    if isinstance(tools, str):  # as TRL reads it
        try:
            tools = json.loads(tools)
        except (ValueError, RecursionError):
            return {}
    known = isinstance(tools, list) and tools and all(isinstance(one, Mapping) for one in tools)
    return {"tools": tools} if known else {}


def _length(tokenizer: Any, prompt: Prompt, arguments: dict[str, Any], number: int, where: str) -> int:
    if not isinstance(prompt, str) and not tokenizer.chat_template:
        raise Mistake(
            f"{where}.chat: the tokenizer has no chat template; set chat: false for plain text, or give one as "
            "model.chat_template"
        )
    try:
        return len(encode(tokenizer, prompt, **arguments))
    except Exception as error:  # a template is code of the model's makers and raises what it likes
        text = " ".join(str(error).split())[:240]
        raise Mistake(f"{where}: the chat template refuses the prompt of row {number}: {text}") from error


def _tail(tokenizer: Any, prompt: Prompt, most: int, arguments: dict[str, Any], number: int, where: str) -> Prompt:
    """`prompt` without so many characters of the user's text, from its beginning, that it has at most `most` tokens.

    The cut is found by encoding what is left, so whatever the template and the tokenizer do, the result fits.
    """
    text = _users_text(prompt)
    if text is None:
        raise Mistake(f"{where}.overlong: the user's turns of row {number} are not plain text and cannot be cut")

    def fits(cut: int) -> bool:
        return len(encode(tokenizer, _without(prompt, cut), **arguments)) <= most

    low, high = 0, len(text)  # low does not fit; high is known to once the loop has begun
    if not fits(high):
        raise Mistake(
            f"{where}.overlong: row {number} is longer than {most} tokens even without the user's text; raise "
            "max_prompt_tokens"
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return _without(prompt, high)


def _users_text(prompt: Prompt) -> str | None:
    if isinstance(prompt, str):
        return prompt
    said = [turn["content"] for turn in prompt if turn["role"] == "user"]
    return "".join(said) if all(isinstance(text, str) for text in said) else None


def _without(prompt: Prompt, cut: int) -> Prompt:
    """The prompt with the first `cut` characters of what the user said left out; the oldest turn goes first."""
    if isinstance(prompt, str):
        return prompt[cut:]
    turns = []
    for turn in prompt:
        if turn["role"] == "user":
            here = min(cut, len(turn["content"]))
            turn, cut = {**turn, "content": turn["content"][here:]}, cut - here
        turns.append(turn)
    return turns
