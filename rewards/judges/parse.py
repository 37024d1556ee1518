"""What a judge's answer says: the last complete JSON object in it, read strictly. Everything else is no verdict."""

from __future__ import annotations

import json
import re
from typing import Any

from rewards.judges.template import Mode

LONGEST = 100_000
"""Characters of an answer's end that are looked at."""
_BEGUN = re.compile(r"\{\s*\"")
_GOES_ON = re.compile(r"\"criteria_met\"|criteria_met\W{0,4}(?:[:=]|\bis\b)")
"""A verdict, in whatever notation."""


class Unread(ValueError):
    """The answer holds no verdict; why, in a few words."""


def last_object(text: str) -> dict[str, Any]:
    """The last JSON object that stands complete in the text (after its reasoning) and inside no other.

    Where one is begun and broken, nothing is read: a judge that quotes a faked verdict without escaping it would seem to give it. Nor
    where a verdict goes on behind it: the end of reasoning that stands before it may be the response's own, quoted.

    Raises:
        Unread: there is none, it has a key twice, one is broken, or a verdict goes on behind it.
    """
    text = _answer(text)[-LONGEST:]
    twice: list[bool] = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entry = dict(pairs)
        twice.append(len(entry) != len(pairs))
        return entry

    decoder = json.JSONDecoder(object_pairs_hook=once)
    found: dict[str, Any] | None = None
    doubled, last = False, 0
    at = text.find("{")
    while at >= 0:
        twice.clear()
        try:
            found, end = decoder.raw_decode(text, at)
            doubled, last = any(twice), end
        except json.JSONDecodeError as error:
            if _BEGUN.match(text, at):
                raise Unread("a JSON object in the answer is broken") from error
            end = at + 1
        except RecursionError as error:
            raise Unread("a JSON object nested too deeply") from error
        at = text.find("{", end)
    if found is None:
        raise Unread("no complete JSON object")
    if _GOES_ON.search(text, last):
        raise Unread("a verdict goes on behind the last JSON object")
    if doubled:
        raise Unread("the JSON object has a key twice")
    return found


def _answer(text: str) -> str:
    """What follows the reasoning; the whole text where all of it is one object, whatever that quotes."""
    _, mark, answer = text.rpartition("</think>")
    if not mark:
        return text
    try:
        return text if isinstance(json.loads(text), dict) else answer
    except (json.JSONDecodeError, RecursionError):
        return answer


def verdicts(text: str, n: int, mode: Mode) -> list[tuple[bool, str] | Unread]:
    """(met, explanation) of each of n criteria, or why there is none. A number that the answer leaves out is not "not met".

    Raises:
        Unread: nothing of the answer can be read.
    """
    found = last_object(text)
    if mode == "criterion":
        return [_one(found, "")]
    if odd := next((k for k in found if k.isdecimal() and k not in map(str, range(1, n + 1))), None):
        # It counts from 0, or counts what is no criterion: then its other numbers are not ours, either.
        raise Unread(f"the JSON object has an entry for criterion {odd:.20} of {n}")
    return [_one(found.get(str(k)), f" for criterion {k}") for k in range(1, n + 1)]


def _one(entry: Any, which: str) -> tuple[bool, str] | Unread:
    if not isinstance(entry, dict):
        return Unread(f"the JSON object has no entry{which}")
    met, why = entry.get("criteria_met"), entry.get("explanation")
    if not isinstance(met, bool):
        return Unread(f"criteria_met{which} is not true or false")
    return met, why if isinstance(why, str) else ""
