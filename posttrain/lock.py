"""Who is at work in a run's folder: a lock that the kernel holds for a process, and lets go whichever way the process ends.

Each process of a launch locks one byte of `.lock`: the main process byte 0, process r byte r. A new launch must get all of them,
so it starts neither beside a running one nor beside what is left of one whose main process was killed. POSIX record locks are
used because processes that are forked off (workers of rewards or of a data loader) do not inherit them.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger("posttrain.lock")

PATIENCE = 60.0
"""Seconds that a new launch waits for the other processes of one whose main process is gone: they notice and end."""
_TAKEN = (errno.EACCES, errno.EAGAIN)


@dataclass(frozen=True)
class Holder:
    """The process that is in the way."""

    pid: int | None
    host: str | None
    main: bool
    """Whether it is the main process of its launch."""

    def __str__(self) -> str:
        who = f"process {self.pid}" if self.pid else "a process"
        return f"{who} on {self.host}" if self.host else who


class Held(Exception):
    """Another process holds the lock."""

    def __init__(self, holder: Holder):
        super().__init__(str(holder))
        self.holder = holder


class Lock:
    """The lock of this process on one folder. Keep it: it lasts until `release` or the end of the process."""

    def __init__(self, path: Path):
        self.path = path
        # Closing any handle of a file lets go of all record locks that the process has on it, so there is one handle only.
        self._handle: int | None = _mine.get(_key(path))

    def take(self, patience: float = PATIENCE, waiting: Callable[[Holder], None] = lambda holder: None) -> None:
        """Become the main process of this folder's only launch.

        Args:
            patience: seconds to wait for processes of an earlier launch whose main process is gone.
            waiting: called once with one of them when there is something to wait for.

        Raises:
            Held: another launch is at work.
            OSError: the folder cannot be written.
        """
        handle = self._open()
        until, told = time.monotonic() + patience, False
        while not _lock(handle, 0, 0):
            holder = _holder(handle)
            if holder is None:
                continue  # it went away between the two questions
            if holder.main or time.monotonic() > until:
                self.release()
                raise Held(holder)
            if not told:
                waiting(holder)
                told = True
            time.sleep(0.2)
        fcntl.lockf(handle, fcntl.LOCK_UN, 0, 1)  # the other bytes are for the other processes
        mine = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
        os.ftruncate(handle, 0)
        os.pwrite(handle, (json.dumps(mine) + "\n").encode(), 0)

    def join(self, rank: int) -> None:
        """Take part in the launch whose main process has called `take`, as its process `rank` (from 1).

        Raises:
            Held: another process has this rank.
        """
        handle = self._open()
        if not _lock(handle, rank, 1):
            raise Held(_holder(handle) or Holder(None, None, False))

    def release(self) -> None:
        if self._handle is not None:
            _mine.pop(_key(self.path), None)
            os.close(self._handle)
            self._handle = None

    @property
    def gone(self) -> bool:
        """True if the file that this process locked is not there any more: the folder was removed or moved."""
        if self._handle is None:
            return False
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return True
        except OSError:
            return False  # the file system does not answer; that is not the same
        mine = os.fstat(self._handle)
        return (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino)

    def _open(self) -> int:
        if self._handle is None:
            self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            _mine[_key(self.path)] = self._handle
        return self._handle


_mine: dict[str, int] = {}
"""Lock files of this process: path -> handle."""


def holder(path: Path) -> Holder | None:
    """Who holds any part of the lock at `path`; None if nobody does, or nobody ever did. Takes nothing."""
    if (mine := _mine.get(_key(path))) is not None:
        return _holder(mine) or Holder(os.getpid(), socket.gethostname(), True)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if sys.platform != "linux" and _lock(handle, 0, 0):
            return None
        return _holder(handle)
    finally:
        os.close(handle)


def _key(path: Path) -> str:
    return os.path.realpath(path)


def _lock(handle: int, start: int, length: int) -> bool:
    """Lock bytes (length 0 = all from `start`) without waiting; False if another process has one of them."""
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise
        log.warning("this file system knows no locks, so a second launch on one folder would not be noticed")
    return True


def _holder(handle: int) -> Holder | None:
    main, pid = _asked(handle, 1)
    if not main:
        taken, pid = _asked(handle, 0)
        if not taken:
            return None
        return Holder(pid, None, main=False)
    said = {}
    with suppress(OSError, ValueError):
        said = json.loads(os.pread(handle, 4096, 0))
    if not isinstance(said, dict):
        said = {}
    return Holder(said.get("pid") or pid, said.get("host"), main=True)


_FLOCK = "hhqqi"
"""struct flock on 64-bit Linux: type, whence, start, length, pid."""


def _asked(handle: int, length: int) -> tuple[bool, int | None]:
    """Whether another process holds one of the first `length` bytes (0 = any), and its pid (None if that is not known).

    Elsewhere than on Linux it is asked only when a lock was refused, so somebody does.
    """
    if sys.platform != "linux":
        return True, None
    question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, length, 0)
    try:
        kind, *_, pid = struct.unpack(_FLOCK, fcntl.fcntl(handle, fcntl.F_GETLK, question))
    except OSError:
        return False, None  # a file system that knows no locks
    return kind != fcntl.F_UNLCK, pid if pid > 0 else None
