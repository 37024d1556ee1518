"""The thread that looks after a training process, whatever its main thread is stuck in."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from posttrain import exits, terminal
from posttrain.errors import Ended, Mistake
from posttrain.rundir import RunDir
from posttrain.watch import launched, launcher, processes, stacks
from posttrain.watch.beats import Beat, Peer, Verdict, left, standstill
from posttrain.watch.board import Courier
from posttrain.watch.guard import Guard
from posttrain.watch.signals import Signals
from rollouts import pulse

TICK = 1.0
"""Seconds between two looks."""
ELSEWHERE = 120.0
"""A process on another machine that has given no sign for so long has died, or its machine has."""
MEET = 10.0
"""Seconds for the first beat of every other process to come."""
SILENT = 10.0
"""Seconds without a beat after which, when nothing moves anyway, a process is named for giving no sign."""
AGREE = 6.0
"""Seconds for all processes to arrive at one step, whose state is then saved."""
SAVE = 600.0
"""Seconds that saving may take."""
DEAF = 4.0
"""Seconds without a beat, when all beat ten times a second because they end: such a process will not save its part."""
ANSWER = 3.0
"""Seconds for the main thread to hear that it has to end."""
FINISH = 10.0
"""Seconds for it to end in order then. A launcher kills what is left 30 s after its SIGTERM."""
PATIENT = 150.0
"""Seconds for it when it ends by itself: an engine may wait for its servers."""
TWICE = 2.0
"""A second Ctrl-C within so many seconds is the first one, sent on by the launcher."""
READ = 1 << 20
"""Bytes read or written within a tick that count as progress before the training begins (a model is fetched or loaded)."""

Save = Callable[[str, frozenset[int]], tuple[Path | None, str]]
"""Keeps the state of the last step: called with why, and the processes that cannot take part; tells where, and what is kept."""


@dataclass(frozen=True)
class Limits:
    """Seconds without progress on any process."""

    stall: float = 600.0
    """Until the stacks of all threads are written."""
    deadline: float = 3600.0
    """Until the run ends."""


@dataclass
class Ending:
    """How this process comes to its end."""

    reason: str
    code: int = 3
    absent: frozenset[int] = frozenset()
    by_main: bool = False
    """The main thread asked for it, and ends by itself."""
    others: bool = True
    """The reason lies outside this process's own course."""
    aloud: bool = True
    """This process is the one to say why."""
    line: str = ""
    kept: threading.Event = field(default_factory=threading.Event)
    """Saving is done, and `line` is whole."""
    answered: threading.Event = field(default_factory=threading.Event)
    """The main thread is on its way out."""

    def error(self) -> Ended:
        return Ended(self.line, self.code, said=True)


class Clock:
    """Seconds in which this thread ran: a process that was stopped, or a machine that slept, has not been waiting."""

    def __init__(self) -> None:
        self.now = 0.0
        self._mark = time.monotonic()

    def tick(self) -> float:
        mark = time.monotonic()
        self.now += min(mark - self._mark, 5 * TICK)
        self._mark = mark
        return self.now


