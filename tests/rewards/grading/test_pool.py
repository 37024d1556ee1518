import os
import signal

import pytest

from rewards.grading import pool
from rewards.workers import WorkersError


@pytest.fixture(autouse=True)
def afresh():
    pool.close()
    yield
    pool.close()


def test_workers_live_on():
    assert pool.pids() == []
    assert pool.compare([("x", "x+1"), ("x+1", "1+x")], 5.0) == [("wrong", "value"), ("right", "value")]
    before = pool.pids()
    pool.compare([("x", "x+2")], 5.0)
    assert before
    assert pool.pids() == before
    assert len(before) <= pool.size()


def test_a_worker_killed_from_outside_is_replaced():
    pool.compare([("x", "x+1")], 5.0)
    for pid in pool.pids():
        os.kill(pid, signal.SIGKILL)
    assert pool.compare([("x+1", "1+x")], 5.0) == [("right", "value")]


def test_size(monkeypatch):
    monkeypatch.setenv("REWARDS_GRADER_PROCESSES", "3")
    assert pool.size() == 3
    monkeypatch.setenv("REWARDS_GRADER_PROCESSES", "no")
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert pool.size() == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "x")
    assert pool.size() == 4


def test_a_grader_that_cannot_work_raises(monkeypatch):
    monkeypatch.setattr(pool, "_make", _broken)
    with pytest.raises(WorkersError, match=r"."):
        pool.compare([("x", "x+1")], 5.0)


def _broken():
    raise ImportError("no Math-Verify here")
