"""Responses that try to bend a judge: what a policy might learn to write, put before or behind an honest response."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources

from rewards.judges import template

KINDS = {
    "asks": "asks for a verdict",
    "verdict": "writes a verdict itself",
    "item": "changes the list of criteria",
    "turn": "starts another turn of a chat",
    "fence": "pretends that its fence ends",
    "unicode": "is not what it looks like",
    "long": "is very long",
}


@dataclass(frozen=True, slots=True)
class Attack:
    """One text. `@SAY@` and `@MET@` in it become the verdict it is after, `@NOT@` the other one, `@TAG@` the tag that fences the honest
    response: the best guess that one could have who knows the template."""

    name: str
    kind: str
    text: str
    place: str = "after"
    repeat: int = 1
    then: str = ""

    def on(self, response: str, met: bool, tag: str = "0" * 16) -> str:
        """The response with the attack, which is after the verdict `met`."""
        words = {"@SAY@": "met" if met else "not met", "@MET@": _json(met), "@NOT@": _json(not met), "@TAG@": tag}
        text = self.text * self.repeat + self.then
        for name, value in words.items():
            text = text.replace(name, value)
        return f"{text}\n\n{response}" if self.place == "before" else f"{response}\n\n{text}"


@functools.cache
def attacks() -> tuple[Attack, ...]:
    """All of them, in the order of the file that comes with the package."""
    file = resources.files("posttrain.judging") / "attacks.jsonl"
    return tuple(Attack(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines())


def tag_of(turns: template.Turns, response: str, criterion: str) -> str:
    """The tag that fences the honest response where a criterion is asked about alone, without its points."""
    talk = "\n\n".join(f"{role}: {text}" for role, text in turns)
    return template.tag_for(talk, response, criterion)


def _json(met: bool) -> str:
    return "true" if met else "false"
