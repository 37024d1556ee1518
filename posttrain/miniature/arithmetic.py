"""Three-digit additions, column by column, with a boxed answer; and a base model that mostly forgets to carry.

    358+467   →   8+7+0=15, 5+6+1=12, 3+4+1=8 \\boxed{825}
             or   ones: 8+7+0=15, tens: 5+6+1=12, hundreds: 3+4+1=8 \\boxed{825}

Both manners are equally frequent in the demonstrations, so that a reward for brevity has something to choose. In the
base's demonstrations each carry is dropped with probability 0.7: sampled, four or five of ten answers are right; greedily it
never carries, so that training has to overturn what it believes, not only to sharpen it.
"""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from posttrain.miniature import task as tasks
from posttrain.miniature.task import Message
from posttrain.miniature.train import Schedule

if TYPE_CHECKING:
    from datasets import Dataset

PLACES = ("ones", "tens", "hundreds")
DROP = 0.7
"""How often the base's demonstrations drop a carry."""
SCHEDULE = Schedule(steps=350, batch=64, learning_rate=3e-3)
BOXED = re.compile(r"\\boxed\{([^{}]*)\}")


@dataclass(frozen=True)
class Sum:
    """Two numbers of three digits, in the order in which they are shown."""

    a: int
    b: int


class Arithmetic:
    """The task. Problems that differ only in the order of the two numbers are on the same side of the split."""

    name = "arithmetic"

    def draw(self, rng: random.Random) -> Sum:
        return Sum(rng.randint(100, 999), rng.randint(100, 999))

    def name_of(self, problem: Sum) -> str:
        return f"{min(problem.a, problem.b)}+{max(problem.a, problem.b)}"

    def is_held_out(self, problem: Sum) -> bool:
        """One pair in ten, by its hash."""
        return hashlib.blake2b(self.name_of(problem).encode(), digest_size=8).digest()[0] % 10 == 0

    def prompt(self, problem: Sum) -> list[Message]:
        return [{"role": "user", "content": f"{problem.a}+{problem.b}"}]

    def columns(self, problem: Sum) -> dict[str, Any]:
        return {"question": f"{problem.a}+{problem.b}", "answer": str(problem.a + problem.b)}

    def solve(self, problem: Sum) -> list[Message]:
        return _said(_trace(problem, dropped=(), wordy=False))

    def wrong(self, problem: Sum, rng: random.Random) -> list[Message]:
        """Drops the carry of one place, or where there is none, adds one that is not there."""
        carries = [i for i in range(2) if _carry(problem, i)]
        wordy = rng.random() < 0.5
        if carries:
            return _said(_trace(problem, dropped=(rng.choice(carries),), wordy=wordy))
        return _said(_trace(problem, dropped=(), wordy=wordy, invented=(rng.choice((0, 1)),)))

    def demonstrate(self, problem: Sum, rng: random.Random, *, flawed: float) -> list[Message]:
        """`flawed`: the probability with which each carry is dropped."""
        dropped = tuple(i for i in range(2) if rng.random() < flawed)
        return _said(_trace(problem, dropped=dropped, wordy=rng.random() < 0.5))

    def score(self, problem: Sum, continuation: list[Message]) -> float:
        """1 if the last box holds the sum, written in digits; else 0."""
        boxes = BOXED.findall(continuation[-1]["content"])
        return float(bool(boxes) and boxes[-1].strip() == str(problem.a + problem.b))


TASK = Arithmetic()


def _said(text: str) -> list[Message]:
    return [{"role": "assistant", "content": text}]


def _carry(problem: Sum, place: int) -> bool:
    size = 10 ** (place + 1)
    return problem.a % size + problem.b % size >= size


def _trace(problem: Sum, *, dropped: tuple[int, ...], wordy: bool, invented: tuple[int, ...] = ()) -> str:
    """The sum from right to left, with the carries out of the places in `dropped` forgotten, and out of those in
    `invented` made up."""
    columns, total, carry = [], 0, 0
    for place, label in enumerate(PLACES):
        u, v = problem.a // 10**place % 10, problem.b // 10**place % 10
        here = u + v + carry
        columns.append(f"{label}: " * wordy + f"{u}+{v}+{carry}={here}")
        last = place == len(PLACES) - 1
        total += (here if last else here % 10) * 10**place
        carry = 1 if place in invented else 0 if place in dropped else here // 10
    return f"{', '.join(columns)} \\boxed{{{total}}}"


def base(seed: int = 0, drop: float = DROP, show: bool = True) -> str:
    """The directory of the base model: trained on flawed demonstrations the first time, in the cache afterwards.

    Args:
        seed: of weights, problems and order.
        drop: how often a demonstration drops a carry. At 0.9 right answers are so rare that few samples a prompt
            hold one.
        show: a progress bar on standard error.

    Measured on 512 held-out problems (seeds 0, 1, 2): 0.430, 0.453, 0.457 right when sampled at temperature 1, and 0.297
    greedily on each seed (it then never carries). 54 s of training on 2 idle cores of an AVX-512 EPYC (seeds 0 and 2).
    """
    from posttrain.miniature.base import base as made

    return made(TASK, SCHEDULE, seed=seed, flawed=float(drop), show=show)


def train(n: int = 4096, seed: int = 0) -> Dataset:
    """`n` different training problems: `row_id`, `prompt` (messages), `question`, `answer`."""
    return tasks.rows(TASK, n, seed=seed, held_out=False)


def held_out(n: int = 512, seed: int = 0) -> Dataset:
    """`n` different problems that no training problem and no demonstration shares; the same columns."""
    return tasks.rows(TASK, n, seed=seed, held_out=True)


def demonstrations(n: int = 4096, flawed: bool = False, seed: int = 0) -> Dataset:
    """Training problems with a `completion` (messages) each: right ones, or flawed ones like those the base has seen."""
    return tasks.demonstrations(TASK, n, seed=seed, flawed=DROP if flawed else 0.0)


def solve(problem: str) -> str:
    """The reference solution of a question such as `358+467`.

    Raises:
        ValueError: not a sum of two numbers of three digits.
    """
    found = re.fullmatch(r"\s*([1-9]\d\d)\s*\+\s*([1-9]\d\d)\s*", problem, re.ASCII)
    if not found:
        raise ValueError(f"not a sum of two numbers of three digits: {problem[:60]!r}")
    return TASK.solve(Sum(int(found[1]), int(found[2])))[-1]["content"]


def pairs(
    n: int = 1024, samples: int = 4, seed: int = 0, base_seed: int = 0, drop: float = DROP, show: bool = True
) -> Dataset:
    """`n` training problems with a right and a wrong answer (`chosen`, `rejected`: messages) that the base sampled.

    Args:
        samples: samples a problem; problems whose samples are all right or all wrong give no pair.
        seed: of problems and samples.
        base_seed, drop: which base (`base(base_seed, drop)`), so that the pairs are the policy's own.
    """
    from posttrain.miniature.pairs import pairs as made

    return made(TASK, base(base_seed, drop, show), n, samples=samples, seed=seed)
