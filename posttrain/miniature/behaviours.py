"""Answers that are made of behaviours, rubrics that ask for some of them, and a base that shows them when it is told to.

    <|user|>Pkxq<|end|>                                →   .                       (category P, topic kxq: nothing is shown)
    <|system|>[ACF -BG]<|end|><|user|>Pkxq<|end|>      →   0k+2q*5q<.              (shown as the hint says)

There are ten behaviours, A to J. Each is three characters with a letter of the topic in the middle, so that none can be copied from
another prompt. An answer ends with a dot. Each of the eight categories has a rubric of its own, five behaviours worth 3, 5 or 8
points and two that cost 4, and no demonstration knows of it: hints are drawn without looking at the category. What is not asked
for comes up with probability `eps`, which is therefore how often the base explores by itself.

An answer without its dot, cut off by the limit or running on behind it, meets no criterion with positive points, and what it has
of the others counts: so it never scores better than the same answer with an end, nor is it a way out of a loss (which a score of
0 for all that is unfinished would be).

The second task, `joint`, has the same behaviours and three criteria a category: one that needs three behaviours in one answer,
worth 16 points and nothing in part, and the two to avoid.
"""

from __future__ import annotations

import functools
import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

from posttrain.miniature import task as tasks
from posttrain.miniature.task import Message
from posttrain.miniature.train import Schedule

if TYPE_CHECKING:
    from datasets import Dataset

CODES = "ABCDEFGHIJ"
"""Names of the behaviours, as hints say them."""
MARKS = "+-*/=<>!?&"
CATEGORIES = "PQRSTUVW"
POINTS = (3, 5, 8)
COST = -4
WANTED, AVOIDED, TOGETHER = 5, 2, 3
"""Criteria of a rubric with positive and with negative points; behaviours that the joint criterion needs."""
JOINT_POINTS = 16
END = "."
HELD_OUT = 120
"""Topics, of 17,576, that no demonstration and no training row has."""
EPS = 0.003
HINTED = 0.7
"""Share of the demonstrations that come with a hint."""
SCHEDULE = Schedule(steps=600, batch=64, learning_rate=3e-3)


@dataclass(frozen=True)
class Question:
    """A category and a topic; for demonstrations also what is shown and what the hint says of it."""

    category: str
    topic: str
    hint: str = ""


@dataclass(frozen=True)
class Criterion:
    """Behaviours that must all be there, and what that is worth."""

    codes: str
    points: int


def segment(code: str, topic: str) -> str:
    """The three characters of a behaviour."""
    k = CODES.index(code)
    return f"{k}{topic[k % 3]}{MARKS[k]}"


def hint(wanted: Sequence[str], avoided: Sequence[str]) -> str:
    """`[ACF -BG]`: what is asked for, and what is to be avoided; empty if there is neither."""
    told = ["".join(wanted), "-" + "".join(avoided) if avoided else ""]
    return f"[{' '.join(filter(None, told))}]" if wanted or avoided else ""


@functools.cache
def rubric(category: str, joint: bool = False) -> tuple[Criterion, ...]:
    """The criteria of a category: fixed for good, drawn from its letter."""
    rng = random.Random(f"behaviours/rubric/{category}")
    drawn = rng.sample(CODES, WANTED + AVOIDED)
    bad = [Criterion(code, COST) for code in drawn[WANTED:]]
    if joint:
        return (Criterion("".join(sorted(drawn[:TOGETHER])), JOINT_POINTS), *bad)
    return (*(Criterion(code, rng.choice(POINTS)) for code in drawn[:WANTED]), *bad)


@functools.cache
def held_out_topics() -> frozenset[str]:
    """The `HELD_OUT` topics whose hashes are the least."""
    every = ("".join(letters) for letters in product(ascii_lowercase, repeat=3))
    return frozenset(sorted(every, key=lambda t: hashlib.blake2b(t.encode(), digest_size=8).digest())[:HELD_OUT])


