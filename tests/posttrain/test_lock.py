"""Two launches on one folder, with real processes: whichever way the first ends, its lock goes with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from posttrain.lock import Held, Lock, holder

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def process():
    """`process(code)`: a process that runs `code`, then says so and sleeps."""
    started = []

    def start(code: str, *words: str) -> subprocess.Popen[str]:
        text = (
            f"import os, sys, time\nfrom pathlib import Path\nfrom posttrain.lock import *\n{textwrap.dedent(code)}\n"
        )
        text += "print('ready', flush=True)\ntime.sleep(600)\n"
        made = subprocess.Popen(
            [sys.executable, "-c", text, *words],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(made)
        assert made.stdout.readline() == "ready\n"
        return made

    yield start
    for one in started:
        one.kill()
        one.wait()


def test_the_second_launch_is_told_who_is_at_work(process, tmp_path):
    path = tmp_path / ".lock"
    first = process("lock = Lock(Path(sys.argv[1])); lock.take()", str(path))
    with pytest.raises(Held) as held:
        Lock(path).take()
    assert held.value.holder.main
    assert held.value.holder.pid == first.pid
    assert str(held.value) == f"process {first.pid} on {os.uname().nodename}"
    assert holder(path).pid == first.pid
    first.kill()
    first.wait()
    assert holder(path) is None
    mine = Lock(path)
    mine.take()
    assert holder(path).pid == os.getpid()
    mine.release()
    assert holder(path) is None


def test_a_stopped_process_still_holds_it(process, tmp_path):
    path = tmp_path / ".lock"
    first = process("lock = Lock(Path(sys.argv[1])); lock.take()", str(path))
    first.send_signal(signal.SIGSTOP)
    with pytest.raises(Held):
        Lock(path).take()


def test_a_forked_child_does_not_hold_it_for_its_dead_parent(process, tmp_path):
    path = tmp_path / ".lock"
    first = process(
        """
        lock = Lock(Path(sys.argv[1])); lock.take()
        child = os.fork()
        if child == 0:
            time.sleep(20)
            os._exit(0)
        Path(sys.argv[1] + "child").write_text(str(child))
        """,
        str(path),
    )
    first.kill()
    first.wait()
    child = int(Path(f"{path}child").read_text())
    os.kill(child, 0)  # it is alive
    Lock(path).take()
    Lock(path).release()
    os.kill(child, signal.SIGKILL)


def test_what_is_left_of_a_launch_is_waited_for(process, tmp_path):
    path = tmp_path / ".lock"
    main = process("lock = Lock(Path(sys.argv[1])); lock.take()", str(path))
    other = process("lock = Lock(Path(sys.argv[1])); lock.join(1)", str(path))
    main.kill()
    main.wait()
    with pytest.raises(Held) as held:
        Lock(path).take(patience=0.5)
    assert (held.value.holder.pid, held.value.holder.main) == (other.pid, False)

    waited = []

    def let_it_go(holder):
        waited.append(holder)
        other.kill()
        other.wait()

    lock = Lock(path)
    lock.take(patience=30, waiting=let_it_go)
    assert [h.pid for h in waited] == [other.pid]
    lock.release()


def test_no_two_processes_are_of_one_rank(process, tmp_path):
    path = tmp_path / ".lock"
    process("lock = Lock(Path(sys.argv[1])); lock.join(1)", str(path))
    with pytest.raises(Held):
        Lock(path).join(1)
    Lock(path).join(2)
    Lock(path).release()


def test_exactly_one_of_many_gets_it(tmp_path):
    """Ten processes start at one moment."""
    path, start = tmp_path / ".lock", time.time() + 1.5
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom posttrain.lock import *\n"
        "time.sleep(max(0, float(sys.argv[2]) - time.time()))\n"
        "try:\n    Lock(Path(sys.argv[1])).take()\n    print('got it', flush=True)\nexcept Held:\n    print('held', flush=True)\n"
        "time.sleep(2)"
    )
    many = [
        subprocess.Popen([sys.executable, "-c", code, str(path), str(start)], env={**os.environ, "PYTHONPATH": str(ROOT)},
                         stdout=subprocess.PIPE, text=True)
        for _ in range(10)
    ]  # fmt: skip
    said = sorted(one.communicate()[0] for one in many)
    assert said == ["got it\n"] + ["held\n"] * 9


def test_a_removed_or_moved_folder_is_noticed(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    lock = Lock(folder / ".lock")
    lock.take()
    assert not lock.gone
    folder.rename(tmp_path / "elsewhere")
    assert lock.gone
    folder.mkdir()
    (folder / ".lock").touch()
    assert lock.gone
    lock.release()


def test_nobody_holds_what_is_not_there(tmp_path):
    assert holder(tmp_path / "nothing" / ".lock") is None
