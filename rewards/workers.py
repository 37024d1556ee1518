"""Long-lived worker processes that can be killed: a job that hangs costs one deadline, one that crashes costs one worker.

Each worker is a fresh interpreter (no fork of a process with threads or CUDA, no re-run of the caller's main script),
talks over a socket pair, and runs one job at a time. No signals are used, so any thread may call `Workers.run`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Literal

from rewards import memory as memories

log = logging.getLogger(__name__)

ORPHAN_SECONDS = 5.0
"""A worker whose job is this long past its deadline ends itself: its parent is gone."""
WEIGH = 0.2
"""Seconds between two looks at what workers hold, where that is limited."""

_BOOT = "import sys; sys.path[:] = sys.argv[2:]; from rewards.workers import serve; serve(int(sys.argv[1]))"


class WorkersError(RuntimeError):
    """The workers cannot be used at all: they do not start, or what they should run cannot be sent or built."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one job. `value` for kind `value`; `text`, one line, for the others."""

    kind: Literal["value", "exception", "timeout", "crash", "unrun"]
    value: Any = None
    text: str = ""
    seconds: float = 0.0


def one_line(error: BaseException) -> str:
    """`ValueError: no digits (my_rewards.py:12)`, whatever the exception is."""
    try:
        # An exception may quote what a model wrote, and end in a log.
        words = " ".join(str(error)[:10_000].split())[:300]
        said = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)
    except Exception:
        said = ""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{': ' if said else ''}{said}{place}"


class Allowance:
    """How many seconds the next job may take; 0 = it is not run at all."""

    def __init__(self, seconds: float):
        self.seconds = seconds

    def next(self) -> float:
        return self.seconds

    def spent(self, seconds: float) -> None:
        """Told after each job."""


