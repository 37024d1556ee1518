"""The words of a scaffold, and their place in a prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from numbers import Real
from typing import Any

from rollouts.records import Prompt, Row

OPENING = "The points below say what a good answer to the question is judged by. Take them into account."
COVER = "Points to cover:"
AVOID = "Points to avoid:"
ANSWER = "Give one complete and helpful answer that respects all of the above."
SECRECY = "Never mention, quote or hint at these points; answer as if you had thought of everything yourself."

WORKED = "The beginning of a correct solution is given below. Work from it to the end, in your own words."
RESULT = "Final answer:"


@dataclass(frozen=True, slots=True)
class Item:
    """One criterion of a rubric: what is judged, and what it is worth (below 0: it is to be avoided)."""

    text: str
    points: float


def criteria(row: Row, column: str) -> list[Item]:
    """The criteria in a row's column: a list of mappings with `criterion` and `points`; other keys are left alone.

    Raises:
        ValueError: the column is not there, or holds something else; one line with the row's name.
    """
    found = []
    for number, item in enumerate(_list(row, column, "criteria"), 1):
        text = item.get("criterion") if isinstance(item, Mapping) else None
        points = item.get("points") if isinstance(item, Mapping) else None
        what = f"row {row.row_id}: criterion {number} in column {column}"
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{what} has no text; each needs `criterion` (text) and `points` (a number, not 0)")
        if (size := _size(points)) is None:
            raise ValueError(f"{what} has points {points!r:.40}; they should be a number other than 0")
        found.append(Item(text, size))
    return found


def steps(row: Row, column: str) -> list[str]:
    """The steps of a worked solution in a row's column: a list of texts.

    Raises:
        ValueError: the column is not there, or holds something else; one line with the row's name.
    """
    found = _list(row, column, "steps")
    for number, step in enumerate(found, 1):
        if not isinstance(step, str) or not step.strip():
            raise ValueError(f"row {row.row_id}: step {number} in column {column} is not a text")
    return found


def _size(points: Any) -> float | None:
    """Points as a float; None where they are no number, 0 or not finite."""
    if isinstance(points, bool) or not isinstance(points, Real):  # numpy's, too
        return None
    with suppress(OverflowError):  # JSON has whole numbers of any length
        size = float(points)
        return size if size and isfinite(size) else None
    return None


def _list(row: Row, column: str, what: str) -> list[Any]:
    if column not in row.columns:
        has = ", ".join(row.columns) or "none"
        raise ValueError(
            f"row {row.row_id}: there is no column {column} to take {what} from (columns: {has}); map one with "
            f"data.train.columns: {{{column}: ...}}, or name another with rollouts.strategy.with.column"
        )
    value = row.columns[column]
    if value is None:
        raise ValueError(
            f"row {row.row_id}: column {column} is empty; give it a list of {what} ([] = this row is never scaffolded), or leave the row out"
        )
    if isinstance(value, str):
        with suppress(ValueError, RecursionError):
            value = json.loads(value)
    if not isinstance(value, list | tuple):
        raise ValueError(f"row {row.row_id}: column {column} should be a list of {what}, not {type(value).__name__}")
    return list(value)


def told(shown: Sequence[Item], *, points: bool = False, secrecy: bool = True) -> str:
    """The text for the criteria that are shown: those to cover, those to avoid (a section without any is left out), what to do,
    and to keep quiet about them. `points`: say what each is worth (the released code does, the paper's box does not)."""
    good = [f"- {item.text}{_worth(item) if points else ''}" for item in shown if item.points > 0]
    bad = [f"- {item.text}{_worth(item) if points else ''}" for item in shown if item.points < 0]
    parts = [OPENING]
    parts += ["\n".join([COVER, *good])] if good else []
    parts += ["\n".join([AVOID, *bad])] if bad else []
    parts.append(ANSWER)
    parts += [SECRECY] if secrecy else []
    return "\n\n".join(parts)


def _worth(item: Item) -> str:
    return f" (worth {item.points:g})" if item.points > 0 else f" (costs {-item.points:g})"


def worked(shown: Sequence[str], *, answer: str | None = None, form: str | None = None) -> str:
    """The text for the first steps of a solution; `form` says how the answer is to be written, `answer` is the answer itself."""
    parts = [WORKED, *shown]
    parts += [form] if form else []
    parts += [f"{RESULT} {answer}"] if answer is not None else []
    return "\n\n".join(parts)


def untemplated(row: Row, bos: str | None) -> None:
    """Raises:
    ValueError: the row's prompt is a text on which a chat template was run already, so that a prefix would come before `bos`."""
    if bos and isinstance(row.prompt, str) and row.prompt.startswith(bos):
        raise ValueError(
            f"row {row.row_id}: a template was run on its text already (it begins with {bos}), so a scaffold cannot be "
            "put before it; give messages instead (data.train.chat: true)"
        )


def placed(prompt: Prompt, text: str, place: str = "system") -> Prompt:
    """A new prompt with `text` in it: in the row's own system (or developer) turn after what stands there, else in a system turn before all
    others, so that there is one at most; with `place="user"` before what the first user turn says. Plain text gets it as a
    prefix and a blank line. `prompt` itself is left as it was."""
    if isinstance(prompt, str):
        return f"{text}\n\n{prompt}"
    turns = [dict(turn) for turn in prompt]
    own = next((turn for turn in turns if turn["role"] == place), None)
    if own is None and place == "system":  # another name for it, so that a system turn before it would be a second one
        own = next((turn for turn in turns if turn["role"] == "developer"), None)
    if own is None:
        return [{"role": place, "content": text}, *turns]
    own["content"] = _joined(own["content"], text, before=place == "user")
    return turns


def _joined(content: Any, text: str, before: bool) -> Any:
    if not content:  # an empty turn, of a table with nulls say
        return text
    if isinstance(content, str):
        return f"{text}\n\n{content}" if before else f"{content}\n\n{text}"
    part = {"type": "text", "text": text}
    return [part, *content] if before else [*content, part]
