"""Questions as a model drafts them: how its answer is read."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from posttrain.evaluation.building.wording import CHOICE, OPEN, TYPES
from rewards.grading import after_reasoning

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MOST_FAILURES = 1000
"""Braces in a reply that may begin nothing that can be read; after them it is given up."""


@dataclass(frozen=True, slots=True)
class Draft:
    """One question, not checked yet."""

    question: str
    answer: str
    """The answer's text; of multiple choice the right choice's, so that nothing hangs on a letter."""
    citations: tuple[str, ...]
    choices: tuple[str, ...] = ()
    """Without their letters; empty = open-ended."""
    right: int | None = None
    """Index of the right choice."""
    difficulty: int | None = None
    """1..10 as the model estimates it; None if it said nothing that can be read. (YourBench makes that a 5.)"""
    type: str | None = None
    """A key of `TYPES`, if the model named one."""
    raw: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return CHOICE if self.choices else OPEN


@dataclass(slots=True)
class Parsed:
    """What one response holds."""

    drafts: list[Draft]
    faults: Counter[str]
    """What could not be read, by reason: `no JSON`, `no question`, `no answer`, `not an object`, `choices`."""


def parse(response: str, kind: str) -> Parsed:
    """Read a response: the JSON in the last pair of tags, in a code fence, or anywhere; a list that was cut off gives what
    was whole of it. What is missing or makes no sense is counted, never guessed."""
    found = Parsed([], Counter())
    objects = list(_objects(after_reasoning(response)))
    if not objects:
        found.faults["no JSON"] += 1
    for one in objects:
        made = draft(one, kind) if isinstance(one, dict) else "not an object"
        if isinstance(made, str):
            found.faults[made] += 1
        else:
            found.drafts.append(made)
    return found


_TAGGED = re.compile(r"<(questions|output_json|json)>(.*?)(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_FENCED = re.compile(r"```(?:json)?\s*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)


def _objects(text: str) -> Iterator[Any]:
    tagged = [found[2] for found in _TAGGED.finditer(text)]
    fenced = [found[1] for found in _FENCED.finditer(tagged[-1] if tagged else text)]
    for part in (*fenced[-1:], *tagged[-1:], text):
        if objects := list(_read(part)):
            yield from objects
            return


def _read(part: str) -> Iterator[Any]:
    """The members of the first list in `part`, or its objects one by one if it is not whole."""
    decoder = json.JSONDecoder(strict=False)  # line ends inside strings are a common slip
    part = part.strip()
    for text in (part, _without_commas(part)):
        try:
            value = decoder.decode(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and isinstance(value.get("questions"), list):
            value = value["questions"]
        if isinstance(value, list):
            yield from value
            return
        if isinstance(value, dict):
            yield value
            return
    place, failures = part.find("{"), 0
    while place >= 0 and failures < MOST_FAILURES:
        try:
            value, end = decoder.raw_decode(part, place)
        except (ValueError, RecursionError):
            place, failures = part.find("{", place + 1), failures + 1
            continue
        if "question" in value:
            yield value
        place = part.find("{", end)


def _without_commas(text: str) -> str:
    """Without commas before a closing bracket, outside strings."""
    return re.sub(r'("(?:[^"\\]|\\.)*(?:"|\Z))|,(?=\s*[\]}])', lambda m: m[1] or "", text, flags=re.DOTALL)


def draft(row: Mapping[str, Any], kind: str) -> Draft | str:
    """A draft from one object, or why it is none."""
    question = _words(row.get("question"))
    answer = _words(row.get("answer", row.get("self_answer", row.get("ground_truth_answer"))))
    if not question:
        return "no question"
    if not answer:
        return "no answer"
    cited = row.get("citations")
    cited = [cited] if isinstance(cited, str) else cited if isinstance(cited, list | tuple) else []
    citations = tuple(words for one in cited if (words := _words(one)))
    choices: tuple[str, ...] = ()
    right: int | None = None
    if kind == CHOICE:
        given = row.get("choices")
        choices = tuple(unlettered([_words(c) for c in given])) if isinstance(given, list | tuple) else ()
        if not 2 <= len(choices) <= len(LETTERS) or not all(choices):
            return "choices"
        if len({" ".join(c.casefold().split()) for c in choices}) < len(choices):
            return "choices"
        right = which(answer, choices)
        if right is None:
            return "choices"
        answer = choices[right]
    said = _words(row.get("question_type", row.get("self_assessed_question_type"))).casefold()
    difficulty = _difficulty(row.get("estimated_difficulty"))
    return Draft(question, answer, citations, choices, right, difficulty, said if said in TYPES else None, row)


def _words(value: Any) -> str:
    """Text or a number, as text without halves of characters; anything else is nothing."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return str(value).encode("utf-8", "replace").decode("utf-8").strip()


def _difficulty(value: Any) -> int | None:
    try:
        number = float(value)
        whole = int(number)
    except (TypeError, ValueError, OverflowError):
        return None
    return whole if not isinstance(value, bool) and whole == number and 1 <= whole <= 10 else None


_LETTER = re.compile(r"^\s*[(\[]?([A-Za-z])(?:[)\].:]+|\s+-)\s*(?=\S)")


def unlettered(choices: list[str]) -> list[str]:
    """Choices without `(A) `, `B. `, ... in front, if all of them have the letter of their place."""
    marks = [_LETTER.match(choice) for choice in choices]
    if choices and all(m and m[1].upper() == letter for m, letter in zip(marks, LETTERS, strict=False)):
        return [choice[m.end() :].strip() for choice, m in zip(choices, marks, strict=True) if m]
    return choices


def which(answer: str, choices: tuple[str, ...] | list[str]) -> int | None:
    """The index of the choice that an answer names: by its letter (`B`, `(b)`, `B. Paris`) or its text; None = no one."""
    words = " ".join(answer.split())
    same = [i for i, choice in enumerate(choices) if " ".join(choice.split()).casefold() == words.casefold()]
    if len(same) == 1:
        return same[0]
    bare = words.strip("()[].:* ")
    if len(bare) == 1 and bare.upper() in LETTERS[: len(choices)]:
        return LETTERS.index(bare.upper())
    lettered = _LETTER.match(words)
    if lettered and lettered[1].upper() in LETTERS[: len(choices)]:
        index = LETTERS.index(lettered[1].upper())
        rest = words[lettered.end() :].casefold().rstrip(".")
        if rest == " ".join(choices[index].split()).casefold().rstrip("."):
            return index
    return None
