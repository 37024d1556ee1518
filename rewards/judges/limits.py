"""How much may be asked of an endpoint: at once, and in a minute."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager, suppress

MINUTE = 60.0


def processes() -> int:
    """Training processes of the run that this one belongs to."""
    world = os.environ.get("WORLD_SIZE", "1")
    return max(1, int(world)) if world.isdecimal() else 1


class Window:
    """At most `limit` of something in any span of `seconds`. Time is handed in.

    One amount above the limit passes alone, when nothing else is in the span; it counts for as many spans as it is limits.
    """

    def __init__(self, limit: float, seconds: float = MINUTE):
        self.limit = limit
        self.seconds = seconds
        self._taken: deque[list[float]] = deque()
        self._sum = 0.0

    def wait(self, now: float, amount: float) -> float:
        """Seconds until `amount` may be taken; 0 = at once."""
        while self._taken and self._gone(self._taken[0]) <= now:
            self._sum -= self._taken.popleft()[1]
        if not self._taken:
            self._sum = 0.0
            return 0.0
        over, until = self._sum + amount - self.limit, 0.0
        if over <= 0:
            return 0.0
        for entry in self._taken:
            over -= entry[1]
            until = max(until, self._gone(entry))
            if over <= 0:
                break
        return max(until - now, 1e-3)

    def _gone(self, entry: list[float]) -> float:
        return entry[0] + self.seconds * max(1.0, entry[1] / self.limit)

    def take(self, now: float, amount: float) -> list[float]:
        """Count it. The entry may be corrected by `correct` once it is known what it came to."""
        entry = [now, amount]
        self._taken.append(entry)
        self._sum += amount
        return entry

    def correct(self, entry: list[float], amount: float) -> None:
        if any(entry is one for one in self._taken):
            self._sum += amount - entry[1]
            entry[1] = amount


async def _always() -> None:
    pass


_windows: dict[tuple[Hashable, str, float], Window] = {}
"""What was asked of each endpoint in this process, by whatever judge and in whatever event loop."""


def _window(who: Hashable, what: str, limit: float | None) -> Window | None:
    if limit is None:
        return None
    return Window(limit) if who is None else _windows.setdefault((who, what, limit), Window(limit))


class Limits:
    """Concurrency, of one event loop, and requests and tokens a minute, of all in this process that ask the same `who` (None: of
    this object). Rates are for the whole run: of WORLD_SIZE processes each keeps to its share."""

    def __init__(self, concurrency: int, requests: float | None, tokens: float | None, who: Hashable = None):
        share = processes()
        self._room = asyncio.Semaphore(concurrency)
        self._turn = asyncio.Lock()
        self._ended = asyncio.Event()
        """Since the one whose turn it is began to wait, a request has ended: it may have taken less than was thought."""
        self._requests = _window(who, "requests", None if requests is None else requests / share)
        self._tokens = _window(who, "tokens", None if tokens is None else tokens / share)

    @asynccontextmanager
    async def request(self, tokens: int, still: Callable[[], Awaitable[None]] = _always) -> AsyncIterator[list[int]]:
        """Room for one request that is thought to take `tokens`; put what it took into the list that is given. `still` is awaited after
        each wait, and raises if the request is not to be sent any more: then it takes nothing of the rates."""
        async with self._room:
            await still()
            entry = await self._admitted(tokens, still)
            took: list[int] = []
            try:
                yield took
            finally:
                if took and entry is not None and self._tokens is not None:
                    self._tokens.correct(entry, took[0])
                self._ended.set()

    async def _admitted(self, tokens: int, still: Callable[[], Awaitable[None]]) -> list[float] | None:
        if self._requests is None and self._tokens is None:
            return None
        async with self._turn:  # first come, first served
            while True:
                await still()
                now = time.monotonic()
                waits = [w.wait(now, a) for w, a in ((self._requests, 1), (self._tokens, tokens)) if w is not None]
                if max(waits) <= 0:
                    break
                self._ended.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._ended.wait(), max(waits))
            if self._requests is not None:
                self._requests.take(now, 1)
            return None if self._tokens is None else self._tokens.take(now, tokens)
