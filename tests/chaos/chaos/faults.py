"""Every fault, as data: what it is called, how it is given, what is measured, what must come of it."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass

from chaos.kinds import Clock, Disk, Kind, Page, Rank, Removed, Result, Reward, Servers


@dataclass(frozen=True)
class Fault:
    name: str
    given: str
    """How, in some words."""
    measured: str
    expected: str
    kind: Kind
    code: int | None = None
    """Exit code; None = the run goes on."""
    says: str = ""
    """What its line holds (a pattern); "" = it need not say anything."""
    lost: int = 0
    """Most optimiser steps that may be lost."""
    short: bool = False
    """Asked by scripts/test too."""

    def check(self, result: Result) -> list[str]:
        """What came otherwise than expected."""
        wrong = []
        if result.seconds is None:
            wrong.append("it neither went on nor ended")
        if result.code != self.code:
            wrong.append(f"it {result.outcome()}, expected was: {self.expected}")
        if self.says and not re.search(self.says, result.line):
            wrong.append(f"it said: {result.line!r}")
        if (result.steps_lost or 0) > self.lost:
            wrong.append(f"{result.steps_lost} steps are lost")
        return wrong


REST = "seconds until the next step or the end; steps lost, rollouts lost, completions asked twice; the line"
ON = "goes on; every prompt answered once by the policy of its step"
ENDS = "ends with exit 3 and one line; the last step is kept"
NAMED = "ends with exit 3 and one line that names it; the last step is kept, or the checkpoint of every second one"
TAKEN = r"is taken out|went|no sign of life"

FAULTS: tuple[Fault, ...] = (
    Fault("server killed", "SIGKILL to one of two vLLM servers in mid-generation", REST, ON, Servers("kill")),
    Fault("server hung", "SIGSTOP to one of two vLLM servers in mid-generation", REST, ON, Servers("stop")),
    Fault(
        "server gone",
        "one of two: nobody listens, connections reset",
        REST,
        ON,
        Servers("gone"),
        says=TAKEN,
        short=True,
    ),
    Fault("server silent", "one of two: connections, no answers", REST, ON, Servers("hang"), says=TAKEN),
    Fault("server slow", "one of two: each answer a second late", REST, ON, Servers("slow"), short=True),
    Fault("server errors", "one of two: HTTP 500 to everything", REST, ON, Servers("500"), says=TAKEN, short=True),
    Fault(
        "server garbage",
        "one of two: ten kinds of nonsense under HTTP 200",
        REST,
        ON,
        Servers("garbage"),
        says=TAKEN,
        short=True,
    ),
    Fault("both gone and back", "both: gone for 4 s", REST, ON, Servers("gone", both=True), says=TAKEN, short=True),
    Fault(
        "both hung",
        "SIGSTOP to both vLLM servers in mid-generation, SIGCONT 40 s later",
        REST,
        ON,
        Servers("stop", both=True, lasts=40.0, patience=120.0),
    ),
    Fault(
        "both killed and restarted",
        "SIGKILL to both vLLM servers in mid-generation, started again at once",
        REST,
        ON,
        Servers("kill", both=True, lasts=0.0, patience=120.0),
        says=TAKEN,
    ),
    Fault(
        "both gone for good",
        "both: gone",
        REST,
        ENDS,
        Servers("gone", both=True, lasts=None),
        3,
        "no server is left",
        short=True,
    ),
    Fault(
        "reward raises",
        "ValueError where one row in fifty asks for it",
        REST,
        "goes on; that row is left out",
        Reward("raises", "exception"),
        says="no digits",
        short=True,
    ),
    Fault(
        "reward raises (fail)",
        "the same under `on_error: fail`, the default",
        REST,
        ENDS,
        Reward("raises", "exception", skip=False),
        3,
        "no digits",
    ),
    Fault(
        "reward hangs",
        "sleeps an hour for one row in fifty; timeout 2 s, a worker process",
        REST,
        "goes on; that row is left out",
        Reward("hangs", "timeout", processes=1),
        says="timeout",
        short=True,
    ),
    Fault(
        "reward hangs the trainer",
        "the same with processes: 0, the default; watch.deadline 10",
        REST,
        "ends with exit 3 and one line that says where; the last step is kept",
        Reward("hangs", None, words=("watch.stall=5", "watch.deadline=10")),
        3,
        "nothing has moved.*in rewards of step",
    ),
    Fault(
        "reward leaks",
        "40 MiB more at every call; a worker process, memory 0.25 GiB",
        REST,
        "goes on; the worker is replaced",
        Reward("leaks", None, processes=1, memory=0.25),
        says="has grown",
        short=True,
    ),
    Fault(
        "reward kills",
        "SIGKILL to its own process for one row in fifty; a worker process",
        REST,
        "goes on; that row is left out",
        Reward("dies", "crash", processes=1),
        says="crash",
        short=True,
    ),
    Fault(
        "reward NaN",
        "NaN for one row in fifty",
        REST,
        "goes on; that row is left out",
        Reward("nan", "not_finite"),
        says="not_finite",
        short=True,
    ),
    Fault(
        "reward infinite",
        "inf for one row in fifty",
        REST,
        "goes on; that row is left out",
        Reward("infinite", "not_finite"),
        says="not_finite",
    ),
    Fault(
        "reward strings",
        "a string for one row in fifty",
        REST,
        "goes on; that row is left out",
        Reward("text", "not_a_number"),
        says="not_a_number",
        short=True,
    ),
    Fault(
        "rank killed",
        "SIGKILL to training process 1 of 2",
        REST,
        NAMED,
        Rank(signal.SIGKILL),
        3,
        "process 1",
        lost=2,
        short=True,
    ),
    Fault(
        "rank stopped",
        "SIGSTOP to training process 1 of 2; watch.deadline 15",
        REST,
        NAMED,
        Rank(signal.SIGSTOP, words=("watch.stall=8", "watch.deadline=15")),
        3,
        "process 1",
        lost=2,
    ),
    Fault(
        "told to end",
        "SIGTERM to the launcher of 2 processes",
        REST,
        ENDS,
        Rank(signal.SIGTERM, "launcher"),
        3,
        "SIGTERM",
        lost=1,
    ),
    Fault(
        "disk nearly full",
        "64 MiB of tmpfs filled but for 64 KiB, freed later",
        REST,
        "goes on; the checkpoint before stays",
        Disk(64),
        says="was not saved",
        short=True,
    ),
    Fault(
        "disk full",
        "64 MiB of tmpfs filled to the last page",
        REST,
        "ends with exit 3 and one line; the same command goes on",
        Disk(0),
        3,
        "disk is full",
        lost=8,
    ),
    Fault(
        "folder removed",
        "rm -rf of the run's folder",
        REST,
        "ends with exit 3 and one line",
        Removed(),
        3,
        "removed",
        lost=10**9,
        short=True,
    ),
    Fault(
        "clock forward",
        "time.time() 10 days later from step 4 on",
        REST,
        "goes on as if nothing was",
        Clock(864000.0),
        short=True,
    ),
    Fault(
        "clock back", "time.time() 10 days earlier from step 4 on", REST, "goes on as if nothing was", Clock(-864000.0)
    ),
    Fault(
        "page asked for",
        "the page is made again and again while the run writes",
        REST,
        "whole pages; the run goes on",
        Page(),
        short=True,
    ),
)
"""In the order of the table."""
