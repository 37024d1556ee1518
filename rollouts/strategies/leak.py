"""Does an answer speak of the scaffold? A cheap look at words, for a number to watch: it proves nothing of one answer (all of it ours)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rollouts.records import Prompt

RUN = 8
"""Words in a row that make a quotation: shorter runs are shared by whoever speaks of the same matter."""

_WORD = re.compile(r"\w+(?:['’]\w+)?")
_SPEAKS = re.compile(
    r"\b(?:rubrics?|criterion|criteria|(?:evaluation|scoring) points?|points to (?:cover|avoid)|(?:grading|scoring) (?:guide(?:line)?s?|scheme))\b",
    re.IGNORECASE,
)


def leaks(answer: str, scaffold: str, prompt: str) -> bool:
    """True if `answer` speaks of criteria, or has `RUN` words in a row of `scaffold` (the text that was shown; empty for none).
    Neither counts where `prompt`, the row's own text, has it too. Letter case and punctuation make no difference.

    Languages without blanks between words have no runs of words here, so that only the words above are found in them.
    """
    own = {match.lower() for match in _SPEAKS.findall(prompt)}
    if any(match.lower() not in own for match in _SPEAKS.findall(answer)):
        return True
    if not scaffold:
        return False
    secret = set(_runs(scaffold)) - set(_runs(prompt))
    return any(run in secret for run in _runs(answer))


def _runs(text: str) -> Iterator[tuple[str, ...]]:
    words = [word.lower() for word in _WORD.findall(text)]
    return (tuple(words[i : i + RUN]) for i in range(len(words) - RUN + 1))


def text_of(prompt: Prompt) -> str:
    """What a prompt says, turn after turn."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(_said(turn.get("content")) for turn in prompt)


def _said(content: object) -> str:
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
