"""Is the answer right? Judged by `rewards.grading`, the grader that evaluation uses too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rewards.completions import text_of
from rewards.grading import Judgement, Verdict, grade_many
from rewards.grading.pool import NO_TIME

DEADLINES = 6
"""So many time limits may the slow comparisons of one batch take together; a batch full of them must not stop the run."""


def correct(
    completions: Sequence[Any],
    answer: Sequence[Any] | None = None,
    *,
    answer_column: str = "answer",
    boxed_only: bool = False,
    grader_timeout: float = 5.0,
    log_metric: Callable[[str, float], None] | None = None,
    **columns: Any,
) -> list[float | None]:
    """1.0 where the completion's answer equals the gold answer, 0.0 where it does not or there is none.

    None (not judged) where the row has no gold, or one that the grader cannot read and that is not there word for word.
    An answer on which the grader runs into its time limit is wrong, 0.0: what the policy wrote did that, and it must not
    pay. Where a batch holds so many of these that there is no time left for others, the others are None. Such rows, and
    rows without an answer, are logged as shares: `correct/timeout`, `correct/no_answer`.

    Args:
        completions: n texts or conversations; a reasoning span (up to the last `</think>`) does not count.
        answer: n golds: text, numbers or lists; a solution that ends in a box or `#### 18` will do.
        answer_column: the data's column with the golds.
        boxed_only: only what is in a box counts as an answer.
        grader_timeout: seconds for one comparison.

    Raises:
        ValueError: the data has no such column.
        WorkersError: the grader's processes cannot be started.
    """
    verdicts = judge(completions, answer, answer_column, columns, boxed_only, grader_timeout)
    if log_metric is not None and verdicts:
        log_metric("correct/timeout", sum(v.verdict is Judgement.TIMEOUT for v in verdicts) / len(verdicts))
        log_metric("correct/no_answer", sum(v.rule == "no answer" for v in verdicts) / len(verdicts))
    return [value_of(verdict) for verdict in verdicts]


def judge(
    completions: Sequence[Any],
    answer: Sequence[Any] | None,
    answer_column: str,
    columns: dict[str, Any],
    boxed_only: bool,
    timeout: float,
) -> list[Verdict]:
    """The verdicts behind `correct`.

    Raises:
        ValueError: the data has no such column.
    """
    golds = answer if answer_column == "answer" else columns.get(answer_column)
    if golds is None:
        have = ", ".join(sorted(k for k, v in columns.items() if isinstance(v, list))) or "none"
        raise ValueError(
            f'the data has no column "{answer_column}" with the gold answers (others: {have}); set answer_column'
        )
    texts = [text_of(completion) for completion in completions]
    return grade_many(
        zip(golds, texts, strict=True), boxed_only=boxed_only, timeout=timeout, budget=DEADLINES * timeout
    )


def value_of(verdict: Verdict) -> float | None:
    """A verdict as a number: 1.0, 0.0, or None where there is nothing to judge by."""
    if verdict.verdict is Judgement.RIGHT:
        return 1.0
    return None if verdict.rule in ("no gold", "gold not read", NO_TIME) else 0.0