class Workers:
    """A fixed number of worker processes, started when first needed, restarted when killed or dead.

    Args:
        make: picklable; called without arguments in each worker, gives the function that a job's arguments go to.
        count: how many processes at most.
        memory: cap of a worker's address space in bytes; None = none. What needs more fails there with a `MemoryError`.
        holds: bytes of resident memory that all workers, with what they start, may hold together; None = any. Beyond it the
            biggest is killed. One that grows from job to job is replaced between two jobs before that, which costs nothing
            but the start of another.
        quiet: drop what workers print.
        start_seconds: how long a worker may take until it has built its function.

    Raises:
        WorkersError: `make` cannot be pickled.
    """

    def __init__(
        self,
        make: Callable[[], Callable[..., Any]],
        count: int,
        *,
        memory: int | None = None,
        holds: int | None = None,
        quiet: bool = False,
        start_seconds: float = 120.0,
    ):
        try:
            built = pickle.dumps(make)
        except Exception as error:
            raise WorkersError(f"cannot be sent to a worker process ({one_line(error)})") from error
        # A function of the caller's own script needs that script imported in the worker, as multiprocessing does it.
        script = getattr(sys.modules.get("__main__"), "__file__", None) if b"__main__" in built else None
        self._setup = pickle.dumps((script, memory, built))
        self.count = count
        self.holds = holds
        self.replaced = 0
        """How many workers were replaced because of what they held."""
        self.quiet = quiet
        self.start_seconds = start_seconds
        self._workers: list[_Worker] = []
        self._idle: list[_Worker] = []
        self._changed = threading.Condition()
        weakref.finalize(self, _kill_all, self._workers)
        _ALL.add(self)

    def run(self, jobs: Sequence[tuple[Any, ...]], allowance: Allowance) -> list[Outcome]:
        """Run each job's arguments through the function; one outcome a job, in order.

        `allowance` is asked when a worker takes a job, whose time counts from then. Never raises for what a job does.

        Raises:
            WorkersError: workers do not start, or the function cannot be built in them.
            Exception: a job's arguments cannot be pickled.
        """
        outcomes: list[Outcome | None] = [None] * len(jobs)
        todo = deque((i, pickle.dumps(job)) for i, job in enumerate(jobs))
        running: dict[Connection, _Running] = {}
        try:
            while todo or running:
                while todo and (worker := self._borrow(wait=not running)) is not None:
                    self._assign(worker, todo.popleft(), allowance, running, outcomes, todo)
                nearest = min((r.ends for r in running.values()), default=0.0)
                patience = max(0.0, nearest - time.monotonic())
                ready = wait(list(running), timeout=patience if self.holds is None else min(patience, WEIGH))
                for connection in ready:
                    self._receive(running.pop(connection), allowance, running, outcomes, todo)  # type: ignore[index]
                now = time.monotonic()
                for connection in [c for c, r in running.items() if r.ends <= now]:
                    late = running.pop(connection)
                    self._discard(late.worker)
                    if not late.worker.ready:
                        raise WorkersError(f"a worker process did not start within {self.start_seconds:g} s")
                    seconds = now - late.began
                    allowance.spent(seconds)
                    outcomes[late.job[0]] = Outcome("timeout", text=f"killed after {seconds:.1f} s", seconds=seconds)
                self._weigh(running, allowance, outcomes)
        finally:
            for left in running.values():
                self._discard(left.worker)
        return outcomes  # type: ignore[return-value]

    def pids(self) -> list[int]:
        """Process ids of the workers that live now."""
        with self._changed:
            return [w.process.pid for w in self._workers]

    def close(self) -> None:
        """Kill all workers. The next `run` starts new ones."""
        with self._changed:
            self._idle.clear()
            _kill_all(self._workers)
            self._changed.notify_all()

    def _borrow(self, wait: bool) -> _Worker | None:
        with self._changed:
            while True:
                while self._idle:
                    worker = self._idle.pop()
                    if not worker.connection.poll():
                        return worker
                    worker.kill()  # an idle worker says nothing: this is the end of its stream, it was killed from outside
                    self._workers.remove(worker)
                if len(self._workers) < self.count:
                    try:
                        worker = _Worker(self._setup, self.quiet)
                    except OSError as error:
                        raise WorkersError(f"a worker process cannot be started ({one_line(error)})") from error
                    self._workers.append(worker)
                    return worker
                if not wait:
                    return None
                self._changed.wait(timeout=1.0)

    def _assign(
        self,
        worker: _Worker,
        job: tuple[int, bytes],
        allowance: Allowance,
        running: dict[Connection, _Running],
        outcomes: list[Outcome | None],
        todo: deque[tuple[int, bytes]],
    ) -> None:
        now = time.monotonic()
        if not worker.ready:
            running[worker.connection] = _Running(worker, job, now, now + self.start_seconds)
            return
        seconds = allowance.next()
        if seconds <= 0:
            outcomes[job[0]] = Outcome("unrun", text="there was no time left")
            self._give_back(worker)
            return
        try:
            worker.send(job[1], seconds)
        except OSError:  # it died while it was idle: not this job's doing
            self._discard(worker)
            todo.appendleft(job)
            return
        running[worker.connection] = _Running(worker, job, now, now + seconds)

    def _receive(
        self,
        done: _Running,
        allowance: Allowance,
        running: dict[Connection, _Running],
        outcomes: list[Outcome | None],
        todo: deque[tuple[int, bytes]],
    ) -> None:
        worker, (index, _) = done.worker, done.job
        try:
            kind, content = pickle.loads(worker.connection.recv_bytes())
        except (EOFError, OSError):
            self._discard(worker)
            how = worker.ending()
            if not worker.ready:
                raise WorkersError(f"a worker process died while starting ({how})") from None
            outcomes[index] = Outcome(
                "crash", text=f"the worker process died ({how})", seconds=time.monotonic() - done.began
            )
            return
        except Exception as error:  # an answer that cannot be read back
            self._discard(worker)
            outcomes[index] = Outcome("exception", text=one_line(error), seconds=time.monotonic() - done.began)
            return
        if kind == "unbuilt":
            self._discard(worker)
            raise WorkersError(content)
        if kind == "ready":
            worker.ready = True
            self._assign(worker, done.job, allowance, running, outcomes, todo)
            return
        seconds = time.monotonic() - done.began
        allowance.spent(seconds)
        value, text = (content, "") if kind == "value" else (None, content)
        outcomes[index] = Outcome(kind, value, text, seconds)
        self._give_back(worker)

    def _weigh(
        self, running: dict[Connection, _Running], allowance: Allowance, outcomes: list[Outcome | None]
    ) -> None:
        """Kill the biggest worker of those at work here if all of them hold too much."""
        if self.holds is None or not running:
            return
        total = self._held()
        if total <= self.holds:
            return
        big = max(running.values(), key=lambda r: r.worker.held())
        size = big.worker.held()
        if 2 * size < self.holds / self.count:  # it is not these that are big
            return
        del running[big.worker.connection]
        self._discard(big.worker)
        self.replaced += 1
        said = f"it held {_gib(size)} of memory, and all workers together may hold {_gib(self.holds)}"
        if not big.worker.ready:
            raise WorkersError(f"a worker process was killed while starting: {said}")
        seconds = time.monotonic() - big.began
        allowance.spent(seconds)
        outcomes[big.job[0]] = Outcome("crash", text=f"the worker process was killed: {said}", seconds=seconds)

    def _held(self) -> int:
        with self._changed:
            workers = list(self._workers)
        return sum(worker.held() for worker in workers)

    def _outgrown(self, worker: _Worker) -> bool:
        """True if `worker`, between two jobs, had better make room for a new one: it grows and the limit is near.

        One that is big from its first job on is not replaced, the next would be as big.
        """
        if self.holds is None:
            return False
        size = worker.held()
        if worker.first is None:
            worker.first = size
        return size - worker.first > self.holds / 4 / self.count and self._held() > 0.75 * self.holds

    def _give_back(self, worker: _Worker) -> None:
        if self._outgrown(worker):
            if not self.replaced:
                log.warning(
                    "rewards: a worker process has grown from %s to %s of memory and was replaced (at most %s); its function "
                    "may leak; further ones are replaced without a word",
                    _gib(worker.first or 0), _gib(worker.held()), _gib(self.holds or 0),
                )  # fmt: skip
            self.replaced += 1
            self._discard(worker)
            return
        with self._changed:
            if worker in self._workers:
                self._idle.append(worker)
            self._changed.notify()

    def _discard(self, worker: _Worker) -> None:
        worker.kill()
        with self._changed:
            if worker in self._workers:
                self._workers.remove(worker)
            self._changed.notify()

    def _forked(self) -> None:
        """In the child of a fork: the workers are the parent's. Forget them, and start own ones when needed."""
        for worker in self._workers:
            with contextlib.suppress(OSError):
                worker.connection.close()
        self._workers.clear()
        self._idle.clear()
        self._changed = threading.Condition()


