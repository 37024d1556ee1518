"""Ask, grade, update, until the error is small enough or the budget is spent. Who answers is the caller's business.

An engine answers in `run`, recorded answers in `replay`; both drive the same `Session`, whose choices depend on nothing
but the bank, the settings and the answers. So equal answers give an equal trace, and a broken evaluation goes on by
being given the answers that it has.

With `batch` 1 this is equation 5 of arXiv 2509.11106; more at once is ours, to fill an engine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from posttrain.evaluation.adaptive.ability import Ability, Prior, estimate
from posttrain.evaluation.adaptive.choose import most_informative

BATCH = 10
ITEMS = 50


@dataclass(frozen=True, slots=True)
class Rule:
    """How much is asked."""

    items: int = ITEMS
    """Budget: at most so many items."""
    batch: int = BATCH
    """Items asked at once, chosen by their information at the estimate before them."""
    se: float | None = None
    """Stop once the ability's standard error is below this after a batch, in standard deviations of the calibration models
    (arXiv 2509.11106 sets it to the mean gap between neighbours in rank, `Bank.gap`). A device for the budget: an interval
    made after it is not one of fixed size. The error takes the items' parameters as known."""

    def __post_init__(self) -> None:
        for name in ("items", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: at least 1, not {getattr(self, name)}")
        if self.se is not None and not (math.isfinite(self.se) and self.se > 0):
            raise ValueError(f"se: above 0, not {self.se:g}")


@dataclass(frozen=True, slots=True)
class Step:
    """One answered item, and what is known after it."""

    item: int
    """Index in the bank."""
    share: float
    """Of right samples."""
    samples: int
    ability: float
    se: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Session:
    """One model's way through a bank: `next` names items, `take` hears the answers, until `next` is empty.

    Args:
        a, b: item parameters, (n,).
        start: ability before the first answer; the mean of the calibration models (0 on a standardised scale).
    """

    a: ArrayLike
    b: ArrayLike
    rule: Rule = field(default_factory=Rule)
    prior: Prior = field(default_factory=Prior)
    start: float = 0.0
    trace: list[Step] = field(default_factory=list, init=False)
    stop: str | None = field(default=None, init=False)
    """Why it ended: `se`, `items` (the budget) or `bank` (every item was asked)."""

    def __post_init__(self) -> None:
        self.a, self.b = np.asarray(self.a, dtype=float), np.asarray(self.b, dtype=float)
        if self.a.shape != self.b.shape or self.a.ndim != 1 or not self.a.size:
            raise ValueError("a and b should be lists of one length, with an item at least")
        self.ability = Ability(self.start, self.prior.sd)

    def next(self) -> list[int]:
        """Items to ask now, best first; empty when it is over."""
        if self.stop is not None:
            return []
        asked = [step.item for step in self.trace]
        if self.rule.se is not None and asked and self.ability.se < self.rule.se:
            self.stop = "se"
        elif len(asked) >= self.rule.items:
            self.stop = "items"
        elif len(asked) >= np.size(self.a):
            self.stop = "bank"
        if self.stop is not None:
            return []
        count = min(self.rule.batch, self.rule.items - len(asked))
        return most_informative(self.ability.value, self.a, self.b, asked, count)

    def take(self, items: Sequence[int], shares: Sequence[float], samples: Sequence[int] | None = None) -> None:
        """Answers to the items that `next` named, in its order; the estimate is made anew after each."""
        counts = [1] * len(items) if samples is None else samples
        for item, share, count in zip(items, shares, counts, strict=True):
            asked = [*(s.item for s in self.trace), item]
            self.ability = estimate(
                [*(s.share for s in self.trace), share],
                np.asarray(self.a)[asked],
                np.asarray(self.b)[asked],
                [*(s.samples for s in self.trace), count],
                self.prior,
                start=self.ability.value,
            )
            self.trace.append(Step(item, float(share), int(count), self.ability.value, self.ability.se))


Answers = Callable[[list[int]], tuple[Sequence[float], Sequence[int]]]
"""Item indices → share of right samples of each, and how many samples."""


def play(session: Session, ask: Answers) -> Session:
    """Run a session to its end."""
    while items := session.next():
        session.take(items, *ask(items))
    return session


def replay(session: Session, recorded: Mapping[int, float], samples: Mapping[int, int] | None = None) -> Session:
    """A session whose answers are there already: item index → share of right.

    Raises:
        KeyError: the session wants an item that has no recorded answer.
    """
    counts = samples or {}
    return play(session, lambda items: ([recorded[i] for i in items], [counts.get(i, 1) for i in items]))


def rescore(trace: Sequence[Step], a: ArrayLike, b: ArrayLike, prior: Prior | None = None) -> list[Ability]:
    """The abilities of a recorded trace under other item parameters (after a refit): same items, same answers."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    items, shares, counts = [s.item for s in trace], [s.share for s in trace], [s.samples for s in trace]
    return [
        estimate(shares[:t], a[items[:t]], b[items[:t]], counts[:t], prior or Prior())
        for t in range(1, len(trace) + 1)
    ]
