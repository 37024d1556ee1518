"""Is there room for the scaffolds of a run: prompt, scaffold and completion in the model's length, row by row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

from posttrain.errors import Mistake
from posttrain.trainers.scaffolds import shows_more
from rollouts.prompts import encode


@dataclass(frozen=True)
class Widest:
    """Over the rows of a run."""

    scaffold: int = 0
    """Tokens of the longest scaffold."""
    scaffold_row: str = ""
    prompt: int = 0
    """Tokens of the longest prompt with its scaffold: what the engine may get."""


def widest(
    strategy: Any,
    rows: Iterable[Mapping[str, Any]],
    tokenizer: Any,
    *,
    room: int,
    max_tokens: int,
    template_args: Mapping[str, Any],
) -> Widest:
    """The longest scaffolds of `rows`; nothing where the strategy has none (`longest`).

    Args:
        room: tokens of prompt and completion that the model has. `max_tokens`: of the longest completion.

    Raises:
        Mistake: a row has not what the strategy shows, no row has anything to show, or prompt, scaffold and completion do not fit.
    """
    longest = getattr(strategy, "longest", None)
    if longest is None:
        return Widest()
    from rollouts.records import Row

    turn = partial(encode, tokenizer, **template_args)
    found, worst, least, widest_row = Widest(), (0, 0, 0, ""), room, None
    for number, values in enumerate(rows):
        row = Row(str(values.get("row_id", f"row {number}")), values["prompt"],
                  {k: v for k, v in values.items() if k not in ("prompt", "row_id")})  # fmt: skip
        try:
            added = longest(row, turn)
            if added and callable(takes := getattr(strategy, "takes", None)):
                takes(row, tokenizer)
        except Exception as error:  # a column that is not there, or a template that takes no such turn
            raise Mistake(f"rollouts.strategy: {_told(error, row.row_id, strategy)}") from error
        prompt = len(turn(row.prompt))
        scaffold, name = max((found.scaffold, found.scaffold_row), (added, row.row_id), key=lambda pair: pair[0])
        found = Widest(scaffold, name, max(found.prompt, prompt + added))
        if added:  # a row that is too long by itself is told elsewhere
            if prompt + added > worst[0]:
                worst, widest_row = (prompt + added, prompt, added, row.row_id), row
            least = min(least, room - max_tokens - prompt)
    if found.prompt and not found.scaffold:
        bound = getattr(strategy, "max_tokens", None)
        room_of = f", or with.max_tokens {bound} has room for no item of any" if bound else ""
        raise Mistake(
            f"rollouts.strategy: no row would ever be shown anything: column {getattr(strategy, 'column', '')} is empty in all{room_of}; "
            f"{'raise that bound' if bound else 'name another column'}, or use rollouts.strategy: single"
        )
    total, prompt, added, name = worst
    if added and total + max_tokens > room:
        fits = f"set rollouts.strategy.with.max_tokens: {least} (whole items are then left out), "
        fits = fits if least > 0 and _shows(strategy, least, widest_row, turn) else ""
        raise Mistake(
            f"rollouts.strategy: row {name}: prompt {prompt} + scaffold {added} + rollouts.sampling.max_tokens {max_tokens} = "
            f"{total + max_tokens} tokens is more than the model's length {room}; {fits}lower rollouts.sampling.max_tokens, "
            "or raise model.max_length"
        )
    return found


def prompt_of_loss(strategy: Any, plain: int, seen: int) -> int:
    """Tokens of the longest prompt that is trained on, of `plain` without a scaffold and `seen` with it (0: there is none)."""
    return plain if shows_more(strategy) else max(plain, seen)


def ever_scaffolded(strategy: Any, epochs: float) -> float | None:
    """About which share of the rows meet a scaffold at all, min(1, t0 x epochs): one that vanishes early sees few rows of a short run.
    None where the schedule has no end (`linear`, ...) or follows the rows (`adaptive`)."""
    return min(1.0, strategy.t0 * epochs) if getattr(strategy, "inter", None) in ("sigmoid", "step") else None


def _shows(strategy: Any, most: int, row: Any, turn: Any) -> bool:
    """Whether anything of `row` would be shown in `most` tokens."""
    bounded = copy(strategy)
    bounded.max_tokens = most
    return bounded.longest(row, turn) > 0


def _told(error: Exception, name: str, strategy: Any) -> str:
    """One line of what went wrong with a row."""
    from jinja2 import TemplateError

    text = " ".join(str(error).split())[:400]
    if text.startswith(f"row {name}: "):
        return text
    # A template's own words name neither the row nor a way out, those of other errors not even what they are.
    if not isinstance(error, TemplateError):
        return f"row {name}: {type(error).__name__}: {text}"
    system = getattr(strategy, "place", None) == "system"
    other = "; where the chat template takes no system turn, set rollouts.strategy.with.place: user" if system else ""
    return f"row {name}: {text}{other}"
