"""A small process beside each training process, for what that cannot do about itself.

It ends the process when its watch has not got hold of the interpreter for too long (one call in C, a regular expression
say, may keep it for ever, and then no thread of that process runs), and ends what the process has started when it was
killed. Run as a file, with nothing but the standard library; it takes JSON lines on its stdin:

first     {"pid", "born", "rank", "code_file", "status"}
then      {"limit": seconds, "doing": text, "children": [[pid, born], ...]}
at last   {"bye": seconds that the end may take}, or the end of the stream: the process is gone
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

TICK = 0.5


class Guard:
    """The training process's end of the pipe. Everything is best effort: a guard that is gone is gone."""

    def __init__(self, first: dict[str, Any]):
        self._process: subprocess.Popen[bytes] | None = None
        with suppress(OSError):
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C is not for it
            )
            os.set_blocking(self._process.stdin.fileno(), False)  # type: ignore[union-attr]
            self.tell(first)

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def tell(self, line: dict[str, Any]) -> None:
        if self._process is not None:
            with suppress(OSError, ValueError):
                os.write(self._process.stdin.fileno(), (json.dumps(line) + "\n").encode())  # type: ignore[union-attr]

    def close(self, within: float | None = None) -> None:
        """Let it go. `within`: seconds after which it ends this process, should that still be there."""
        self.tell({"bye": within})
        if self._process is not None and within is None:
            self._process.stdin.close()  # type: ignore[union-attr]
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=5)
            self._process = None


def _stat(pid: int) -> tuple[str, int] | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().decode(errors="replace").rpartition(")")[2].split()
        return fields[0], int(fields[19])
    except (OSError, IndexError):
        return None


def _lives(pid: int, born: int) -> bool:
    found = _stat(pid)
    return found is not None and found[0] not in "ZX" and found[1] == born


def _kill(pid: int, born: int) -> None:
    if _lives(pid, born):
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


class _Ward:
    """The process that is guarded, and what is known of it."""

    def __init__(self) -> None:
        self.first: dict[str, Any] = {}
        self.now: dict[str, Any] = {}
        self.quiet = 0.0
        """Seconds since its last word, not counting those in which it was stopped (Ctrl-Z, a debugger)."""

    def hear(self, line: dict[str, Any]) -> None:
        if self.first:
            self.now |= line
        else:
            self.first = line
        self.quiet = 0.0

    @property
    def lives(self) -> bool:
        return _lives(self.first["pid"], self.first["born"])

    @property
    def stopped(self) -> bool:
        found = _stat(self.first["pid"])
        return found is not None and found[0] in "Tt"

    def kill(self) -> None:
        _kill(self.first["pid"], self.first["born"])
        self.kill_children()

    def kill_children(self) -> None:
        for pid, born in self.now.get("children", []):
            _kill(pid, born)

    def judge(self) -> None:
        """It has been out of reach for longer than it may."""
        rank, pid = self.first["rank"], self.first["pid"]
        line = (
            f"process {rank} (pid {pid}) has been in one call that lets no other thread run for {self.quiet:.0f} s, in "
            f"{self.now.get('doing') or 'its start'}, and was killed; the same command goes on from the last checkpoint "
            "(give a reward that can hang `processes: 1`)"
        )
        prefix = "" if rank == 0 else f"[process {rank}] "
        print(f"{prefix}posttrain: stopped: {line}", file=sys.stderr, flush=True)
        with suppress(OSError):
            if self.first.get("code_file"):
                Path(self.first["code_file"]).write_text("3")
        with suppress(OSError, ValueError):
            if status := self.now.get("status"):
                told = json.loads(Path(status).read_bytes())
                told |= {"state": "stopped", "error": line[:500], "ended": time.time()}
                part = Path(f"{status}.guard")
                part.write_text(json.dumps(told, indent=2) + "\n")
                os.replace(part, status)


def main() -> None:
    ward, rest = _Ward(), b""
    mark = time.monotonic()
    while True:
        ready, _, _ = select.select([0], [], [], TICK)
        now = time.monotonic()
        if ready:
            data = os.read(0, 65536)
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                with suppress(ValueError):
                    ward.hear(json.loads(line))
            if "bye" in ward.now:
                break
        elif ward.first and not ward.lives:
            break  # and something that it forked off holds the pipe
        elif ward.first and not ward.stopped:
            # A machine that slept, or a guard that was stopped itself, is no reason.
            ward.quiet += min(now - mark, 4 * TICK)
            limit = ward.now.get("limit")
            if limit is not None and ward.quiet > limit:
                ward.judge()
                ward.kill()
                return
        mark = now
    if not ward.first:
        return
    within = ward.now.get("bye")
    if "bye" in ward.now and within is None:
        return
    # Either it ends, and may take a while for it, or it is gone already.
    until = time.monotonic() + (within or 2.0)
    while ward.lives and time.monotonic() < until:
        time.sleep(0.1)
    ward.kill()


if __name__ == "__main__":
    main()
