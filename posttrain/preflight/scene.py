"""What the checks look at: the run as it was built, and a few of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from posttrain.preflight.probe import Probe
from posttrain.recipe import Recipe
from posttrain.trainers.parts import Parts
from rollouts.prompts import encode

PROMPTS = 8
"""Rows of the data that are looked at, evenly spread."""
MEASURED = 20_000
"""Prompts among which the longest is looked for."""


@dataclass
class Scene:
    """One run before its first step."""

    trainer: Any
    parts: Parts
    world: Any
    """accelerate's PartialState: rank and number of processes."""
    online: bool
    probe: Probe = field(default_factory=Probe)

    @property
    def recipe(self) -> Recipe:
        return self.parts.recipe

    @property
    def tokenizer(self) -> Any:
        return self.parts.tokenizer

    @property
    def template_args(self) -> dict[str, Any]:
        return dict(self.recipe.model.template_args)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """A few rows as the trainer gets them, evenly spread over the data."""
        n = len(self.parts.train)
        return [dict(self.parts.train[i]) for i in spread(n, PROMPTS)]

    @cached_property
    def longest_prompt(self) -> tuple[int, str]:
        """Tokens and row of the longest prompt: of the longest by characters, the longest by tokens."""
        n = len(self.parts.train)
        chosen = range(n) if n <= MEASURED else spread(n, MEASURED)
        prompts = self.parts.train.select(list(chosen))["prompt"]
        by_size = sorted(((characters(p), i) for i, p in zip(chosen, prompts, strict=True)), reverse=True)[:PROMPTS]
        return max((self.tokens(self.parts.train[i]), self.row_id(i)) for _, i in by_size)

    def row_id(self, i: int) -> str:
        return str(self.parts.train[i].get("row_id", f"row {i}"))

    def tokens(self, row: dict[str, Any]) -> int:
        return len(encode(self.tokenizer, row["prompt"], **self.template_args))


def spread(n: int, most: int) -> list[int]:
    """Up to `most` of the numbers below `n`, evenly spread, the first among them."""
    return list(range(n)) if n <= most else [i * n // most for i in range(most)]


def characters(prompt: Any) -> int:
    if isinstance(prompt, str):
        return len(prompt)
    return sum(len(m["content"]) if isinstance(m.get("content"), str) else 0 for m in prompt)


def few(names: Sequence[str], most: int = 3) -> str:
    """`a, b, c (and 4 more)`."""
    more = f" (and {len(names) - most} more)" if len(names) > most else ""
    return ", ".join(names[:most]) + more
