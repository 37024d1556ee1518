"""Two real processes in a gloo group, each with its watch, and faults that a run meets."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from posttrain.watch import processes

pytestmark = [pytest.mark.processes, pytest.mark.slow]
WORKER = Path(__file__).with_name("worker.py")
ROOT = Path(__file__).resolve().parents[3]


@dataclass
class Pair:
    folder: Path
    processes: list[subprocess.Popen[str]]

    def when(self, name: str) -> str:
        """The content of a file of the workers, once it is there."""
        until = time.monotonic() + 120
        while time.monotonic() < until:
            path = self.folder / name
            if path.exists() and path.read_text():
                return path.read_text()
            time.sleep(0.05)
        raise AssertionError(f"{name} did not come")

    def end(self, rank: int, timeout: float = 100) -> tuple[int, str]:
        """Exit code and what was said."""
        _, said = self.processes[rank].communicate(timeout=timeout)
        return self.processes[rank].returncode, said

    def kill_what_is_left(self) -> None:
        for one in self.processes:
            if one.poll() is None:
                one.kill()
                one.communicate()
        for path in self.folder.glob("child-r*"):
            pid = int(path.read_text() or 0)
            if pid and processes.born(pid):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def pair(tmp_path):
    """`pair(fault, rank, processes=2, **environment)`"""
    made = []

    def start(fault: str, where: int, count: int = 2, **more: str) -> Pair:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1",
               "MASTER_PORT": str(port), "WORLD_SIZE": str(count), "STALL": "3", "DEADLINE": "6", **more}  # fmt: skip
        env.pop("POSTTRAIN_STARTER", None)
        command = [sys.executable, str(WORKER), str(tmp_path), fault, str(where)]
        started = [
            subprocess.Popen(command, env={**env, "RANK": str(r)}, stderr=subprocess.PIPE, text=True)
            for r in range(count)
        ]
        made.append(Pair(tmp_path, started))
        return made[-1]

    yield start
    for one in made:
        one.kill_what_is_left()


def no_child_is_left(pair: Pair) -> bool:
    """What a worker started ends with it, at the latest by the guard."""
    until = time.monotonic() + 10
    pids = [int(path.read_text()) for path in pair.folder.glob("child-r*")]
    while any(processes.born(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.1)
    return not any(processes.born(pid) for pid in pids)


@pytest.mark.parametrize("fault", ["killed", "exit"])
def test_a_process_that_dies_is_named_by_the_other(pair, fault):
    two = pair(fault, 1, BEFORE="4")
    pid = two.when("pid-r1")
    code, said = two.end(0)
    assert code == 3
    assert f"posttrain: stopped: process 1 (pid {pid} on {socket.gethostname()}) is gone" in said
    assert "last seen in rewards of step 4" in said
    assert "Traceback" not in said
    two.end(1)
    assert no_child_is_left(two)


def test_the_main_process_dies_and_its_store_with_it(pair):
    two = pair("killed", 0)
    code, said = two.end(1)
    assert code == 3
    assert "posttrain: stopped: process 0 (pid" in said
    assert "is gone" in said


def test_a_stopped_process_is_named_at_the_deadline_while_the_other_sits_in_a_collective(pair):
    two = pair("stopped", 1)
    code, said = two.end(0)
    assert code == 3
    assert "nothing has moved for 3 s: process 1" in said
    assert "watch.deadline): process 1" in said
    assert "is stopped (SIGSTOP" in said
    assert '"state": "stopped"' in (two.folder / "status.json").read_text()
    assert "all_reduce" in (two.folder / "stacks" / "r0-1.txt").read_text()
    assert two.end(1)[0] == -signal.SIGKILL, "a stopped process would keep its launcher waiting"
    assert no_child_is_left(two)


def test_a_process_stuck_in_a_reward_is_named_and_the_state_is_kept(pair):
    two = pair("sleep", 1)
    code, said = two.end(0)
    assert code == 3
    last = next(line for line in said.splitlines() if "posttrain: stopped: " in line)
    assert "process 1 (pid" in last
    assert "stuck in rewards of step 4, at stuck_reward (worker.py:" in last
    assert "the others wait for it" in last
    assert f"the state of step 3 is kept in {two.folder}" in last
    assert (two.folder / "sealed").read_text() == "3"
    assert two.end(1)[0] == 3
    assert "stuck_reward" in (two.folder / "stacks" / "r1-1.txt").read_text()
    assert no_child_is_left(two)


def test_a_call_that_keeps_the_interpreter_is_ended_by_the_guard(pair):
    """A regular expression that never ends: no thread of that process runs any more."""
    one = pair("interpreter", 0, 1)
    code, said = one.end(0)
    assert code == -signal.SIGKILL
    assert "has been in one call that lets no other thread run" in said
    assert "holds_interpreter" in (one.folder / "stacks" / "r0-interpreter.txt").read_text()
    assert '"state": "stopped"' in (one.folder / "status.json").read_text()
    assert no_child_is_left(one)


def test_an_alarm_of_one_process_is_the_reason_of_all_and_the_state_is_kept(pair):
    two = pair("alarm", 1)
    code, said = two.end(0)
    assert code == 3
    assert "stopped: rewards.0: not a number on row 7; the state of step 3 is kept" in said
    assert two.end(1)[0] == 3


def test_a_bug_in_one_process_is_named_by_the_other(pair):
    two = pair("bug", 1)
    code, said = two.end(0)
    assert code == 3
    assert "failed: ValueError: a bug of ours; the state of step 3 is kept" in said
    code, said = two.end(1)
    assert code == 1
    assert "Traceback" in said


def test_sigterm_to_one_of_two_in_a_collective_ends_both_at_one_step(pair):
    two = pair("sleep", 1, DEADLINE="300", STALL="300")
    two.when("fault")
    time.sleep(1.0)  # process 0 is in the all-reduce now
    os.kill(int(two.when("pid-r0")), signal.SIGTERM)
    code, said = two.end(0)
    assert code == 3
    assert "stopped: the process was told to end (SIGTERM); the state of step 3 is kept" in said
    assert (two.folder / "sealed").read_text() == "3"
    assert two.end(1)[0] == 3
    assert no_child_is_left(two)


def test_sigterm_while_steps_go_by_keeps_one_step_of_both(pair):
    two = pair("none", 0, DEADLINE="300", STALL="300")
    two.when("pid-r1")
    time.sleep(1.0)
    os.kill(int(two.when("pid-r1")), signal.SIGTERM)
    code, said = two.end(0)
    assert code == 3
    sealed = (two.folder / "sealed").read_text()
    assert f"the state of step {sealed} is kept" in said
    assert {(two.folder / f"part-r{r}").read_text() for r in (0, 1)} == {sealed}
    assert two.end(1)[0] == 3


def test_ctrl_c_once_saves_and_twice_ends_at_once(pair):
    one = pair("sleep", 0, 1, DEADLINE="300", STALL="300")
    one.when("fault")
    os.kill(int(one.when("pid-r0")), signal.SIGINT)
    code, said = one.end(0)
    assert code == 130
    assert "stopped: interrupted; the state of step 3 is kept" in said


def test_a_process_that_was_stopped_for_longer_than_the_deadline_goes_on(pair):
    """Ctrl-Z, a debugger, a machine that slept: no time has passed for it."""
    one = pair("none", 0, 1, STEPS="200")
    pid = int(one.when("pid-r0"))
    os.kill(pid, signal.SIGSTOP)
    time.sleep(8.0)
    os.kill(pid, signal.SIGCONT)
    code, said = one.end(0)
    assert code == 0, said
    assert "nothing has moved" not in said
