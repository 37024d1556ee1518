"""Running a launcher so that a run ends in order: what ends the launcher's user ends the training, and nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

from posttrain.watch import processes

STARTER = "POSTTRAIN_STARTER"
"""Environment variable with `pid born` of the process whose end ends the run."""
LATE = 180.0
"""Seconds that training processes may take to end when their launcher is gone."""


def run(command: Sequence[str], env: Mapping[str, str]) -> int:
    """Run the launcher and wait for it and for the training processes; its exit status.

    SIGTERM, SIGHUP and SIGINT go to the training processes, which save their state and end; so does the launcher then. (Sent
    to accelerate, a SIGTERM would end it alone where it has started one process, and that would train on.)
    """
    mine = os.getpid()
    launcher = subprocess.Popen(command, env={**env, STARTER: f"{mine} {processes.born(mine) or 0}"})
    trainers: set[tuple[int, int]] = set()

    def look() -> None:
        trainers.update(processes.descendants(launcher.pid))

    def pass_on(number: int, frame: FrameType | None) -> None:
        look()
        # A Ctrl-C reaches them twice, by the terminal and from here; they take it for one.
        for pid in processes.children(launcher.pid) or [launcher.pid]:
            with suppress(OSError):
                os.kill(pid, number)

    before: dict[int, Any] = {}
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
            before[number] = signal.signal(number, pass_on)
    try:
        while launcher.poll() is None:
            look()
            with suppress(subprocess.TimeoutExpired):
                launcher.wait(timeout=1.0)
        until = time.monotonic() + LATE
        while (left := [t for t in trainers if processes.born(t[0]) == t[1]]) and time.monotonic() < until:
            time.sleep(0.1)
        processes.end(left)
        return launcher.returncode
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def starter() -> tuple[int, int] | None:
    """(pid, born) of the process that `run` was called in, if this one was started so."""
    words = os.environ.get(STARTER, "").split()
    if len(words) == 2 and all(word.isdigit() for word in words) and words[1] != "0":
        return int(words[0]), int(words[1])
    return None
