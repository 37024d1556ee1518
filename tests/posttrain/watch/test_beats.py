"""What one process makes of the others' beats, without threads; and that beats arrive, by files alone too."""

from __future__ import annotations

import subprocess
import threading
import time
from dataclasses import replace

import pytest

from posttrain.watch import processes, stacks
from posttrain.watch.beats import Beat, Peer, left, standstill
from posttrain.watch.board import Courier
from posttrain.watch.watch import TICK, Clock
from rollouts import pulse

ELSEWHERE = processes.Identity(77, "far", "another boot", 5)


def beat(rank: int, who: processes.Identity | None = None, **more) -> Beat:
    return Beat(rank, who or processes.me(), **{"phase": "training", "step": 4, **more})


def peer(found: Beat, now: float = 0.0) -> Peer:
    made = Peer(found.rank)
    made.hear(found, now, fresh=True)
    made.look()
    return made


def test_a_beat_survives_its_journey_and_nothing_else_is_taken_for_one():
    sent = beat(3, count=9, place="f (x.py:1)", waiting=True, ending="told", code=130)
    assert Beat.read(sent.text()) == sent
    for text in ("", "{}", "[]", "null", '{"rank": 1}', "\x00", '{"rank": 1, "who": 3}', "[" * 100_000):
        assert Beat.read(text) is None


def test_a_dead_process_of_this_machine_is_seen_at_once_and_one_elsewhere_after_a_while():
    child = subprocess.Popen(["sleep", "100"])
    who = processes.Identity(child.pid, "here", processes.home(), processes.born(child.pid))
    near, far = peer(beat(1, who)), peer(beat(2, ELSEWHERE))
    assert left([near, far], 100.0, 120.0) is None
    child.kill()
    time.sleep(0.2)  # a zombie now: nobody has waited for it
    near.look()
    found = left([near, far], 0.0, 120.0)
    assert found.absent == {1}
    assert f"process 1 (pid {child.pid} on here) is gone" in found.reason
    assert "last seen in training of step 5" in found.reason
    child.wait()
    assert left([far], 121.0, 120.0).absent == {2}
    assert left([peer(beat(2, ELSEWHERE, over=True))], 1000.0, 120.0) is None


def test_a_number_that_was_given_to_a_later_process_is_not_the_process():
    mine = processes.me()
    assert processes.fate(mine) == "alive"
    assert processes.fate(replace(mine, born=mine.born - 1)) == "gone"
    assert processes.fate(ELSEWHERE) == "unknown"


def test_who_is_busy_while_others_wait_is_in_the_way():
    mine = beat(0, waiting=True, place="all_reduce (x.py:3)")
    others = [peer(beat(1, place="slow (my.py:7)")), peer(beat(2, waiting=True))]
    found = standstill(mine, others, 5.0, 0.0, 10.0)
    assert found.reason.startswith("process 1 (")
    assert "stuck in training of step 5, at slow (my.py:7); the others wait for it" in found.reason
    assert "process 2" not in found.reason
    assert found.absent == frozenset()


def test_when_all_wait_all_are_named():
    found = standstill(beat(0, waiting=True), [peer(beat(1, waiting=True))], 5.0, 0.0, 10.0)
    assert "process 0 (" in found.reason
    assert "process 1 (" in found.reason
    assert found.reason.endswith("they wait for each other")


def test_who_gives_no_sign_is_named_before_who_is_busy():
    found = standstill(beat(0), [peer(beat(1, ELSEWHERE)), Peer(2)], 30.0, 0.0, 10.0)
    assert found.reason == (
        "process 1 (pid 77 on far) has given no sign of life for 30 s; it was last seen in training of step 5; "
        "process 2 has not joined the others"
    )
    assert found.absent == {1, 2}


def test_the_beat_of_an_earlier_launch_is_not_believed():
    old = beat(1, ELSEWHERE, serial=900, ending="told to end")
    unknown = Peer(1)
    unknown.hear(old, 0.0, fresh=False)
    unknown.hear(old, 5.0, fresh=False)
    assert not unknown.trusted
    known = peer(beat(1, serial=1))
    known.hear(old, 5.0, fresh=False)
    assert known.beat.ending == ""
    unknown.hear(replace(old, serial=901), 6.0, fresh=False)
    assert unknown.trusted, "it does change, so somebody is at work"


