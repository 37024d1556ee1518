"""How long is the completion, in tokens?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rewards.math import judge, value_of


def soft_overlong(
    completion_ids: Sequence[Sequence[int]], *, max_length: int, cache: int, **columns: Any
) -> list[float]:
    """0 up to `max_length - cache` tokens, then falling linearly to -1 at `max_length`, -1 beyond.

    DAPO (arXiv 2503.14476), equation 13. With n = len(ids): ((max_length - cache) - n) / cache between the two.

    Raises:
        ValueError: not 0 <= cache <= max_length.
    """
    if not (0 <= cache <= max_length and max_length > 0):
        raise ValueError(
            f"soft_overlong: needs 0 <= cache <= max_length, not cache {cache} and max_length {max_length}"
        )
    free = max_length - cache
    return [
        0.0 if len(ids) <= free else max((free - len(ids)) / cache, -1.0) if cache else -1.0 for ids in completion_ids
    ]


def cosine(
    completions: Sequence[Any],
    completion_ids: Sequence[Sequence[int]],
    answer: Sequence[Any] | None = None,
    *,
    max_length: int,
    min_wrong: float = -1.0,
    max_wrong: float = -0.5,
    min_correct: float = 0.5,
    max_correct: float = 1.0,
    overlong: float | None = None,
    answer_column: str = "answer",
    boxed_only: bool = False,
    grader_timeout: float = 5.0,
    **columns: Any,
) -> list[float | None]:
    """A right answer is worth more the shorter it is, a wrong one less the shorter it is, along half a cosine.

    With t = min(n / max_length, 1) for n tokens: end + (start - end) (1 + cos(pi t)) / 2, where start → end is
    `max_correct` → `min_correct` for right answers and `min_wrong` → `max_wrong` for wrong ones. Demystifying Long
    Chain-of-Thought (arXiv 2502.03373), appendix C.1, with open-r1's values. `overlong` is the paper's extra
    reward for n >= max_length (it takes -10); None = the end of the curve. None where `rewards.math:correct` gives None.

    Raises:
        ValueError: max_length below 1, or no column with the golds.
    """
    if max_length < 1:
        raise ValueError(f"cosine: max_length must be at least 1, not {max_length}")
    verdicts = judge(completions, answer, answer_column, columns, boxed_only, grader_timeout)
    values: list[float | None] = []
    for verdict, ids in zip(verdicts, completion_ids, strict=True):
        right = value_of(verdict)
        if right is None:
            values.append(None)
        elif overlong is not None and len(ids) >= max_length:
            values.append(float(overlong))
        else:
            start, end = (max_correct, min_correct) if right else (min_wrong, max_wrong)
            values.append(end + (start - end) * (1 + math.cos(math.pi * min(len(ids) / max_length, 1.0))) / 2)
    return values