class Watch:
    """Looks after one process of a run from its first second to its last; make it in the main thread, before torch is imported.

    Tell it what becomes known in time: `meet` once the processes have met, `know` for the run's folder, its limits, where the
    work is and how its state is kept. What it does then:

    - no progress on any process for `limits.stall`: every process writes the stacks of its threads to the run's `stacks/`;
    - none for `limits.deadline`, or a process that has died: the state is saved and the run ends, with a line that names it;
    - SIGTERM, SIGHUP, Ctrl-C: the state is saved and the run ends; a second Ctrl-C ends it at once;
    - all of these also while the main thread is in C++: then the process is ended from here, with all it has started.
    """

    def __init__(self, rank: int = 0, world: int = 1, *, limits: Limits | None = None, out: IO[str] | None = None):
        self.rank = rank
        self.world = world
        self.limits = limits or Limits()
        self.run: RunDir | None = None
        self.training = False
        self._out = out
        self._doing = "start"
        self._place: Callable[[], tuple[str, int | None]] = lambda: (self._doing, None)
        self._boundary: Callable[[], int] = lambda: -1
        self._save: Save | None = None
        self._facts: Callable[[], dict[str, Any]] = dict
        self._starter = launched.starter()
        self._clock = Clock()
        self._moved = 0.0
        self._count = pulse.count()
        self._read = 0
        self._peers = {r: Peer(r) for r in range(world) if r != rank}
        self._incoming: dict[tuple[int, bool], str] = {}
        self._beat = Beat(rank, processes.me())
        self._courier: Courier | None = None
        self._met = False
        self._stalled = False
        self._ending: Ending | None = None
        self._due: BaseException | None = None
        self._interrupted = 0.0
        self._lock = threading.Lock()
        self._minding = threading.Lock()
        self._closed = threading.Event()
        self._main = threading.get_ident()
        self._stack_file: IO[str] | None = None
        self._guard = Guard(
            {
                "pid": os.getpid(),
                "born": self._beat.who.born,
                "rank": rank,
                "code_file": os.environ.get(exits.CODE_FILE),
            }
        )
        self._signals = Signals(self._take_due)
        self._mind_the_interpreter()
        launcher.follow()
        self._thread = threading.Thread(target=self._work, name="watch", daemon=True)
        self._thread.start()

    # -- what becomes known ------------------------------------------------------------------------------------------

    def meet(self) -> None:
        """The processes have met, so that they can tell each other how they are, and know each other from then on."""
        if self.world == 1:
            return
        self._courier = Courier(self.rank, self.world, self._tell, self._hear, self._pause)
        if self.run is not None:
            self._courier.use_files(self._board_folder())
        until = time.monotonic() + MEET
        while (
            len({rank for rank, _ in self._incoming}) < self.world - 1
            and self._ending is None
            and time.monotonic() < until
        ):
            time.sleep(0.02)
        self._met = True

    def know(
        self,
        run: RunDir | None = None,
        limits: Limits | None = None,
        place: Callable[[], tuple[str, int | None]] | None = None,
        boundary: Callable[[], int] | None = None,
        save: Save | None = None,
        facts: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        """
        Args:
            run: whose folder gets stacks, and whose status is written when the main thread cannot.
            place: phase and optimiser steps taken.
            boundary: the last step whose state can be saved; -1 = none.
            save: saves it.
            facts: more entries of `status.json`, for when the main thread cannot write it.
        """
        if run is not None:
            self.run = run
            if self._courier is not None:
                self._courier.use_files(self._board_folder())
        self.limits = limits or self.limits
        self._place = place or self._place
        self._boundary = boundary or self._boundary
        self._save = save or self._save
        self._facts = facts or self._facts
        self._mind_the_interpreter()  # here, not when the thread gets round to it: it may never
        self._signals.wake()

    def doing(self, what: str) -> None:
        """The main thread begins something else: what it is called in lines, until `know` says where to look instead."""
        self._doing = what
        self._place = lambda: (self._doing, None)
        pulse.beat()

    def at_boundary(self, *_: Any) -> None:
        """By the main thread, between two optimiser steps: goes on, or waits here for the end that was decided on."""
        if self._ending is not None and not self._ending.by_main:
            self._ending.kept.wait(SAVE + AGREE)
            if (due := self._take_due()) is not None:
                raise due
            # The thread is about to poke.
            self._ending.answered.wait(ANSWER)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Around the training: whatever ends it, the others are told and all save the state of the last step.

        Raises:
            Ended: instead of an error that comes of another process having died or stopped.
        """
        try:
            self.training = True
            yield
        except (Mistake, Ended):
            raise
        except BaseException as error:
            ended = self._explain(error)
            if ended is None:
                raise
            raise ended from error
        finally:
            self.training = False

    def _explain(self, error: BaseException) -> Ended | None:
        """What the main thread's exception comes down to, if it is another process's doing. The state is saved then."""
        verdict = None
        if not exits.stopped(error):
            # A collective fails when somebody leaves it; it takes a moment until that can be seen.
            verdict = self._someone_left(patience=3.0 if self.world > 1 else 0.0)
        if verdict is not None:
            ending = self._begin(Ending(verdict.reason, verdict.code, verdict.absent, by_main=True))
        else:
            said = " ".join(str(error).split())[:500]
            if not exits.stopped(error):
                said = f"{self._beat.name} failed: {type(error).__name__}: {said}"
            ending = self._begin(Ending(said, by_main=True, others=False))
        ending.by_main = True
        self._signals.wake()
        ending.kept.wait(SAVE + AGREE + 5)
        ending.answered.set()
        return ending.error() if ending.others else None

    # -- the end of it -----------------------------------------------------------------------------------------------

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.close(error)

    def close(self, error: BaseException | None = None) -> None:
        """By the main thread, when it is done. Twice is harmless."""
        if self._closed.is_set() or os.getpid() != self._beat.who.pid:
            return  # or this is a process that was forked off
        ending = self._ending
        if error is None or isinstance(error, Mistake | Ended) or ending is not None:
            said = ending.reason if ending is not None else ""
        else:
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        self._beat = replace(self._beat, over=True, ending=self._beat.ending or said)
        self._closed.set()
        self._signals.wake()
        if self._courier is not None:
            self._courier.flush(3.0)
            self._courier.close()
        self._thread.join(timeout=5.0)
        self._signals.restore()
        with suppress(Exception):
            faulthandler.cancel_dump_traceback_later()
        self._drop_stack_file()
        if ending is not None:
            self._end_the_stuck()
        # What comes after a failure (other libraries' exit handlers) may wait for processes that are gone.
        self._guard.close(within=None if error is None else 2 * FINISH)

    # -- the thread --------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._closed.is_set():
            numbers = self._signals.wait(TICK)
            try:
                self._look()
                for number in numbers:
                    self._told(number)
                ending = self._ending
                if ending is None:
                    ending = self._judge()
            except Exception as error:  # a watch with a fault of its own must not go silent
                self._say(f"the watch of this process has a fault ({type(error).__name__}: {error}); it goes on")
                continue
            if ending is not None:
                try:
                    self._end(ending)
                except Exception as error:
                    self._say(f"the watch of this process has a fault ({type(error).__name__}: {error}); it ends here")
                    self._leave(ending.code)
                return

    def _look(self) -> None:
        """How things stand here and elsewhere."""
        now = self._clock.tick()
        count = pulse.count()
        if count != self._count or (not self.training and self._reads()):
            self._count, self._moved = count, now
        phase, step = self._where()
        place, waiting = ("", False)
        if now - self._moved > 2 * TICK:
            place, waiting = stacks.place(self._main)
        self._beat = replace(
            self._beat,
            serial=self._beat.serial + 1,
            count=count,
            phase=phase,
            step=step,
            boundary=self._safe_boundary(),
            place=place,
            waiting=waiting and self.world > 1,
            ending=self._ending.reason if self._ending is not None else self._beat.ending,
            code=self._ending.code if self._ending is not None else 3,
        )
        for (rank, fresh), text in list(self._incoming.items()):
            beat = Beat.read(text)
            if beat is not None and beat.rank == rank:
                self._peers[rank].hear(beat, now, fresh)
        for peer in self._peers.values():
            peer.look()
        self._mind_the_interpreter()

    def _mind_the_interpreter(self) -> None:
        """For the time when no thread of this process can run: one in C writes the stacks, the guard ends the process."""
        with self._minding:
            self._mind()

    def _mind(self) -> None:
        status = None if self.run is None or self.rank else str(self.run.status)
        phase, step = self._where()
        self._guard.tell(
            {
                "limit": self.limits.deadline if self._ending is None else SAVE + 60,
                "doing": replace(self._beat, phase=phase, step=step).doing,
                "children": [c for c in processes.descendants(os.getpid()) if c[0] != self._guard.pid],
                "status": status,
            }
        )
        if self.run is None:
            return
        if self._stack_file is None:
            path = self.run.root / "stacks" / f"r{self.rank}-interpreter.txt"
            try:
                path.parent.mkdir(exist_ok=True)
                self._stack_file = path.open("w")
            except OSError:
                return
        with suppress(Exception):
            faulthandler.dump_traceback_later(self.limits.stall, file=self._stack_file)

    def _drop_stack_file(self) -> None:
        """It stays only if something was written."""
        if self._stack_file is None:
            return
        self._stack_file.close()
        with suppress(OSError):
            path = Path(self._stack_file.name)
            if path.stat().st_size == 0:
                path.unlink()
                path.parent.rmdir()

    def _judge(self) -> Ending | None:
        """Whether it is time to do something."""
        now = self._clock.now
        if (verdict := self._someone_left()) is not None:
            return self._begin(Ending(verdict.reason, verdict.code, verdict.absent))
        if self._starter is not None and processes.born(self._starter[0]) != self._starter[1]:
            return self._begin(Ending(f"the process that started this run (pid {self._starter[0]}) is gone"))
        moved = max([self._moved, *(p.moved for p in self._peers.values() if not p.over)])
        quiet = now - moved
        if quiet >= self.limits.deadline:
            verdict = self._standstill(now)
            self._dump(quiet)
            where = "" if self.run is None else f" (stacks: {self.run.root / 'stacks'})"
            return self._begin(
                Ending(
                    f"nothing has moved for {quiet:.0f} s (watch.deadline): {verdict.reason}{where}",
                    absent=verdict.absent,
                )
            )
        if quiet < self.limits.stall:
            self._stalled = False
        elif not self._stalled:
            self._stalled = True
            verdict = self._standstill(now)
            path = self._dump(quiet)
            if self._reports(verdict.absent):
                rest = self.limits.deadline - quiet
                where = "" if path is None else f"; stacks of all threads: {path.parent}"
                self._say(
                    f"nothing has moved for {quiet:.0f} s: {verdict.reason}{where}; the run ends in {rest:.0f} s if it "
                    "stays so"
                )
        return None

    def _someone_left(self, patience: float = 0.0) -> Verdict | None:
        """A process that died, or that is ending for a reason of its own."""
        until = time.monotonic() + patience
        while True:
            verdict = left(self._peers.values(), self._clock.now, ELSEWHERE)
            if verdict is None:
                verdict = next(
                    (
                        Verdict(p.beat.ending, frozenset({p.rank}) if p.over else frozenset(), p.beat.code)
                        for p in sorted(self._peers.values(), key=lambda p: p.rank)
                        if p.beat is not None and p.trusted and p.beat.ending
                    ),
                    None,
                )
            if verdict is not None or time.monotonic() >= until:
                return verdict
            time.sleep(0.1)
            if threading.current_thread() is not self._thread:
                self._signals.wake()  # and the thread looks again

    def _told(self, number: int) -> None:
        """A signal that ends the run."""
        if number == Signals.INTERRUPT:
            now = time.monotonic()
            if self._interrupted and now - self._interrupted > TWICE:
                if self._ending is None or not self._ending.kept.is_set():
                    self._say("stopped: interrupted twice; what was not saved yet is lost")
                self._leave(130)
            self._interrupted = self._interrupted or now
        if self._ending is not None:
            return
        # A launcher tells the others to end when one has died; that one is the reason.
        verdict = self._someone_left()
        if verdict is not None:
            self._begin(Ending(verdict.reason, verdict.code, verdict.absent))
        elif number == Signals.INTERRUPT:
            self._begin(Ending("interrupted", 130))
        else:
            self._begin(Ending(f"the process was told to end ({Signals.name(number)})"))

    # -- ending ------------------------------------------------------------------------------------------------------

    def _begin(self, ending: Ending) -> Ending:
        """The first reason counts."""
        with self._lock:
            if self._ending is None:
                self._ending = ending
                ending.aloud = self._reports(ending.absent)
                if self._courier is not None:
                    self._courier.hurry()
            return self._ending

    def _end(self, ending: Ending) -> None:
        """From the decision to the last moment of this process. Runs in the thread."""
        self._agree(ending)
        ending.line = self._keep(ending)
        self._beat = replace(self._beat, saved=True, serial=self._beat.serial + 1)
        if ending.others and ending.aloud:
            # At once: what comes now may be cut off.
            self._say(f"stopped: {ending.line}")
            self._note(ending.line)
        self._wait_for_main_process(ending)
        ending.kept.set()
        if not ending.by_main and not self._answers(ending):
            self._leave(ending.code)
        if not self._wait_closed(FINISH if ending.others else PATIENT):
            self._leave(ending.code)

    def _agree(self, ending: Ending) -> None:
        """All processes that are there have stopped at one step; while they do, the main threads go on to its end."""
        until, since = time.monotonic() + AGREE, None
        while time.monotonic() < until and not self._closed.is_set():
            self._signals_while_ending(0.1)
            there = [p for p in self._peers.values() if not p.over and p.rank not in self._absent(ending)]
            if not there:
                return
            mine = self._beat.boundary
            same = all(p.beat is not None and p.beat.ending and p.beat.boundary == mine for p in there)
            if not same:
                since = None
            elif since is None:
                since = time.monotonic()
            elif time.monotonic() - since > 0.3:
                return

    def _keep(self, ending: Ending) -> str:
        """Save, and the whole line."""
        if self._save is None or self._safe_boundary() < 0:
            return ending.reason
        told: list[str] = []
        # One that did not hear of the end will not leave its part, and a launcher gives no time to wait for it.
        absent = self._absent(ending) | {p.rank for p in self._peers.values() if not p.over and self._deaf(p)}

        def save() -> None:
            try:
                told.append(self._save(ending.reason, absent)[1])  # type: ignore[misc]
            except BaseException as error:
                told.append(
                    f"its state could not be saved ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
                )

        thread = threading.Thread(target=save, name="watch-save", daemon=True)
        thread.start()
        until = time.monotonic() + SAVE
        while thread.is_alive() and time.monotonic() < until:
            self._signals_while_ending(0.1)
        text = told[0] if told else f"its state could not be saved within {SAVE:.0f} s"
        return f"{ending.reason}; {text}"

    def _wait_for_main_process(self, ending: Ending) -> None:
        """When one process has gone the launcher kills the rest, so the one that seals the checkpoint goes first."""
        main = self._peers.get(0)
        until = time.monotonic() + SAVE
        while main is not None and time.monotonic() < until and not self._closed.is_set():
            if main.over or main.rank in self._absent(ending) or self._deaf(main):
                return
            if main.beat is not None and main.beat.saved:
                return
            self._signals_while_ending(0.1)

    def _answers(self, ending: Ending) -> bool:
        """True if the main thread hears that it has to end."""
        self._due = ending.error()
        until = time.monotonic() + ANSWER
        while time.monotonic() < until:
            self._signals.poke()
            if ending.answered.wait(0.3) or self._closed.is_set():
                return True
        return False

    def _wait_closed(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._closed.is_set():
                return True
            self._signals_while_ending(0.2)
        return self._closed.is_set()

    def _signals_while_ending(self, seconds: float) -> None:
        """Go on looking and telling; a second Ctrl-C still counts."""
        numbers = self._signals.wait(seconds)
        self._look()
        for number in numbers:
            self._told(number)

    def _take_due(self) -> BaseException | None:
        """In the main thread: what it has to raise now."""
        due, self._due = self._due, None
        if due is not None and self._ending is not None:
            self._ending.answered.set()
        return due

    def _end_the_stuck(self) -> None:
        """Fellows on this machine that can end neither by themselves nor by a SIGTERM; the launcher would wait 30 s for them."""
        for peer in self._peers.values():
            if peer.beat is not None and peer.fate == "stopped" and not peer.over:
                processes.end([(peer.beat.who.pid, peer.beat.who.born)])

    def _note(self, line: str) -> None:
        """What `status.json` says of the end."""
        if self.run is None or not self.run.status.exists():
            return  # or the folder was removed: it stays away
        facts: dict[str, Any] = {"state": "stopped", "error": line[:500], "ended": time.time()}
        with suppress(Exception):
            facts |= self._facts()
        with suppress(Exception):
            before = self.run.read_status()
            if isinstance(before.get("launched"), float):
                facts["seconds"] = (before.get("earlier") or 0.0) + facts["ended"] - before["launched"]
            self.run.update_status(**facts)

    def _leave(self, code: int) -> None:
        """End this process from here: the main thread does not answer. Nothing that it has started stays."""
        if file := os.environ.get(exits.CODE_FILE):
            with suppress(OSError):
                Path(file).write_text(str(code))
        self._beat = replace(self._beat, over=True)
        if self._courier is not None:
            self._courier.flush(0.5)
        with suppress(Exception):
            processes.end([c for c in processes.descendants(os.getpid()) if c[0] != self._guard.pid])
        self._end_the_stuck()
        with suppress(Exception):
            faulthandler.cancel_dump_traceback_later()
            self._drop_stack_file()
        self._guard.tell({"bye": None})
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(code)

    # -- small things ------------------------------------------------------------------------------------------------

    def _standstill(self, now: float) -> Verdict:
        return standstill(self._beat, sorted(self._peers.values(), key=lambda p: p.rank), now, self._moved, SILENT)

    def _absent(self, ending: Ending) -> frozenset[int]:
        gone = {p.rank for p in self._peers.values() if p.fate in ("gone", "stopped") and not p.over}
        return ending.absent | gone

    def _deaf(self, peer: Peer) -> bool:
        return peer.silent(self._clock.now) > max(DEAF, 2 * self.world / 32)

    def _reports(self, absent: frozenset[int]) -> bool:
        """The first process that is there speaks for all."""
        return self.rank == min(r for r in range(self.world) if r == self.rank or r not in absent)

    def _where(self) -> tuple[str, int | None]:
        try:
            return self._place()
        except Exception:
            return self._doing, None

    def _safe_boundary(self) -> int:
        try:
            return self._boundary()
        except Exception:
            return -1

    def _reads(self) -> bool:
        """Whether much was read or written since the last tick: loading and fetching are progress too."""
        try:
            lines = Path("/proc/self/io").read_text().splitlines()
        except OSError:
            return False
        total = sum(int(line.split()[1]) for line in lines if line.startswith(("rchar", "wchar", "read_bytes")))
        more, self._read = total - self._read, total
        return more > READ

    def _dump(self, quiet: float) -> Path | None:
        if self.run is None:
            return None
        path = stacks.free_name(self.run.root / "stacks", self.rank)
        try:
            stacks.dump(path, f"{self._beat.name}, {self._beat.doing}, nothing has moved for {quiet:.0f} s")
        except OSError:
            return None
        return path

    def _say(self, text: str) -> None:
        prefix = "" if self.rank == 0 else f"[process {self.rank}] "
        line = f"{prefix}posttrain: {terminal.clean(text)}\n"
        with suppress(Exception):
            if self._out is not None:
                self._out.write(line)
                self._out.flush()
            else:
                os.write(2, line.encode(errors="backslashreplace"))

    def _board_folder(self) -> Path:
        return self.run.root / ".watch"  # type: ignore[union-attr]

    def _tell(self) -> str:
        return self._beat.text()

    def _hear(self, rank: int, text: str, fresh: bool) -> None:
        self._incoming[rank, fresh] = text

    def _pause(self) -> float:
        """Seconds between two rounds of beats: rarer with many processes, quick when it is about to end."""
        return (
            0.1 if not self._met or self._ending is not None or self._closed.is_set() else max(TICK, self.world / 32)
        )
