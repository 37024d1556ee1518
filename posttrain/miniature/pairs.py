"""Preference pairs on a policy's own ground: a right and a wrong answer of one problem, both sampled from the model."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from posttrain.errors import Mistake
from posttrain.miniature import cache
from posttrain.miniature.task import Message, Task, row, stream

if TYPE_CHECKING:
    from datasets import Dataset

P = TypeVar("P")
AT_ONCE = 512
"""Samples in one call of the engine."""


def pairs(
    task: Task[P], model: str, n: int, *, samples: int = 4, seed: int = 0, max_tokens: int = 128, least: float = 0.02
) -> Dataset:
    """`n` training problems: columns of `task.row`, and `chosen`, `rejected` (messages). From the cache if it is there.

    Right means a score of 1, wrong one of 0; samples in between, and those cut off at `max_tokens`, are not used.

    Args:
        model: directory of a miniature (`base()` of its task).
        samples: drawn for each problem, at temperature 1.
        least: share of the problems that must give a pair.

    Raises:
        Mistake: fewer do, so that this would take very long.
    """
    from datasets import Dataset

    if samples < 2:
        raise Mistake(f"pairs: samples is {samples}; a right and a wrong answer need at least 2")
    if n < 1:
        raise Mistake(f"pairs: n is {n}; it must be 1 or more")
    where = Path(model).resolve()
    ingredients = {
        "task": task.name,
        "model": where.name if (where / cache.MADE).exists() else f"{where} {_stamp(where)}",
        "n": n,
        "samples": samples,
        "seed": seed,
        "max_tokens": max_tokens,
        "versions": cache.versions(),
    }

    def make(directory: Path) -> None:
        made = _sampled(task, str(where), n, samples, seed, max_tokens, least)
        Dataset.from_list(made).save_to_disk(directory / "rows")

    return Dataset.load_from_disk(str(cache.cached(f"{task.name}-pairs", ingredients, make) / "rows"))


def _stamp(directory: Path) -> str:
    return " ".join(str(file.stat().st_mtime_ns) for file in sorted(directory.glob("*.safetensors")))


def _sampled(
    task: Task[P], model: str, n: int, samples: int, seed: int, max_tokens: int, least: float
) -> list[dict[str, Any]]:
    from transformers import AutoTokenizer

    from posttrain.miniature.tokenizer import END, MAX_LENGTH, STOP
    from rollouts.engines.transformers import TransformersEngine
    from rollouts.records import Ask, EngineSpec, Row, Sampling, Session
    from rollouts.strategies.single import SingleTurn

    tokenizer = AutoTokenizer.from_pretrained(model)
    eos = tuple(tokenizer.convert_tokens_to_ids([END, STOP]))
    engine = TransformersEngine(EngineSpec(model, eos, tokenizer.pad_token_id, MAX_LENGTH))
    session = Session(engine, tokenizer, Sampling(max_tokens=max_tokens), run_seed=seed)
    rng = random.Random(f"{task.name}/pairs/{seed}")
    batch = max(1, AT_ONCE // samples)
    made: list[dict[str, Any]] = []
    tried = 0
    unseen = stream(task, seed=seed, held_out=False)
    while chunk := list(itertools.islice(unseen, batch)):
        rows = [row(task, problem) for problem in chunk]
        asks = [Ask(Row(r["row_id"], r["prompt"]), k) for r in rows for k in range(samples)]
        rollouts = SingleTurn().run(asks, session)
        for i, (problem, columns) in enumerate(zip(chunk, rows, strict=True)):
            right, wrong = [], []
            for rollout in rollouts[i * samples : (i + 1) * samples]:
                if rollout.finish != "stop":
                    continue
                said: list[Message] = [{"role": "assistant", "content": _text(tokenizer, rollout.completion_ids)}]
                score = task.score(problem, said)
                if score in (0.0, 1.0):
                    (right if score else wrong).append(said)
            if right and wrong:
                made.append({**columns, "chosen": rng.choice(right), "rejected": rng.choice(wrong)})
        tried += len(chunk)
        if len(made) >= n:
            return made[:n]
        if tried >= 20 * batch and len(made) < least * tried:
            raise Mistake(
                f"pairs: only {len(made)} of {tried} problems of {task.name} gave a right and a wrong answer in "
                f"{samples} samples; draw more samples"
            )
    raise Mistake(f"pairs: {task.name} has training problems for {len(made)} pairs only, and {n} are wanted")


def _text(tokenizer: Any, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True)
