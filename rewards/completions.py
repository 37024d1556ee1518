"""The text of a completion, plain or conversational."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def text_of(completion: Any) -> str:
    """A plain completion itself; of a conversation, what the assistant said last (before it there may be tool turns).

    Raises:
        TypeError: it is neither text nor messages.
    """
    if isinstance(completion, str):
        return completion
    if isinstance(completion, Mapping):
        completion = [completion]
    if not isinstance(completion, (list, tuple)) or not all(isinstance(m, Mapping) for m in completion):
        raise TypeError(f"a completion is text or a list of messages, not a {type(completion).__name__}")
    said = [m for m in completion if m.get("role", "assistant") == "assistant"]
    return _content(said[-1].get("content")) if said else ""


def until(prompt: Any, completion: Any) -> Any:
    """The prompt, and of a completion of several turns (tools were called) those before the one that `text_of` gives."""
    if isinstance(prompt, str) or not isinstance(completion, (list, tuple)) or len(completion) < 2:
        return prompt
    last = max((k for k, m in enumerate(completion) if m.get("role", "assistant") == "assistant"), default=0)
    return [*prompt, *completion[:last]]


def _content(content: Any) -> str:
    """A message's content: text, or blocks of which the text ones count."""
    if isinstance(content, str):
        return content
    if isinstance(content, (list, tuple)):
        return "".join(b if isinstance(b, str) else str(b.get("text") or "") for b in content)
    return ""
