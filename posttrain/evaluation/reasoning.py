"""What a model says after it has thought: the part of a completion in which an answer counts."""

from __future__ import annotations

from rewards.grading.extract import BEGINNINGS, ENDS, after_reasoning

__all__ = ["BEGINNINGS", "ENDS", "answer_part", "opens_thinking"]


def answer_part(text: str, *, opened: bool = False) -> str:
    """`text` after its last end-of-thinking mark.

    A span that begins and never ends (cut by the token limit, say) leaves nothing: a number in a thought is no answer.
    `opened` says that the prompt itself ended with the opening mark, so that the completion starts inside the span.
    """
    if opened and not any(mark in text for mark in ENDS):
        return ""
    return after_reasoning(text)


def opens_thinking(prompt: str) -> bool:
    """True if a rendered prompt ends inside a reasoning span."""
    return prompt.rstrip().endswith(BEGINNINGS)
