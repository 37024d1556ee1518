"""How much of a scaffold a sample sees: ratios within a group and over the training, and the part that is drawn.

Source of the formulas: RuscaRL (arXiv 2508.16949v6, section 4) and, where it is silent, its released code. What is ours is
said to be.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Literal, get_args

Inter = Literal["sigmoid", "constant", "linear", "power", "step", "adaptive"]
Intra = Literal["linear", "binary", "all"]

INTER: tuple[str, ...] = get_args(Inter)
INTRA: tuple[str, ...] = get_args(Intra)


def elapsed(step: int, steps: int) -> float:
    """t = (s - 1) / (S - 1), at most 1: how much of a run is over at rollout iteration s = 1..S (the released code's; the paper
    says only that t goes from 0 to 1). A run of one iteration is at its beginning (ours)."""
    return min((step - 1) / (steps - 1), 1.0) if steps > 1 else 0.0


def over_time(kind: str, t: float, *, alpha: float = 125.0, t0: float = 0.2, power: float = 2.0) -> float:
    """The ratio lam(t) of a schedule that looks at the time alone, t in [0, 1].

    `sigmoid`: 1 / (1 + exp(alpha (t - t0))) (paper). `constant`: 1, `linear`: 1 - t, `power`: (1 - t)^power (the paper's
    ablations). `step`: 1 before t0 and 0 from there on (ours: the sigmoid's limit for large alpha).
    """
    if kind == "sigmoid":
        x = alpha * (t - t0)
        # exp of a large number overflows, of a small one it does not.
        return 1.0 / (1.0 + math.exp(x)) if x <= 0 else math.exp(-x) / (1.0 + math.exp(-x))
    if kind == "constant":
        return 1.0
    if kind == "linear":
        return 1.0 - t
    if kind == "power":
        return (1.0 - t) ** power
    if kind == "step":
        return 1.0 if t < t0 else 0.0
    raise ValueError(f"{kind!r} is no schedule over time")


def by_pass_rate(rate: float | None, enough: float) -> float:
    """The ratio of a row whose last group passed at `rate` (None: not met yet): 1 - rate / enough, not below 0 (ours)."""
    return 1.0 if rate is None else max(0.0, 1.0 - rate / enough)


def in_group(kind: str, sample: int, group: int, m: int = 0) -> float:
    """The ratio lam_i of sample i = `sample` + 1 of a group of G.

    `linear`: (G - i) / (G - 1), so that the first sees all and the last nothing; 1 for G = 1 (released code). `binary`: 1 for
    the first m, 0 for the rest. `all`: 1 (that is `binary` with m = G).
    """
    if kind == "linear":
        return (group - 1 - sample) / (group - 1) if group > 1 else 1.0
    if kind == "binary":
        return 1.0 if sample < m else 0.0
    if kind == "all":
        return 1.0
    raise ValueError(f"{kind!r} is no schedule within a group")


def count(ratio: float, items: int) -> int:
    """n = round(ratio x items), halves to the even number: Python's own rounding (released code). 0 is allowed."""
    return min(round(ratio * items), items)


def subset(items: int, ratio: float, seed: int) -> list[int]:
    """Which of `items` are shown, and in which order: all in theirs at ratio 1, else `count` of them, drawn without replacement
    and shuffled, also where that is all of them (released code). `seed` alone decides."""
    if ratio >= 1.0:
        return list(range(items))
    return random.Random(seed).sample(range(items), count(ratio, items))


def prefix(steps: int, ratio: float, more: Sequence[int] = ()) -> list[int]:
    """The first `count` of `steps`, in order; at ratio 1 all of them and `more` (ours: hints that build on each other are
    nested, not drawn)."""
    return [*range(steps), *more] if ratio >= 1.0 else list(range(count(ratio, steps)))
