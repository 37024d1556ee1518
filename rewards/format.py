"""Is the completion in the asked form? 1.0 or 0.0, whatever it says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rewards.completions import text_of
from rewards.grading.extract import extract


def boxed(completions: Sequence[Any], **columns: Any) -> list[float]:
    """1.0 where the answer is in a box: `\\boxed{...}` closed, not empty, and not within the reasoning span."""
    return [1.0 if extract(text_of(c), boxed_only=True) else 0.0 for c in completions]


_THOUGHT = re.compile(r"\s*<think>.*</think>(.*)", re.DOTALL)


def think_tags(completions: Sequence[Any], *, opened_by_prompt: bool = False, **columns: Any) -> list[float]:
    """1.0 where the completion is one `<think>...</think>` and then an answer: each tag once, nothing before, something after.

    `opened_by_prompt`: the prompt itself ends in `<think>`, so the completion must not bring another.
    """
    return [_well_formed(text_of(c), opened_by_prompt) for c in completions]


def _well_formed(text: str, opened: bool) -> float:
    if opened:
        text = "<think>" + text
    thought = _THOUGHT.fullmatch(text)
    once = text.count("<think>") == text.count("</think>") == 1
    return 1.0 if thought and once and thought[1].strip() else 0.0
