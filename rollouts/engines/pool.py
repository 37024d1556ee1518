"""Several servers as one: back-pressure, health, and asking again elsewhere.

The pool knows nothing of what is asked. Its user gives two coroutines: `admit(server)`, which makes a server ready to
serve (or says why it is not), and `call(server, job)`, which asks one thing. Both report by exception:

- `ServerFault`: the server is at fault. It is taken out; what it had not answered is asked again elsewhere.
- `Busy`: it asks to be left alone for a moment.
- `EngineError`: asking again would not help.

Every wait has a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rollouts import pulse
from rollouts.records import EngineError

log = logging.getLogger(__name__)

Job = TypeVar("Job")
Answer = TypeVar("Answer")


class ServerFault(Exception):
    """The server cannot be relied on: no connection, no answer in time, an error of its own, garbage."""


class Busy(Exception):
    """The server is well but wants fewer requests."""


@dataclass(eq=False)
class Server:
    """One server and what the pool knows of it."""

    url: str
    client: Any = None
    """Whatever `admit` and `call` talk through."""
    alive: bool = False
    why: str = "not asked yet"
    """Why it is out."""
    in_flight: int = 0
    misses: int = 0
    """Health checks in a row that got no answer."""
    outages: int = 0
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    notes: dict[str, Any] = field(default_factory=dict)
    """Room for the pool's user."""


