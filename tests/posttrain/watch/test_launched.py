"""A launcher between the user's command and the training process, as accelerate is one: whichever is ended, the run ends in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from posttrain.watch import processes

pytestmark = pytest.mark.processes
ROOT = Path(__file__).resolve().parents[3]

STARTER = """
import os, sys
from posttrain.watch import launched
sys.exit(launched.run([sys.executable, "accelerate_like.py"], os.environ))
"""
LAUNCHER = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "training.py"])
open("launcher", "w").write(str(__import__("os").getpid()))
sys.exit(1 if child.wait() else 0)
"""
TRAINING = """
import os, sys, time
from pathlib import Path
from posttrain import exits
from posttrain.watch import Watch

def save(reason, absent):
    Path("saved").write_text(reason)
    return None, "the state is kept"

def train():
    with Watch() as watch:
        watch.know(boundary=lambda: 4, save=save)
        with watch.kept():
            Path("training").write_text(str(os.getpid()))
            time.sleep(1000)

sys.exit(exits.guarded(train))
"""


@pytest.fixture
def chain(tmp_path):
    """Three processes: the starter, and by name the pids of all."""
    for name, text in (("starter.py", STARTER), ("accelerate_like.py", LAUNCHER), ("training.py", TRAINING)):
        (tmp_path / name).write_text(text)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    env.pop("POSTTRAIN_STARTER", None)
    starter = subprocess.Popen(
        [sys.executable, "starter.py"],
        cwd=tmp_path,
        env=env,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGHUP, signal.SIG_DFL
        ),  # under nohup it is ignored, and so by the run
    )
    pids = {"starter": starter.pid}
    until = time.monotonic() + 60
    for name in ("launcher", "training"):
        while not ((tmp_path / name).exists() and (tmp_path / name).read_text()) and time.monotonic() < until:
            time.sleep(0.05)
        pids[name] = int((tmp_path / name).read_text())
    time.sleep(0.5)
    yield starter, pids, tmp_path
    for pid in pids.values():
        if processes.born(pid) is not None:
            os.kill(pid, signal.SIGKILL)


def gone(pid: int, within: float = 20.0) -> bool:
    until = time.monotonic() + within
    while processes.born(pid) is not None and time.monotonic() < until:
        time.sleep(0.05)
    return processes.born(pid) is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_the_command_is_told_the_training_is_told(chain, number):
    starter, pids, folder = chain
    starter.send_signal(number)
    _, said = starter.communicate(timeout=60)
    assert f"posttrain: stopped: the process was told to end ({number.name}); the state is kept" in said
    assert (folder / "saved").read_text() == f"the process was told to end ({number.name})"
    assert starter.returncode == 1
    assert gone(pids["training"], 0.5), "the command waits for the training"


def test_ctrl_c_reaches_all_and_is_taken_once(chain):
    starter, pids, folder = chain
    os.killpg(starter.pid, signal.SIGINT)
    _, said = starter.communicate(timeout=60)
    assert said.count("posttrain: stopped: interrupted; the state is kept") == 1
    assert (folder / "saved").read_text() == "interrupted"
    assert gone(pids["training"], 0.5)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells of a parent's end on Linux alone")
def test_a_launcher_that_is_killed_takes_the_training_along(chain):
    starter, pids, folder = chain
    os.kill(pids["launcher"], signal.SIGKILL)
    _, said = starter.communicate(timeout=60)
    assert "posttrain: stopped: the process was told to end (SIGTERM); the state is kept" in said
    assert (folder / "saved").exists()
    assert gone(pids["training"], 0.5)


def test_a_command_that_is_killed_takes_the_training_along(chain):
    starter, pids, folder = chain
    starter.kill()
    assert gone(pids["training"])
    assert (folder / "saved").read_text() == f"the process that started this run (pid {starter.pid}) is gone"


FORKING = """
import multiprocessing, os, signal, sys, time
from posttrain import exits
from posttrain.watch import Watch

def work(_):
    time.sleep(0.01)
    return os.getpid()

def train():
    with Watch() as watch:
        context = multiprocessing.get_context("fork")
        with watch.kept():
            with context.Pool(3) as pool:
                assert os.getpid() not in pool.map(work, range(6))
            # The pool has told its workers to end, by SIGTERM.
            child = os.fork()
            if child == 0:
                time.sleep(100)
                os._exit(0)
            time.sleep(0.2)
            os.kill(child, signal.SIGTERM)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
            time.sleep(2.5)
    print("went on")

sys.exit(exits.guarded(train))
"""


def test_a_signal_to_a_forked_worker_is_none_to_the_run(tmp_path):
    (tmp_path / "forking.py").write_text(FORKING)
    ended = subprocess.run(
        [sys.executable, "forking.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "went on\n", "")


ORPHANS = """
import os, signal, subprocess, sys, time
from pathlib import Path
from posttrain.watch import Watch

with Watch():
    child = subprocess.Popen(["sleep", "1000"])
    forked = os.fork()  # as a data loader does it; it holds every pipe of its parent
    if forked == 0:
        time.sleep(1000)
    Path("pids").write_text(f"{child.pid} {forked}")
    time.sleep(2.5)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_has_started_does_not_outlive_it(tmp_path):
    (tmp_path / "orphans.py").write_text(ORPHANS)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "orphans.py"], cwd=tmp_path, env=env, timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    for pid in (tmp_path / "pids").read_text().split():
        assert gone(int(pid), 10.0)
