"""What a model says after it has thought: the part of a completion in which an answer counts."""

from __future__ import annotations

ENDS = ("</think>", "</thinking>", "</thought>", "</reasoning>", "[/THINK]", "<|end_of_thought|>")
"""Marks that end a reasoning span."""
BEGINNINGS = ("<think>", "<thinking>", "<thought>", "<reasoning>", "[THINK]", "<|begin_of_thought|>")


def answer_part(text: str, *, opened: bool = False) -> str:
    """`text` after its last end-of-thinking mark.

    A span that begins and never ends (cut by the token limit, say) leaves nothing: a number in a thought is no answer.
    `opened` says that the prompt itself ended with the opening mark, so that the completion starts inside the span.
    """
    ends = [text.rfind(mark) + len(mark) for mark in ENDS if mark in text]
    if ends:
        return text[max(ends) :]
    if opened or text.lstrip().startswith(BEGINNINGS):
        return ""
    return text


def opens_thinking(prompt: str) -> bool:
    """True if a rendered prompt ends inside a reasoning span."""
    return prompt.rstrip().endswith(BEGINNINGS)
