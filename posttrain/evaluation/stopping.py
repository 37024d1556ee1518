"""Sampling that stops when enough is known: problems in random order, an interval that may be looked at at any time."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.errors import Mistake
from posttrain.evaluation.benchmarks.base import Problem
from posttrain.evaluation.progress import said
from posttrain.evaluation.results import by_item
from posttrain.evaluation.statistics.anytime import Anytime
from rollouts.seeds import derive

RULE = "until-interval"


class UntilInterval:
    """Stops at the first problem, in a seeded random order, after which the interval of the accuracy is narrow enough.

    Where it stops depends on the samples alone: not on how many were asked at once, nor on how often it was cut off. What it
    estimates is the accuracy on all problems, as if every one had been asked.

    Args:
        points: half-width (of 100) under which it stops.
        problems: all of them.
        samples: samples a problem.
        seed: of the order.

    Raises:
        Mistake: points not between 0 and 50.
    """

    def __init__(self, points: float, problems: Sequence[Problem], samples: int, seed: int):
        if not 0 < points < 50:
            raise Mistake(f"until-interval: a half-width between 0 and 50 points, not {points:g}")
        self.points = float(points)
        self.samples = samples
        self.order_seed = derive(seed, "order")
        by_id = sorted(problems, key=lambda p: p.item_id)  # so that the file's order does not matter
        self.problems = random.Random(self.order_seed).sample(by_id, len(by_id))
        self.interval = Anytime(population=len(problems), aim=self.points / 100)
        self.reached = False

    def look(self, lines: Sequence[Mapping[str, Any]]) -> bool:
        """True if it may stop. Takes all lines so far; problems count once all their samples are there."""
        found = by_item(dict(line) for line in lines if line["sample"] < self.samples)
        while not self.reached and self.interval.n < len(self.problems):
            item = found.get(self.problems[self.interval.n].item_id, [])
            if len(item) < self.samples:
                break
            self.interval.add(min(1.0, sum(line["score"] for line in item) / self.samples))
            self.reached = self.interval.half_width * 100 < self.points
        return self.reached

    def tell(self, lines: Sequence[Mapping[str, Any]]) -> str:
        """Accuracy so far with the interval by which it stops, for the progress bar."""
        return said(self.interval.mean, self.interval.low, self.interval.high)

    @property
    def counted(self) -> list[Problem]:
        """The problems up to where it stopped."""
        return self.problems[: self.interval.n]

    def record(self) -> dict[str, Any]:
        """`Result.stopped`."""
        return {
            "rule": RULE,
            "points": self.points,
            "half_width": self.interval.half_width * 100,
            "reached": self.reached,
            "asked": self.interval.n,
            "of": len(self.problems),
            "order_seed": self.order_seed,
        }

    def is_of(self, record: Mapping[str, Any] | None) -> bool:
        """True if a stored record is of this very rule."""
        mine = self.record()
        return record is not None and all(
            record.get(key) == mine[key] for key in ("rule", "points", "of", "order_seed")
        )
