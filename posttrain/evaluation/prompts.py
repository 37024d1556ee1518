"""How a question becomes a prompt: named styles with a hash, so that two results can be seen to have asked the same."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

from posttrain.errors import Mistake
from rollouts.records import Prompt

BOXED = "Please reason step by step, and put your final answer within \\boxed{}."


@dataclass(frozen=True, slots=True)
class Style:
    """Text around a question. `user` holds the mark `{question}` once; all other braces are plain text."""

    name: str
    user: str = "{question}"
    system: str | None = None
    chat: bool = True
    """False: plain text that a base model goes on from; no chat template."""

    def hash(self) -> str:
        """First 12 hex digits of a digest of everything that shapes the text."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()

    def render(self, question: str) -> Prompt:
        user = self.user.replace("{question}", question)
        if self.chat:
            system = [{"role": "system", "content": self.system}] if self.system else []
            return [*system, {"role": "user", "content": user}]
        return f"{self.system}\n\n{user}" if self.system else user


OWN = "own"
"""The benchmark's rows bring their prompts."""

STYLES = {
    style.name: style
    for style in (
        Style("boxed", "{question}\n\n" + BOXED),
        Style("boxed-system", "{question}", system=BOXED),
        Style(
            "last-line",
            "Solve the following problem.\n\n{question}\n\nReason step by step. The last line of your answer must read: "
            "Therefore, the final answer is: $\\boxed{ANSWER}$. I hope it is correct.",
        ),
        Style("question", "{question}"),
        Style("text", "Question: {question}\n" + BOXED + "\nAnswer:", chat=False),
        Style(OWN, "{question}"),
    )
}
"""`boxed`: question, then the instruction, as the user's turn (the default). `boxed-system`: the instruction as a system
turn. `last-line`: asks for a fixed last sentence. `question`: nothing but the question. `text`: for base models, plain
text without a template. `own`: the rows' own prompts."""


def find_style(name: str, tokenizer: Any = None) -> Style:
    """A style by name. With a tokenizer that has no chat template the turns are written as plain text, and the style's
    name says so.

    Raises:
        Mistake: no such style.
    """
    if name not in STYLES:
        near = get_close_matches(name, STYLES, n=1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise Mistake(f'prompt style "{name}" is not known{hint} It is one of {", ".join(STYLES)}')
    style = STYLES[name]
    if tokenizer is not None and style.chat and name != OWN and not getattr(tokenizer, "chat_template", None):
        return Style(f"{name}/text", style.user + "\n", style.system, chat=False)
    return style
