"""Where a step's time goes. Phases nest, and time is counted once: entering an inner phase pauses the outer one."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from rollouts import pulse

PHASES = ("generation", "rewards", "logprobs", "training", "sync", "other")


class Timer:
    """Seconds by phase since the last `take`. What no phase covers is `other`."""

    def __init__(self) -> None:
        self._spent: dict[str, float] = defaultdict(float)
        self._stack: list[str] = []
        self._mark = self._start = time.perf_counter()

    @property
    def phase(self) -> str:
        """The phase that is under way; `other` between phases. Any thread may ask."""
        stack = self._stack[-1:]
        return stack[0] if stack else "other"

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        self._tick()
        self._stack.append(phase)
        try:
            yield
        finally:
            self._tick()
            self._stack.pop()

    def _tick(self) -> None:
        pulse.beat()
        now = time.perf_counter()
        if self._stack:
            self._spent[self._stack[-1]] += now - self._mark
        self._mark = now

    def take(self) -> dict[str, float]:
        """Seconds by phase, then start again. The values sum to the wall time since the last call."""
        self._tick()
        spent = {phase: self._spent.get(phase, 0.0) for phase in PHASES}
        named = sum(seconds for phase, seconds in spent.items() if phase != "other")
        spent["other"] = max(0.0, self._mark - self._start - named)
        self._spent.clear()
        self._start = self._mark
        return spent


class Meter:
    """What each named piece of work has cost so far: wall seconds, and processor seconds of the thread that did it."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = defaultdict(float)
        self.processor: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        wall, processor = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            self.wall[name] += time.perf_counter() - wall
            self.processor[name] += time.thread_time() - processor
