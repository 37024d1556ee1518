"""Processes as the kernel tells of them (`/proc`): whether one still lives, what it has started, and how to end that."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

Fate = Literal["alive", "stopped", "gone", "unknown"]


@dataclass(frozen=True)
class Identity:
    """A process, told from a later one that got the same number."""

    pid: int
    host: str
    home: str
    """The machine's boot and its space of process numbers: only who shares both can ask about the process."""
    born: int
    """When it started, in ticks since boot; 0 where that is not told."""

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}"


def me() -> Identity:
    return Identity(os.getpid(), socket.gethostname(), home(), born(os.getpid()) or 0)


@cache
def home() -> str:
    """Equal in two processes if and only if their process numbers mean the same."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def born(pid: int) -> int | None:
    """Start time of a living process; None if there is none, or it has ended and was not fetched yet."""
    told = _stat(pid)
    return None if told is None or told[0] in "ZX" else told[1]


def fate(who: Identity) -> Fate:
    """What has become of a process; `unknown` if it runs elsewhere."""
    if who.home != home():
        return "unknown"
    if not Path("/proc/self/stat").exists():
        try:
            os.kill(who.pid, 0)
        except ProcessLookupError:
            return "gone"
        except OSError:
            pass
        return "alive"
    told = _stat(who.pid)
    if told is None or told[0] in "ZX" or (who.born and told[1] != who.born):
        return "gone"
    return "stopped" if told[0] in "Tt" else "alive"


def descendants(pid: int) -> list[tuple[int, int]]:
    """(pid, born) of all that a process has started, and those have started, as far as they live."""
    found: list[tuple[int, int]] = []
    todo = [pid]
    while todo:
        for child in children(todo.pop()):
            when = born(child)
            if when is not None:
                found.append((child, when))
                todo.append(child)
    return found


def end(them: Iterable[tuple[int, int]], patience: float = 0.0) -> None:
    """SIGTERM, `patience` seconds, SIGKILL; without patience SIGKILL at once."""
    them = list(them)
    if patience:
        _send(them, signal.SIGTERM)
        until = time.monotonic() + patience
        while any(born(pid) == when for pid, when in them) and time.monotonic() < until:
            time.sleep(0.05)
    _send(them, signal.SIGKILL)


def _send(them: Iterable[tuple[int, int]], number: int) -> None:
    for pid, when in them:
        if born(pid) == when:
            with suppress(OSError):
                os.kill(pid, number)


def _stat(pid: int) -> tuple[str, int] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes().decode(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before may hold anything
    return (fields[0], int(fields[19])) if len(fields) > 19 else None


def children(pid: int) -> list[int]:
    """What a process has started itself, ended ones included."""
    found: list[int] = []
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError):
                found += [int(word) for word in Path(f"/proc/{pid}/task/{thread}/children").read_text().split()]
    return found