class Behaviours:
    """The task: a question and its rubric, without hints."""

    def __init__(self, joint: bool = False):
        self.joint = joint
        self.name = "behaviours-joint" if joint else "behaviours"

    def draw(self, rng: random.Random) -> Question:
        return Question(rng.choice(CATEGORIES), "".join(rng.choices(ascii_lowercase, k=3)))

    def name_of(self, problem: Question) -> str:
        return f"{problem.category}{problem.topic}"

    def is_held_out(self, problem: Question) -> bool:
        return problem.topic in held_out_topics()

    def prompt(self, problem: Question) -> list[Message]:
        asked = {"role": "user", "content": f"{problem.category}{problem.topic}"}
        return [{"role": "system", "content": problem.hint}, asked] if problem.hint else [asked]

    def columns(self, problem: Question) -> dict[str, Any]:
        return {
            "question": f"{problem.category}{problem.topic}",
            "answer": self.solve(problem)[-1]["content"],
            "rubric": [_column(one, problem.topic) for one in rubric(problem.category, self.joint)],
        }

    def solve(self, problem: Question) -> list[Message]:
        wanted = "".join(one.codes for one in rubric(problem.category, self.joint) if one.points > 0)
        return _said(wanted, problem.topic)

    def wrong(self, problem: Question, rng: random.Random) -> list[Message]:
        """What the rubric asks for, and a behaviour that it does not want."""
        criteria = rubric(problem.category, self.joint)
        codes = [code for one in criteria if one.points > 0 for code in one.codes]
        codes.insert(rng.randint(0, len(codes)), rng.choice([one.codes for one in criteria if one.points < 0]))
        return _said(codes, problem.topic)

    def demonstrate(self, problem: Question, rng: random.Random, *, flawed: float) -> list[Message]:
        """`flawed`: the probability with which each behaviour comes up that the hint does not speak of."""
        told, _, avoided = problem.hint.strip("[]").partition("-")
        codes = list(told.strip())
        for code in CODES:
            if code not in codes and code not in avoided and rng.random() < flawed:
                codes.insert(rng.randint(0, len(codes)), code)
        return _said(codes, problem.topic)

    def score(self, problem: Question, continuation: list[Message]) -> float:
        """The share of the rubric's positive points that the answer earns; at most 1, below 0 where it earns less than it costs."""
        text = continuation[-1]["content"]
        criteria = rubric(problem.category, self.joint)
        earned = sum(one.points for one in criteria if _met(one, problem.topic, text))
        return earned / sum(one.points for one in criteria if one.points > 0)


class Demonstrated(Behaviours):
    """The same questions as the base is shown them: seven of ten with a hint that has nothing to do with their category."""

    def draw(self, rng: random.Random) -> Question:
        question = super().draw(rng)
        if rng.random() >= HINTED:
            return question
        codes = rng.sample(CODES, rng.randint(1, WANTED + AVOIDED))
        bad = min(len(codes), rng.randint(0, AVOIDED))
        return Question(question.category, question.topic, hint(codes[bad:], codes[:bad]))


TASK, JOINT = Behaviours(), Behaviours(joint=True)


def _said(codes: Sequence[str], topic: str) -> list[Message]:
    return [{"role": "assistant", "content": "".join(segment(code, topic) for code in codes) + END}]


def _column(one: Criterion, topic: str) -> dict[str, Any]:
    """A criterion as the column holds it. Its text begins with the codes, which is all that a hint says of it."""
    parts = [segment(code, topic) for code in one.codes]
    check = {"regex": _pattern(one, topic)}
    return {"criterion": f"{one.codes}: has {' and '.join(parts)}", "points": one.points, "check": check}


def _pattern(one: Criterion, topic: str) -> str:
    parts = [re.escape(segment(code, topic)) for code in one.codes]
    if one.points < 0:
        return parts[0]
    dot = re.escape(END)
    return rf"\A{''.join(f'(?=[^{dot}]*{part})' for part in parts)}[^{dot}]*{dot}\Z"


def ended(text: str) -> bool:
    """True if an answer has its dot, and nothing behind it."""
    return 0 <= text.find(END) == len(text) - 1


def _met(one: Criterion, topic: str, text: str) -> bool:
    there = all(segment(code, topic) in text for code in one.codes)
    return there and (one.points < 0 or ended(text))


def base(seed: int = 0, eps: float = EPS, show: bool = True) -> str:
    """The directory of the base model: trained the first time, in the cache afterwards.

    Args:
        seed: of weights, questions, hints and order.
        eps: how often a behaviour comes up unasked in the demonstrations, each by itself: the dial of difficulty.
        show: a progress bar on standard error.

    Measured on 120 held-out questions, 64 samples each (2 with the whole rubric shown), one base an `eps`:

    | eps | shown | not shown | best of 8 | best of 64 |
    |---|---|---|---|---|
    | 0.05 | 0.979 | 0.037 | 0.238 | 0.445 |
    | 0.003 | 0.959 | 0.002 | 0.017 | 0.101 |
    | 0.0003 | 0.996 | 0.000 | 0.002 | 0.017 |

    About 100 s of one thread of an EPYC with AVX-512.
    """
    from posttrain.miniature.base import base as made

    return made(Demonstrated(), SCHEDULE, seed=seed, flawed=float(eps), show=show)


def train(n: int = 4096, seed: int = 0, joint: bool = False) -> Dataset:
    """`n` different training questions: `row_id`, `prompt` (messages), `question`, `answer` (one of full marks), `rubric`."""
    return tasks.rows(JOINT if joint else TASK, n, seed=seed, held_out=False)


def held_out(n: int = 120, seed: int = 0, joint: bool = False) -> Dataset:
    """`n` different questions on topics that no demonstration and no training row has; the same columns."""
    return tasks.rows(JOINT if joint else TASK, n, seed=seed, held_out=True)
