from __future__ import annotations

import pytest

from posttrain.trainers import timing


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""

    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", clock)
    return clock


def test_inner_phases_pause_outer_ones_and_everything_adds_up(clock):
    timer = timing.Timer()
    clock.now = 1.0  # before any phase
    with timer("training"):
        clock.now = 3.0
        with timer("generation"):
            clock.now = 8.0
            with timer("sync"):
                clock.now = 9.0
        clock.now = 10.0
    clock.now = 10.5
    spent = timer.take()
    assert spent == {"generation": 5.0, "rewards": 0.0, "logprobs": 0.0, "training": 3.0, "sync": 1.0, "other": 1.5}
    assert sum(spent.values()) == 10.5


def test_taking_inside_a_phase_splits_it(clock):
    timer = timing.Timer()
    with timer("generation"):
        clock.now = 2.0
        assert timer.take()["generation"] == 2.0
        clock.now = 5.0
    assert timer.take()["generation"] == 3.0


def test_an_exception_leaves_the_phase(clock):
    timer = timing.Timer()

    def fail():
        with timer("rewards"):
            clock.now = 1.0
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    clock.now = 4.0
    spent = timer.take()
    assert (spent["rewards"], spent["other"]) == (1.0, 3.0)