def test_progress_is_a_count_or_a_phase_that_changes():
    one = peer(beat(1, serial=1, count=5))
    one.hear(beat(1, serial=2, count=5), 10.0, True)
    assert (one.moved, one.heard) == (0.0, 10.0)
    one.hear(beat(1, serial=3, count=6), 11.0, True)
    assert one.moved == 11.0
    one.hear(beat(1, serial=4, count=6, phase="sync"), 12.0, True)
    assert one.moved == 12.0
    one.hear(beat(1, serial=4, count=7), 13.0, True)
    assert one.moved == 12.0, "an old beat"


def test_a_clock_that_is_set_and_a_machine_that_sleeps_count_for_nothing(monkeypatch):
    monotonic = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: monotonic[0])

    def no_wall_clock():
        raise AssertionError("the wall clock was asked")

    monkeypatch.setattr(time, "time", no_wall_clock)
    clock = Clock()
    monotonic[0] += 1.0
    assert clock.tick() == pytest.approx(1.0)
    monotonic[0] += 10_000.0
    assert clock.tick() == pytest.approx(1.0 + 5 * TICK)


def test_beats_go_through_files_where_there_is_no_store(tmp_path, monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    heard: dict[int, str] = {}
    couriers = [
        Courier(r, 2, lambda r=r: f"I am {r}", lambda rank, text, fresh: heard.update({rank: text}), lambda: 0.05)
        for r in (0, 1)
    ]
    for courier in couriers:
        courier.use_files(tmp_path / "board")
    until = time.monotonic() + 10
    while len(heard) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    for courier in couriers:
        assert courier.trouble
        courier.close()
    assert heard == {0: "I am 0", 1: "I am 1"}
    until = time.monotonic() + 5
    while (tmp_path / "board").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not (tmp_path / "board").exists()


def test_beats_go_on_through_files_when_the_store_is_gone(tmp_path, monkeypatch):
    from datetime import timedelta

    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, None, True, timedelta(seconds=10), wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    heard: dict[tuple[int, bool], int] = {}
    said = [0]

    def hear(rank: int, text: str, fresh: bool) -> None:
        heard[rank, fresh] = int(text)

    couriers = [Courier(r, 2, lambda: str(said[0]), hear, lambda: 0.05) for r in (0, 1)]
    for courier in couriers:
        courier.use_files(tmp_path / "board")

    def wait_for(fresh: bool) -> None:
        until = time.monotonic() + 20
        while not all(heard.get((r, fresh)) == said[0] for r in (0, 1)) and time.monotonic() < until:
            time.sleep(0.05)
        assert all(heard[r, fresh] == said[0] for r in (0, 1))

    wait_for(fresh=True)
    assert not (tmp_path / "board").exists()
    del store
    said[0] = 1
    wait_for(fresh=False)
    for courier in couriers:
        courier.close()


def test_the_place_of_a_thread_is_its_innermost_line_that_is_no_librarys():
    inside = threading.Event()
    leave = threading.Event()

    def work():
        inside.set()
        leave.wait()

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait()
    place, waiting = stacks.place(thread.ident)
    leave.set()
    thread.join()
    assert place.startswith("work (test_beats.py:")
    assert ", in wait (threading.py:" in place
    assert not waiting
    assert stacks.place(thread.ident) == ("", False)


def test_descendants_and_their_end():
    child = subprocess.Popen(["sh", "-c", "sleep 100 & sleep 100"])
    until = time.monotonic() + 5
    while len(processes.descendants(child.pid)) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    found = processes.descendants(child.pid)
    assert len(found) == 2
    processes.end([*found, (child.pid, processes.born(child.pid))])
    child.wait()
    time.sleep(0.1)
    assert [processes.born(pid) for pid, _ in found] == [None, None]


def test_the_timer_and_the_pulse_tell_what_is_under_way():
    from posttrain.trainers.timing import Timer

    timer, before = Timer(), pulse.count()
    assert timer.phase == "other"
    with timer("generation"):
        assert timer.phase == "generation"
        with timer("sync"):
            assert timer.phase == "sync"
    assert pulse.count() == before + 4
