"""What a synthetic task is, and the data sets that follow from it.

A task is a small object with the methods of `Task`; problems are its own frozen dataclasses. A task of several turns
(asking a user, correcting a trace) demonstrates whole chats; a task with hidden facts (a rubric, a specification) puts
them into columns, where rewards and strategies find them and the policy does not.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from posttrain.errors import Mistake

if TYPE_CHECKING:
    from datasets import Dataset

Message = dict[str, str]
P = TypeVar("P")


class Task(Protocol[P]):
    """One synthetic task. All randomness comes from the `rng` that is handed in."""

    name: str
    """Short, of letters, digits and dashes; the first part of every `row_id`."""

    def draw(self, rng: random.Random) -> P:
        """Some problem, of either side of the split."""
        ...

    def name_of(self, problem: P) -> str:
        """Equal for problems that count as the same, different otherwise: what `row_id` ends with."""
        ...

    def is_held_out(self, problem: P) -> bool:
        """The side of the split, decided by the problem alone; at most a fifth or so should be held out."""
        ...

    def prompt(self, problem: P) -> list[Message]:
        """What the policy sees: messages that end with a user turn."""
        ...

    def columns(self, problem: P) -> dict[str, Any]:
        """What rewards, strategies and graders see: `question`, `answer` (the gold one), and the task's own."""
        ...

    def solve(self, problem: P) -> list[Message]:
        """The reference solver: a right continuation of the prompt, its last message the assistant's."""
        ...

    def wrong(self, problem: P, rng: random.Random) -> list[Message]:
        """A continuation that is sure to be wrong and easily mistaken for a right one."""
        ...

    def demonstrate(self, problem: P, rng: random.Random, *, flawed: float) -> list[Message]:
        """A continuation to imitate, in one of the task's manners. `flawed` in [0, 1]: how often it goes astray."""
        ...

    def score(self, problem: P, continuation: list[Message]) -> float:
        """How good a continuation is, in [0, 1]: exact, by code, without a judge. 1 = right."""
        ...


def stream(task: Task[P], *, seed: int, held_out: bool) -> Iterator[P]:
    """Different problems of one side of the split, until (as good as) all of them have been seen."""
    rng = random.Random(f"{task.name}/{'held out' if held_out else 'train'}/{seed}")
    seen: set[str] = set()
    idle = 0
    while idle < 100_000:
        problem = task.draw(rng)
        name = task.name_of(problem)
        if task.is_held_out(problem) != held_out or name in seen:
            idle += 1
            continue
        idle = 0
        seen.add(name)
        yield problem


def problems(task: Task[P], n: int, *, seed: int, held_out: bool) -> list[P]:
    """`n` different problems of one side of the split. A longer list of the same seed begins with the shorter one.

    Raises:
        Mistake: the task has fewer.
    """
    if n < 1:
        raise Mistake(f"{task.name}: n is {n}; it must be 1 or more")
    drawn = list(itertools.islice(stream(task, seed=seed, held_out=held_out), n))
    if len(drawn) < n:
        side = "held-out" if held_out else "training"
        raise Mistake(f"{task.name}: {n} {side} problems are wanted, and there are only {len(drawn)}")
    return drawn


def row(task: Task[P], problem: P) -> dict[str, Any]:
    """A row as trainers and benchmarks read it: `row_id`, `prompt` (messages), and the task's columns."""
    return {
        "row_id": f"{task.name}/{task.name_of(problem)}",
        "prompt": task.prompt(problem),
        **task.columns(problem),
    }


def rows(task: Task[P], n: int, *, seed: int, held_out: bool) -> Dataset:
    """A data set of `n` different problems: columns `row_id`, `prompt`, `question`, `answer` and the task's own."""
    from datasets import Dataset

    return Dataset.from_list([row(task, problem) for problem in problems(task, n, seed=seed, held_out=held_out)])


def demonstrations(task: Task[P], n: int, *, seed: int, flawed: float) -> Dataset:
    """Training problems with a `completion` (messages) to imitate each, for `sft`."""
    from datasets import Dataset

    rng = random.Random(f"{task.name}/demonstrations/{seed}")
    made = [
        {**row(task, problem), "completion": task.demonstrate(problem, rng, flawed=flawed)}
        for problem in problems(task, n, seed=seed, held_out=False)
    ]
    return Dataset.from_list(made)
