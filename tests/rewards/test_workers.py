import os
import signal
import threading
import time

import pytest

from rewards.workers import Allowance, Workers, WorkersError, one_line


@pytest.fixture
def workers(misbehaving):
    made = []

    def make(function, count=1, **options):
        made.append(Workers(function, count, **options))
        return made[-1]

    yield make
    for pool in made:
        pool.close()


def test_outcomes_in_order(misbehaving, workers):
    pool = workers(misbehaving.returns_result_of, 2)
    outcomes = pool.run([("ok 1",), ("raise",), ("hang",), ("exit",), ("ok 2",)], Allowance(1.5))
    assert [o.kind for o in outcomes] == ["value", "exception", "timeout", "crash", "value"]
    assert [o.value for o in outcomes] == [[1.0], None, None, None, [2.0]]
    assert all("\n" not in o.text and (o.text or o.kind == "value") for o in outcomes)
    assert outcomes[2].seconds >= 1.5
    assert pool.run([], Allowance(1.0)) == []


def test_an_allowance_that_is_used_up_runs_nothing_more(misbehaving, workers):
    class Once(Allowance):
        def spent(self, seconds):
            self.seconds = 0.0

    outcomes = workers(misbehaving.returns_result_of).run([("ok 1",), ("ok 2",)], Once(20.0))
    assert [o.kind for o in outcomes] == ["value", "unrun"]


def test_memory_is_capped(misbehaving, workers):
    (outcome,) = workers(misbehaving.returns_taker_of_memory, memory=1 << 30).run([(1 << 31,)], Allowance(20.0))
    assert outcome.kind == "exception"
    assert outcome.text.startswith("MemoryError")
    (outcome,) = workers(misbehaving.returns_taker_of_memory).run([(1 << 20,)], Allowance(20.0))
    assert outcome.value == 1 << 20


linux = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="what a process holds is read from /proc")


@linux
def test_a_worker_that_leaks_is_replaced_between_two_jobs(misbehaving, workers, caplog):
    pool = workers(misbehaving.returns_hoarder, holds=300 << 20)
    outcomes = pool.run([(20,)] * 40, Allowance(60.0))  # 800 MiB in all
    assert {o.kind for o in outcomes} == {"value"}
    held = [o.value for o in outcomes]
    assert max(held) * 2**20 < 300 << 20
    assert held.count(20) == 1 + pool.replaced  # each new one began with nothing
    assert 2 <= pool.replaced <= 8
    assert [r.getMessage().count("may leak") for r in caplog.records] == [1]


@linux
def test_a_worker_that_takes_too_much_is_killed_and_the_next_job_is_not_its_victim(misbehaving, workers):
    pool = workers(misbehaving.returns_spender, holds=400 << 20)
    outcomes = pool.run([(600,), (1,)], Allowance(60.0))
    assert [o.kind for o in outcomes] == ["crash", "value"]
    assert "all workers together may hold 0.391 GiB" in outcomes[0].text
    assert outcomes[0].seconds < 3.0


@linux
def test_a_worker_that_is_big_from_the_beginning_stays(misbehaving, workers):
    pool = workers(misbehaving.returns_hoarder, holds=400 << 20)
    outcomes = pool.run([(320,), *[(0,)] * 5], Allowance(60.0))
    assert [o.value for o in outcomes] == [320] * 6
    assert pool.replaced == 0


@linux
def test_what_a_worker_starts_counts_too(tmp_path):
    import subprocess
    import sys

    from rewards.memory import held, there_is

    parent = subprocess.Popen(
        [sys.executable, "-c", "import subprocess, sys; subprocess.run([sys.executable, '-c', \"b = b'x' * (200 << 20); input()\"])"],
        stdin=subprocess.PIPE,
    )  # fmt: skip
    try:
        until = time.monotonic() + 30
        while (held(parent.pid) or 0) < 200 << 20 and time.monotonic() < until:
            time.sleep(0.05)
        assert (200 << 20) < held(parent.pid) < (300 << 20)
    finally:
        parent.communicate(b"\n")
    assert held(parent.pid) is None
    assert there_is() > 1 << 30


def test_an_idle_worker_killed_from_outside_costs_no_job(misbehaving, workers):
    pool = workers(misbehaving.returns_result_of)
    pool.run([("ok 1",)], Allowance(20.0))
    (pid,) = pool.pids()
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.3)
    assert pool.run([("ok 2",)], Allowance(20.0))[0].value == [2.0]


def test_what_cannot_be_used_at_all(misbehaving, workers):
    with pytest.raises(WorkersError, match="cannot be sent"):
        Workers(lambda: None, 1)
    with pytest.raises(WorkersError, match="no weights here"):
        workers(misbehaving.unbuildable).run([("ok 1",)], Allowance(20.0))
    with pytest.raises(WorkersError, match=r"died while starting \(exit code 5\)"):
        workers(misbehaving.dies_when_built).run([("ok 1",)], Allowance(20.0))
    with pytest.raises(WorkersError, match=r"did not start within 0.5 s"):
        workers(misbehaving.hangs_when_built, start_seconds=0.5).run([("ok 1",)], Allowance(20.0))


def test_results_that_cannot_be_sent_back_are_exceptions(misbehaving, workers):
    (outcome,) = workers(misbehaving.returns_lock_maker).run([()], Allowance(20.0))
    assert outcome.kind == "exception"


def test_waiting_threads_share_the_workers(misbehaving, workers):
    pool = workers(misbehaving.returns_result_of)
    found = []
    threads = [
        threading.Thread(target=lambda k=k: found.append((k, pool.run([(f"ok {k}",)] * 3, Allowance(20.0))[2].value)))
        for k in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == [(k, [float(k)]) for k in range(5)]
    assert len(pool.pids()) == 1


def test_one_line_of_an_exception_that_cannot_be_shown():
    class Awkward(Exception):
        def __str__(self):
            raise RuntimeError

    assert one_line(Awkward()) == "Awkward"
    assert one_line(ValueError("a\n  b")) == "ValueError: a b"
