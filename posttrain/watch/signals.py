"""Signals that end a run, heard by a thread: a main thread that sits in a collective runs no handler of Python's.

The C part of Python's signal handling writes the number of every signal that has a Python handler into a pipe, at once and
whatever the main thread does. Our handler itself does nothing but raise what the thread has laid out for the main thread.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Signals:
    """Takes over the signals of `ENDING` until `restore`. Made by the main thread.

    Args:
        due: called in the main thread when one arrives; what it returns, if anything, is raised there.
    """

    INTERRUPT = int(signal.SIGINT)

    @staticmethod
    def name(number: int) -> str:
        return signal.Signals(number).name

    def __init__(self, due: Callable[[], BaseException | None]):
        self._due = due
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self.main = threading.get_ident()
        self._before: dict[int, Any] = {}
        self._fd: int | None = None
        _ALL.add(self)
        if threading.current_thread() is threading.main_thread():
            for number in ENDING:
                before = signal.getsignal(number)
                if number == signal.SIGHUP and before != signal.SIG_DFL:
                    continue  # nohup: the terminal may go
                self._before[number] = before
                signal.signal(number, self._handle)
            self._fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def wait(self, seconds: float) -> list[int]:
        """Signals that came, after at most so many seconds; at once when one comes or `wake` is called."""
        ready, _, _ = select.select([self._read], [], [], seconds)
        if not ready:
            return []
        with suppress(BlockingIOError):
            return [n for n in os.read(self._read, 4096) if n in ENDING]
        return []

    def wake(self) -> None:
        """Let `wait` return."""
        with suppress(OSError):
            os.write(self._write, b"\0")

    def poke(self) -> None:
        """Make the main thread run the handler, also out of a sleep or another system call."""
        with suppress(OSError, ValueError):
            signal.pthread_kill(self.main, signal.SIGTERM)

    def restore(self) -> None:
        """Give the signals back. By the main thread."""
        if self._fd is not None:
            signal.set_wakeup_fd(self._fd)
            self._fd = None
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _forked(self) -> None:
        """In a process that was forked off (a worker of a data loader or a pool): a signal to it is not one to us."""
        if self._fd is not None:
            self.restore()
            signal.set_wakeup_fd(-1)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        error = self._due()
        if error is not None:
            raise error


_ALL: weakref.WeakSet[Signals] = weakref.WeakSet()
os.register_at_fork(after_in_child=lambda: [one._forked() for one in list(_ALL)])