class Pool:
    """
    Args:
        servers: all of them, out to begin with.
        admit: makes a server ready; called before it is (again) trusted with requests.
        ping: the quick question whether it is well.
        concurrency: most requests under way at one server.
        timeout: seconds that one request may take.
        retries: how often one request may be asked again.
        health_interval: seconds between health checks while requests are under way.
        patience: seconds for which requests wait while no server is there at all.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        admit: Callable[[Server], Awaitable[None]],
        ping: Callable[[Server], Awaitable[None]],
        *,
        name: str,
        concurrency: int,
        timeout: float,
        retries: int,
        health_interval: float,
        patience: float,
        ping_timeout: float = 10.0,
        admit_timeout: float = 120.0,
    ):
        self.servers = list(servers)
        self.name = name
        self.concurrency = concurrency
        self.timeout = timeout
        self.retries = retries
        self.health_interval = health_interval
        self.patience = patience
        self.ping_timeout = ping_timeout
        self.admit_timeout = admit_timeout
        self.counts: Counter[str] = Counter()
        """`asked_again`, `taken_out`, `taken_back`: how often, since the start."""
        self._admit = admit
        self._ping = ping
        self._changed = asyncio.Condition()
        self._none_left: EngineError | None = None

    @property
    def alive(self) -> list[Server]:
        return [server for server in self.servers if server.alive]

    async def admit(self, server: Server, *, within: float | None = None) -> None:
        """Make `server` ready and trust it, or leave it out. `within`: another deadline than `admit_timeout`, seconds.

        Raises:
            EngineError: it will not do, and time would not mend that. It is out.
        """
        within = within or self.admit_timeout
        try:
            async with asyncio.timeout(within):
                await self._admit(server)
        except EngineError as error:
            self.take_out(server, str(error))
            raise
        except (ServerFault, Busy) as fault:
            self.take_out(server, str(fault))
        except TimeoutError:
            self.take_out(server, f"not ready within {within:g} s")
        else:
            if not server.alive:
                server.alive, server.why, server.misses = True, "", 0
                if server.outages:
                    self.counts["taken_back"] += 1
                    log.warning("%s: %s is back", self.name, server.url)
                async with self._changed:
                    self._changed.notify_all()

    def take_out(self, server: Server, why: str, *, drop: bool = False) -> None:
        """Send nothing more to `server` until it is admitted again. With `drop`, what it works on is asked elsewhere
        at once; without, it may still answer."""
        server.why = why
        if server.alive:
            server.alive = False
            server.outages += 1
            self.counts["taken_out"] += 1
            log.warning("%s: %s is taken out: %s", self.name, server.url, why)
        if drop:
            for task in list(server.tasks):
                task.cancel()

    def nobody(self) -> EngineError:
        """The one line when no server is left."""
        reasons = "; ".join(f"{server.url}: {server.why}" for server in self.servers)
        return EngineError(f"{self.name}: no server is left ({reasons}); start one again (posttrain serve RECIPE)")

    async def map(self, jobs: Sequence[Job], call: Callable[[Server, Job], Awaitable[Answer]]) -> list[Answer]:
        """Every job answered exactly once, in order.

        Raises:
            EngineError: no server is left, or a job failed on every try.
        """
        self._none_left = None
        watchers = [asyncio.create_task(self._watch(server)) for server in self.servers]
        watchers.append(asyncio.create_task(self._watch_all()))
        tasks = [asyncio.create_task(self._answer(job, call)) for job in jobs]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in (*tasks, *watchers):
                task.cancel()
            await asyncio.gather(*tasks, *watchers, return_exceptions=True)

    async def _answer(self, job: Job, call: Callable[[Server, Job], Awaitable[Answer]]) -> Answer:
        failures: list[str] = []
        while len(failures) <= self.retries:
            if failures:
                self.counts["asked_again"] += 1
            server = await self._slot()
            outages = server.outages
            task = asyncio.ensure_future(call(server, job))
            server.tasks.add(task)
            pause = 0.0
            try:
                async with asyncio.timeout(self.timeout):
                    answer = await task
                pulse.beat()
                return answer
            except ServerFault as fault:
                failures.append(f"{server.url}: {fault}")
                self.take_out(server, str(fault))
            except TimeoutError:
                failures.append(f"{server.url}: no answer within {self.timeout:g} s")
                self.take_out(server, f"no answer within {self.timeout:g} s", drop=True)
            except Busy as busy:
                failures.append(f"{server.url}: {busy}")
                pause = min(30.0, 0.5 * 2 ** len(failures))
            except asyncio.CancelledError:
                # Either all of this is cancelled, or only the request, because its server was taken out.
                if server.outages == outages or _cancelling():
                    raise
                failures.append(f"{server.url}: {server.why}")
            finally:
                server.tasks.discard(task)
                task.cancel()
                await self._release(server)
            await asyncio.sleep(random.uniform(0.5, 1.5) * pause)
        raise EngineError(f"{self.name}: a request failed {len(failures)} times, the last time at {failures[-1]}")

    async def _slot(self) -> Server:
        """A living server with room for one more request; the one with the fewest."""
        async with self._changed:
            while True:
                if self._none_left is not None:
                    raise self._none_left
                free = [s for s in self.servers if s.alive and s.in_flight < self.concurrency]
                if free:
                    server = min(free, key=lambda s: s.in_flight)
                    server.in_flight += 1
                    return server
                await self._changed.wait()

    async def _release(self, server: Server) -> None:
        server.in_flight -= 1
        async with self._changed:
            self._changed.notify()

    async def _watch(self, server: Server) -> None:
        """Health checks of a living server; ever rarer tries to take a dead one back."""
        tries = 0
        while True:
            if server.alive:
                tries = 0
                await asyncio.sleep(self.health_interval * random.uniform(0.8, 1.2))
                if server.alive:
                    await self._check(server)
            else:
                tries += 1
                wait = min(self.health_interval, 0.2 * 2 ** min(tries, 10))
                await asyncio.sleep(wait * random.uniform(0.5, 1.5))
                with contextlib.suppress(EngineError):  # then it stays out, and `why` says the reason
                    await self.admit(server)

    async def _check(self, server: Server) -> None:
        try:
            async with asyncio.timeout(self.ping_timeout):
                await self._ping(server)
            server.misses = 0
        except ServerFault as fault:
            self.take_out(server, str(fault), drop=True)
        except TimeoutError:
            # Once may be a busy machine.
            server.misses += 1
            if server.misses >= 2:
                self.take_out(server, f"no sign of life within {self.ping_timeout:g} s, twice", drop=True)

    async def _watch_all(self) -> None:
        gone_since: float | None = None
        while True:
            if self.alive:
                gone_since = None
            elif gone_since is None:
                gone_since = time.monotonic()
            elif time.monotonic() - gone_since >= self.patience:
                self._none_left = self.nobody()
                async with self._changed:
                    self._changed.notify_all()
            await asyncio.sleep(min(0.2, self.patience / 4 + 0.01))


def _cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
