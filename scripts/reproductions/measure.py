"""What a policy of the behaviours does on held-out topics, never scaffolded: scored by the task's own code, not by the reward."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from posttrain import adapters, engines, models
from posttrain.evaluation.statistics.curves import best_of_n
from posttrain.miniature import behaviours
from posttrain.miniature.hints import Hints
from posttrain.miniature.task import problems, row
from posttrain.recipe.schema import Model
from rollouts.records import Ask, Policy, Row, Sampling, Session
from rollouts.strategies.single import SingleTurn

MAX_TOKENS = 32
"""The limit of the recipes."""
AT_ONCE = 512
"""Samples in one call of the engine."""
LARGE = 64
"""The larger N of best-of-N (8 is the other)."""


class Sampler:
    """A base, with an adapter on top or without, that answers questions."""

    def __init__(self, base: Path, adapter: Path | None, seed: int):
        setting = Model.model_validate({"name": str(base)})
        self.tokenizer = models.load_tokenizer(setting)
        rank = None if adapter is None else adapters.rank_of(adapter, "adapter")
        self.engine = engines.build(
            "transformers", {}, engines.spec(setting, self.tokenizer, lora_rank=rank), "engine"
        )
        self.engine.sync(Policy(version=0, adapter_dir=None if adapter is None else str(adapter.resolve())))
        self.seed = seed

    def ask(self, rows: Sequence[Row], samples: int) -> list[list[tuple[str, int, bool]]]:
        """For each row its samples: the text, its tokens, and whether it ended by itself."""
        session = Session(self.engine, self.tokenizer, Sampling(max_tokens=MAX_TOKENS), run_seed=self.seed)
        asks = [Ask(one, k) for one in rows for k in range(samples)]
        made = []
        for i in range(0, len(asks), AT_ONCE):
            made += SingleTurn().run(asks[i : i + AT_ONCE], session)
        said = [
            (
                self.tokenizer.decode(r.completion_ids, skip_special_tokens=True),
                len(r.completion_ids),
                r.finish == "stop",
            )
            for r in made
        ]
        return [said[i * samples : (i + 1) * samples] for i in range(len(rows))]


def rows_of(task: Any, questions: Iterable[Any], hinted: bool) -> list[Row]:
    """The questions as they are asked; `hinted`: with the whole rubric shown."""
    scaffold, found = Hints(), []
    for question in questions:
        raw = row(task, question)
        one = Row(raw["row_id"], raw["prompt"], {"rubric": raw["rubric"]})
        shown = scaffold.prompt(one, range(len(raw["rubric"]))) if hinted else one.prompt
        found.append(Row(one.row_id, shown, one.columns))
    return found


def measured(base: Path, adapter: Path | None, joint: bool, seed: int, samples: int, n: int) -> dict[str, Any]:
    """Scores of `n` held-out questions, `samples` answers each; lists have one entry a question.

    `score`: mean. `best_8`, `best_64`: what the best of so many would score, over all subsets of the samples (unbiased; absent where
    there are fewer samples). `hinted`: mean score with the whole rubric shown, two samples a question.
    """
    task = behaviours.JOINT if joint else behaviours.TASK
    questions = problems(task, n, seed=0, held_out=True)
    sampler = Sampler(base, adapter, seed)
    said = sampler.ask(rows_of(task, questions, False), samples)
    scores = [[_score(task, q, text) for text, _, _ in one] for q, one in zip(questions, said, strict=True)]
    shown = sampler.ask(rows_of(task, questions, True), 2)
    hinted = [sum(_score(task, q, text) for text, _, _ in one) / 2 for q, one in zip(questions, shown, strict=True)]
    every = [sample for one in said for sample in one]
    found = {
        "score": [sum(one) / len(one) for one in scores],
        "full_marks": sum(s == 1.0 for one in scores for s in one) / len(every),
        "categories": categories(questions, said, joint),
        "length": sum(tokens for _, tokens, _ in every) / len(every),
        "unended": sum(not ended for _, _, ended in every) / len(every),
        "hinted": sum(hinted) / len(hinted),
    }
    for size in (8, LARGE):
        if size <= samples:
            found[f"best_{size}"] = [best_of_n(one, one, size) for one in scores]
    return {key: [round(v, 6) for v in value] if isinstance(value, list) else value for key, value in found.items()}


def _score(task: behaviours.Behaviours, question: behaviours.Question, text: str) -> float:
    return task.score(question, [{"role": "assistant", "content": text}])


def categories(
    questions: Sequence[behaviours.Question], said: Sequence[Sequence[tuple[str, int, bool]]], joint: bool
) -> int:
    """In how many categories each behaviour that is asked for is in more than half of the answers that have an end."""
    answers: dict[str, list[tuple[str, str]]] = {}
    for question, one in zip(questions, said, strict=True):
        answers.setdefault(question.category, []).extend((question.topic, text) for text, _, _ in one)
    met = 0
    for category, texts in answers.items():
        wanted = [code for c in behaviours.rubric(category, joint) if c.points > 0 for code in c.codes]
        there = [
            sum(behaviours.ended(text) and behaviours.segment(code, topic) in text for topic, text in texts)
            for code in wanted
        ]
        met += all(count > len(texts) / 2 for count in there)
    return met


def scaffolded_answers(base: Path, joint: bool, seed: int, n: int, least: float) -> list[Mapping[str, Any]]:
    """`n` answers of the base to training questions with the whole rubric shown, eight a question; those that score above `least`,
    as rows to imitate without it."""
    task = behaviours.JOINT if joint else behaviours.TASK
    questions = problems(task, n // 8, seed=seed, held_out=False)
    said = Sampler(base, None, seed).ask(rows_of(task, questions, True), 8)
    return [
        {"prompt": task.prompt(question), "completion": [{"role": "assistant", "content": text}]}
        for question, one in zip(questions, said, strict=True)
        for text, _, ended in one
        if ended and _score(task, question, text) > least
    ]
