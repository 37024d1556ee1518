"""What every evaluation ends with, full or adaptive: its `Result`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from posttrain.evaluation import cost
from posttrain.evaluation.asking import Asking
from posttrain.evaluation.benchmarks.base import Problem
from posttrain.evaluation.provenance import digest_of, dtype_of, versions
from posttrain.evaluation.results import Result
from posttrain.evaluation.summary import grouped
from rewards.grading import GRADER


@dataclass(frozen=True, slots=True)
class Frame:
    """What is known of an evaluation before its first answer."""

    asking: Asking
    settings: Mapping[str, Any]
    """See `sampling.settings_of`."""
    model: str
    adapter: str | None
    samples: int
    when: str | None
    device: cost.Device
    flops_per_byte: float | None
    started: float
    """By `time.monotonic`."""

    def result(
        self,
        problems: Sequence[Problem],
        lines: Sequence[Mapping[str, Any]],
        summed: Mapping[str, Any],
        handed_over: int,
        **more: Any,
    ) -> Result:
        """The result of these samples of these problems.

        Args:
            summed: what they add up to (`summary.summary`).
            handed_over: requests that the engine was given at once.
            more: other fields of `Result`.
        """
        asking, engine = self.asking, self.asking.engine
        return Result(
            benchmark=asking.benchmark.name,
            when=self.when,
            n=len(problems),
            k=self.samples,
            model=self.model,
            adapter=self.adapter,
            engine=self.settings["engine"],
            sampling=self.settings["sampling"],
            seed=asking.seed,
            prompt_style=asking.style.name,
            prompt_hash=asking.style.hash(),
            grader=dict(GRADER),
            **summed,
            cost=cost.block(
                grouped(problems, lines),
                device=self.device,
                shape=cost.shape_of_engine(engine),
                intensity=self.flops_per_byte,
                model=self.model,
                engine=self.settings["engine"],
                samples=self.samples,
                max_tokens=asking.sampling.max_tokens,
                temperature=asking.sampling.temperature,
                handed_over=handed_over,
            ),
            seconds=round(time.monotonic() - self.started, 3),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=versions(),
            settings=digest_of(self.settings),
            dtype=dtype_of(engine),
            **more,
        )
