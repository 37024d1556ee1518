"""How a question becomes a prompt: named styles with a hash, so that two results can be seen to have asked the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
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
    shots: tuple[tuple[str, str], ...] = ()
    """Solved examples, (question, answer), that stand before the question: as earlier turns of a chat, or as text."""

    def hash(self) -> str:
        """First 12 hex digits of a digest of everything that shapes the text."""
        what = asdict(self)
        if not self.shots:  # so that styles without examples keep the hash they had before there were any
            del what["shots"]
        text = json.dumps(what, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()

    def render(self, question: str) -> Prompt:
        user = self.user.replace("{question}", question)
        if self.chat:
            system = [{"role": "system", "content": self.system}] if self.system else []
            before = [
                {"role": role, "content": content}
                for asked, answer in self.shots
                for role, content in (("user", self.user.replace("{question}", asked)), ("assistant", answer))
            ]
            return [*system, *before, {"role": "user", "content": user}]
        before = "".join(
            f"{self.user.replace('{question}', asked).rstrip()} {answer}\n\n" for asked, answer in self.shots
        )
        return f"{self.system}\n\n{before}{user}" if self.system else before + user

    def with_shots(self, shots: Sequence[tuple[str, str]]) -> Style:
        """The same with solved examples: `boxed` with four is called `boxed+4`.

        Raises:
            Mistake: the rows bring their own prompts.
        """
        if not shots:
            return self
        if self.name == OWN:
            raise Mistake('prompt style "own": rows that bring their prompts take no examples; choose another style')
        return replace(self, name=f"{self.name}+{len(shots)}", shots=tuple(shots))


PLAIN = "/text"
"""Ends the name of a style whose turns are written as plain text, for want of a chat template."""
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
        Style("raw", "{question}", chat=False),
        Style("text", "Question: {question}\n" + BOXED + "\nAnswer:", chat=False),
        Style(OWN, "{question}"),
    )
}
"""`boxed`: question, then the instruction, as the user's turn (the default). `boxed-system`: the instruction as a system
turn. `last-line`: asks for lighteval's fixed last sentence. `question`: nothing but the question, as the user's turn. `raw`: nothing
but the question, without a template. `text`: for base models, plain text without a template. `own`: the rows' own prompts."""


def doubts(style: Style, tokenizer: Any, template_args: Mapping[str, Any]) -> list[str]:
    """Notes on how prompts of this style come out with this tokenizer: what a reader would take for something else."""
    if style.name.partition("+")[0].endswith(PLAIN):
        return [f"the tokenizer has no chat template: questions were plain text (style {style.name})"]
    if not style.chat or style.name == OWN:
        return []
    asked = style.render("1 + 1?")
    with_mark, without = (
        tokenizer.apply_chat_template(asked, add_generation_prompt=mark, tokenize=False, **template_args)
        for mark in (True, False)
    )
    if with_mark != without:
        return []
    return ["the chat template has no generation prompt: after the question nothing says that it is the model's turn"]


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
        return Style(f"{name}{PLAIN}", style.user + "\n", style.system, chat=False)
    return style
