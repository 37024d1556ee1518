"""Several servers as one, with servers that fail in every way: nothing lost, nothing twice, no endless wait."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter

import pytest

from rollouts.engines.loop import BackgroundLoop
from rollouts.engines.pool import Busy, Pool, Server, ServerFault
from rollouts.records import EngineError


async def well(server: Server) -> None:
    await asyncio.sleep(0)


def pool_of(n: int, admit=well, ping=well, **options) -> Pool:
    known = {"name": "test", "concurrency": 4, "timeout": 5.0, "retries": 50, "health_interval": 0.05, "patience": 1.0}
    return Pool([Server(f"http://s{i}") for i in range(n)], admit, ping, **{**known, **options})


async def opened(pool: Pool) -> Pool:
    for server in pool.servers:
        await pool.admit(server)
    return pool


@pytest.mark.parametrize("seed", range(5))
def test_every_job_is_answered_once_and_in_order_whatever_fails(seed):
    rng = random.Random(seed)
    answered: Counter[int] = Counter()

    async def call(server: Server, job: int) -> int:
        await asyncio.sleep(rng.uniform(0, 0.003))
        fate = rng.random()
        if fate < 0.05:
            raise ServerFault("broke")
        answered[job] += 1
        return job * job

    async def main():
        pool = await opened(pool_of(3))
        return await pool.map(range(300), call), pool

    out, pool = asyncio.run(main())
    assert out == [i * i for i in range(300)]
    assert set(answered.values()) == {1}
    assert pool.counts["asked_again"] > 0
    assert pool.counts["taken_back"] > 0
    assert all(server.in_flight == 0 for server in pool.servers)


def test_no_more_at_once_than_allowed_and_spread_over_all():
    most: Counter[str] = Counter()

    async def call(server: Server, job: int) -> int:
        most[server.url] = max(most[server.url], len(server.tasks))
        await asyncio.sleep(0.001)
        return job

    async def main():
        return await (await opened(pool_of(2, concurrency=3))).map(range(60), call)

    assert asyncio.run(main()) == list(range(60))
    assert dict(most) == {"http://s0": 3, "http://s1": 3}


def test_a_server_that_hangs_is_left_by_all_its_requests_at_once():
    began = time.monotonic()

    async def ping(server: Server) -> None:
        if server.url.endswith("0"):
            await asyncio.sleep(60)

    async def call(server: Server, job: int) -> int:
        if server.url.endswith("0"):
            await asyncio.sleep(60)
        return job

    async def admit(server: Server) -> None:
        if server.outages:
            raise ServerFault("still hanging")

    async def main():
        pool = await opened(pool_of(2, admit, ping, timeout=50.0, ping_timeout=0.05))
        return await pool.map(range(20), call), pool

    out, pool = asyncio.run(main())
    assert out == list(range(20))
    assert time.monotonic() - began < 20
    assert pool.counts == {"taken_out": 1, "asked_again": 4}


def test_a_request_past_its_deadline_is_asked_elsewhere():
    async def call(server: Server, job: int) -> str:
        if server.url.endswith("0"):
            await asyncio.sleep(60)
        return server.url

    async def main():
        return await (await opened(pool_of(2, timeout=0.1, health_interval=30.0))).map(range(6), call)

    assert asyncio.run(main()) == ["http://s1"] * 6


def test_none_left_is_one_line_with_each_server_s_reason():
    async def admit(server: Server) -> None:
        if server.outages:
            raise ServerFault("no connection")

    async def call(server: Server, job: int) -> int:
        raise ServerFault("died")

    async def main():
        await (await opened(pool_of(2, admit, patience=0.3))).map(range(50), call)

    with pytest.raises(EngineError, match=r"no server is left") as caught:
        asyncio.run(main())
    assert "\n" not in str(caught.value)
    assert "http://s0: no connection; http://s1: no connection" in str(caught.value)


def test_a_job_that_no_server_can_do_ends_with_the_reason():
    async def call(server: Server, job: int) -> int:
        if job == 3:
            raise ServerFault("HTTP 500 (division by zero)")
        return job

    async def main():
        await (await opened(pool_of(2, retries=3, patience=30.0))).map(range(8), call)

    with pytest.raises(EngineError, match=r"failed 4 times.*division by zero"):
        asyncio.run(main())


def test_an_answer_that_asking_again_cannot_mend_ends_at_once():
    calls = []

    async def call(server: Server, job: int) -> int:
        calls.append(job)
        raise EngineError("no")

    async def main():
        await (await opened(pool_of(2))).map([1], call)

    with pytest.raises(EngineError, match=r"^no$"):
        asyncio.run(main())
    assert calls == [1]


def test_a_busy_server_is_asked_later_and_stays_in():
    seen: Counter[int] = Counter()

    async def call(server: Server, job: int) -> int:
        seen[job] += 1
        if seen[job] == 1:
            raise Busy("too many")
        return job

    async def main():
        pool = await opened(pool_of(1))
        return await pool.map([1, 2], call), pool

    out, pool = asyncio.run(main())
    assert out == [1, 2]
    assert pool.counts == {"asked_again": 2}


def test_a_server_is_only_taken_back_after_it_was_made_ready():
    order = []

    async def admit(server: Server) -> None:
        if server.outages == 1 and order.count("admit") < 3:
            order.append("admit")
            raise ServerFault("not yet")
        order.append("ready")

    async def call(server: Server, job: int) -> int:
        if "call" not in order:
            order.append("call")
            raise ServerFault("died")
        return job

    async def main():
        return await (await opened(pool_of(1, admit, patience=30.0))).map([7], call)

    assert asyncio.run(main()) == [7]
    assert order == ["ready", "call", "admit", "admit", "admit", "ready"]


def test_the_loop_works_inside_another_loop_and_passes_exceptions_and_deadlines():
    loop = BackgroundLoop("test")

    async def double(x):
        await asyncio.sleep(0.01)
        return 2 * x

    async def fail():
        raise KeyError("x")

    async def outer():
        return loop.run(double(4), 5.0)

    assert asyncio.run(outer()) == 8
    with pytest.raises(KeyError):
        loop.run(fail(), 5.0)
    with pytest.raises(TimeoutError):
        loop.run(asyncio.sleep(60), 0.05)
    loop.stop()
    loop.stop()
