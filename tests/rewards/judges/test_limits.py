import asyncio
import functools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.judges.limits import Limits, Window


@given(
    st.integers(1, 20),
    st.lists(st.tuples(st.floats(0, 20), st.integers(0, 25), st.integers(0, 25)), min_size=1, max_size=40),
)
def test_no_span_holds_more_than_the_limit(limit, asked):
    window, now, taken = Window(limit, 60.0), 0.0, []
    for gap, amount, really in asked:
        now += gap
        while (wait := window.wait(now, amount)) > 0:
            assert wait <= 60.0 * max(1, 25 / limit) + 1e-6
            now += wait
        before = sum(a for t, a in taken if t > now - 60.0 + 1e-6)
        assert before + amount <= limit + 1e-6 or not [t for t, a in taken if t > now - 60.0 + 1e-6]
        entry = window.take(now, amount)
        window.correct(entry, really)
        taken.append((now, really))


def test_it_waits_no_longer_than_it_must():
    window = Window(3, 60.0)
    for now in (0.0, 10.0, 20.0):
        assert window.wait(now, 1) == 0
        window.take(now, 1)
    assert window.wait(30.0, 1) == pytest.approx(30.0)  # the first leaves the span at 60
    assert window.wait(30.0, 2) == pytest.approx(40.0)
    assert window.wait(60.0, 1) == 0


def test_a_run_of_several_processes_shares_its_rates(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    limits = Limits(8, 100, 1000)
    assert (limits._requests.limit, limits._tokens.limit) == (25, 250)


def test_concurrency():
    async def run():
        limits, now, most = Limits(3, None, None), 0, 0

        async def one():
            nonlocal now, most
            async with limits.request(1):
                now, most = now + 1, max(most, now + 1)
                await asyncio.sleep(0)
                now -= 1

        await asyncio.gather(*(one() for _ in range(20)))
        return most

    assert asyncio.run(run()) == 3


@pytest.fixture
def brief(monkeypatch):
    """Minutes of 0.4 s."""
    from rewards.judges import limits

    monkeypatch.setattr(limits, "Window", functools.partial(Window, seconds=0.4))


def admitted(limits, requests, guess, took, seconds=0.02):
    """When each of many requests was let in that come all at once."""

    async def run():
        times = []

        async def one():
            async with limits.request(guess) as said:
                times.append(time.monotonic())
                await asyncio.sleep(seconds)
                said.append(took)

        await asyncio.gather(*(one() for _ in range(requests)))
        return [t - times[0] for t in times]

    return asyncio.run(run())


def test_requests_wait_for_their_minute(brief):
    times = admitted(Limits(8, 2, None), 5, 1, 1)
    assert all(b - a >= 0.39 for a, b in zip(times, times[2:], strict=False))
    assert times[-1] < 2


def test_tokens_that_were_not_taken_after_all_are_free_at_once(brief):
    """Thought to take 1500 each, six would fill a minute; they take 100, so that the minute holds all of them and more."""
    times = admitted(Limits(32, None, 10_000), 60, 1500, 100)
    assert times[-1] < 2
    times = admitted(Limits(32, None, 10_000), 60, 1500, 1500)
    assert times[-1] > 3  # ten minutes' worth, less the first


@pytest.mark.parametrize("share", [0.5, 0.25])
def test_less_than_one_in_a_minute(share):
    window, now = Window(share, 60.0), 0.0
    for _ in range(5):
        now += window.wait(now, 1)
        window.take(now, 1)
    assert now == pytest.approx(4 * 60 / share)


def test_each_of_several_processes_keeps_to_its_share(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    kept = Limits(8, 12.0, 1000.0)
    assert (kept._requests.limit, kept._tokens.limit) == (3.0, 250.0)