_ALL: weakref.WeakSet[Workers] = weakref.WeakSet()
os.register_at_fork(after_in_child=lambda: [pool._forked() for pool in list(_ALL)])


@dataclass
class _Running:
    worker: _Worker
    job: tuple[int, bytes]
    began: float
    ends: float


@dataclass(eq=False)
class _Worker:
    setup: bytes
    quiet: bool
    ready: bool = False
    first: int | None = None
    """What it held after its first job, in bytes."""
    process: subprocess.Popen[bytes] = field(init=False)
    connection: Connection = field(init=False)

    def __post_init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, str(theirs.fileno()), *(p or os.getcwd() for p in sys.path)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL if self.quiet else None,
                start_new_session=True,  # Ctrl-C is the parent's to handle; and the whole group can be killed
            )
        self.connection = Connection(ours.detach())
        with contextlib.suppress(OSError):  # it died at once: seen as the end of the stream
            self.connection.send_bytes(self.setup)

    def send(self, job: bytes, seconds: float) -> None:
        self.connection.send_bytes(pickle.dumps(seconds))
        self.connection.send_bytes(job)

    def held(self) -> int:
        """Bytes of memory that it holds, with what it has started; 0 if that cannot be known."""
        return memories.held(self.process.pid) or 0

    def kill(self) -> None:
        if self.process.returncode is None:  # not reaped yet, so the id is still this group's
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        with contextlib.suppress(OSError):
            self.connection.close()

    def ending(self) -> str:
        code = self.process.returncode
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                return f"signal {signal.Signals(-code).name}"
        return f"exit code {code}"


def _gib(size: float) -> str:
    return f"{size / 2**30:.3g} GiB"


def _kill_all(workers: list[_Worker]) -> None:
    while workers:
        workers.pop().kill()


def serve(fd: int) -> None:
    """Life of a worker process: build the function, then answer one job after another until the parent is gone."""
    os.dup2(2, 1)  # what the function prints goes to stderr
    connection = Connection(fd)
    try:
        function = _build(*pickle.loads(connection.recv_bytes()))
    except (EOFError, OSError):
        os._exit(0)
    except BaseException as error:
        connection.send_bytes(pickle.dumps(("unbuilt", one_line(error))))
        os._exit(0)
    nowhere = open(os.devnull, "w")  # noqa: SIM115  (kept open for the life of the process)
    try:
        connection.send_bytes(pickle.dumps(("ready", None)))
        while True:
            seconds = pickle.loads(connection.recv_bytes())
            # faulthandler's watchdog needs no interpreter lock: it ends even a process stuck in one C call.
            faulthandler.dump_traceback_later(seconds + ORPHAN_SECONDS, exit=True, file=nowhere)
            answer = _answer(function, connection.recv_bytes())
            faulthandler.cancel_dump_traceback_later()
            connection.send_bytes(answer)
    except (EOFError, OSError):
        os._exit(0)


def _build(script: str | None, memory: int | None, built: bytes) -> Callable[..., Any]:
    if memory is not None:
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    if script is not None:
        import runpy
        import types

        main = types.ModuleType("__mp_main__")
        main.__dict__.update(runpy.run_path(script, run_name="__mp_main__"))
        sys.modules["__main__"] = sys.modules["__mp_main__"] = main
    return pickle.loads(built)()


def _answer(function: Callable[..., Any], job: bytes) -> bytes:
    try:
        return pickle.dumps(("value", function(*pickle.loads(job))))
    except BaseException as error:
        return pickle.dumps(("exception", one_line(error)))
