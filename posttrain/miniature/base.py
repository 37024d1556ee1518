"""From a task's flawed demonstrations to a trained base model on disk."""

from __future__ import annotations

import importlib
import random
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from posttrain.miniature import cache, models, tokenizer, train
from posttrain.miniature.task import Message, Task

P = TypeVar("P")


def base(task: Task[P], schedule: train.Schedule, *, seed: int, flawed: float, show: bool = True) -> str:
    """The directory of a model trained from scratch on the task's demonstrations; from the cache if it is there.

    Args:
        flawed: how often a demonstration goes astray (`Task.demonstrate`).
        show: a progress bar on standard error, where that is a terminal.

    Raises:
        Mistake: the cache directory cannot be written.
    """
    own = importlib.import_module(type(task).__module__)
    ingredients = {
        "task": task.name,
        "seed": seed,
        "flawed": flawed,
        "schedule": asdict(schedule),
        "code": cache.fingerprint(own, importlib.import_module(__name__), models, tokenizer, train),
        "versions": cache.versions(),
    }

    def make(directory: Path) -> None:
        built = tokenizer.build()
        wanted = schedule.steps * schedule.batch
        chats = [chat for chat, _ in zip(_chats(task, seed, flawed), range(wanted), strict=False)]
        model = train.train(built, chats, schedule, seed=seed, title=f"training miniature/{task.name}", show=show)
        models.save(model, built, directory)

    return str(cache.cached(f"{task.name}-base", ingredients, make))


def _chats(task: Task[P], seed: int, flawed: float) -> Iterator[list[Message]]:
    """Demonstrations of training problems without end; problems may come again."""
    rng = random.Random(f"{task.name}/base/{seed}")
    while True:
        problem = task.draw(rng)
        if not task.is_held_out(problem):
            yield [*task.prompt(problem), *task.demonstrate(problem, rng, flawed=flawed)]
