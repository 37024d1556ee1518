"""What the processes of a run tell each other while they run, and what one makes of it. No threads, no clock of its own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

from posttrain.watch.processes import Fate, Identity, fate


@dataclass(frozen=True)
class Beat:
    """A process about itself, every second or so."""

    rank: int
    who: Identity
    serial: int = 0
    """One more with every beat."""
    count: int = 0
    """What it got done so far (`rollouts.pulse`)."""
    phase: str = ""
    step: int | None = None
    """Optimiser steps taken."""
    boundary: int = -1
    """The last step after which it went on to the next one; then its state is at rest."""
    place: str = ""
    """Where its main thread is."""
    waiting: bool = False
    """Whether that is inside something that waits for the others."""
    ending: str = ""
    """Why it ends, if it does."""
    code: int = 3
    """The exit code that comes of it."""
    saved: bool = False
    """Its part of the last checkpoint is written, as far as it could be."""
    over: bool = False
    """It needs nobody any more: whatever becomes of it is no fault."""

    def text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Beat | None:
        """None if it is not a beat."""
        try:
            found = json.loads(text)
            return cls(**{**found, "who": Identity(**found["who"])})
        except (ValueError, TypeError, KeyError, RecursionError):
            return None

    @property
    def name(self) -> str:
        return f"process {self.rank} ({self.who})"

    @property
    def doing(self) -> str:
        step = "" if self.step is None else f" of step {self.step + 1}"
        return f"{self.phase or 'start'}{step}"


@dataclass
class Peer:
    """Another process as this one sees it. Times are this process's own: clocks of machines need not agree."""

    rank: int
    beat: Beat | None = None
    heard: float = 0.0
    """When its last new beat came."""
    moved: float = 0.0
    """When it last had got something done."""
    trusted: bool = False
    """False while the only beat known may be left over from an earlier launch."""
    fate: Fate = "unknown"

    def hear(self, beat: Beat, now: float, fresh: bool) -> None:
        """Take note of a beat. `fresh`: it is of this launch for certain; otherwise the second one proves it."""
        old = self.beat
        if old is not None and old.who == beat.who and beat.serial <= old.serial:
            return
        if self.trusted and not fresh and old is not None and old.who != beat.who:
            return  # left over from an earlier launch
        self.trusted = self.trusted or fresh or (old is not None and old.who == beat.who)
        if old is None or old.count != beat.count or (old.phase, old.step) != (beat.phase, beat.step):
            self.moved = now
        self.beat, self.heard = beat, now

    def look(self) -> None:
        """Ask the kernel, where it can be asked."""
        self.fate = fate(self.beat.who) if self.beat is not None and self.trusted else "unknown"

    @property
    def over(self) -> bool:
        return self.trusted and self.beat is not None and self.beat.over

    def silent(self, now: float) -> float:
        """Seconds without a beat."""
        return now - self.heard


@dataclass(frozen=True)
class Verdict:
    """What is wrong, in one line, and whose part of a checkpoint need not be waited for."""

    reason: str
    absent: frozenset[int] = field(default_factory=frozenset)
    code: int = 3


def left(peers: Iterable[Peer], now: float, elsewhere: float) -> Verdict | None:
    """Those that have died: gone from this machine, or without a sign for `elsewhere` seconds on another."""
    lost = []
    for peer in peers:
        if peer.beat is None or not peer.trusted or peer.over:
            continue
        if peer.fate == "gone":
            lost.append((peer, "is gone (killed, out of memory, or ended by itself)"))
        elif peer.fate == "unknown" and peer.silent(now) > elsewhere:
            lost.append((peer, f"has given no sign of life for {peer.silent(now):.0f} s"))
    if not lost:
        return None
    told = "; ".join(f"{p.beat.name} {how}; it was last seen in {p.beat.doing}" for p, how in lost if p.beat)
    return Verdict(told, frozenset(p.rank for p, _ in lost))


def standstill(mine: Beat, peers: Sequence[Peer], now: float, moved: float, silent: float) -> Verdict:
    """Who is in the way when nothing moves: who gives no sign, else who is busy while the others wait, else everyone.

    Args:
        moved: when this process last got something done.
        silent: seconds without a beat after which a process counts as giving no sign.
    """
    absent = [
        p for p in peers if not p.over and (p.beat is None or p.fate in ("gone", "stopped") or p.silent(now) > silent)
    ]
    if absent:
        return Verdict("; ".join(_silence(p, now) for p in absent), frozenset(p.rank for p in absent))
    everyone = [(mine, now - moved)] + [(p.beat, now - p.moved) for p in peers if p.beat is not None and not p.over]
    busy = [(beat, quiet) for beat, quiet in everyone if not beat.waiting]
    stuck = sorted(busy or everyone, key=lambda one: -one[1])
    told = "; ".join(f"{b.name} is stuck in {b.doing}{f', at {b.place}' if b.place else ''}" for b, _ in stuck)
    if len(stuck) < len(everyone):
        told += "; the others wait for it" if len(stuck) == 1 else "; the others wait for them"
    elif not busy and len(everyone) > 1:
        told += "; they wait for each other"
    return Verdict(told)


def _silence(peer: Peer, now: float) -> str:
    if peer.beat is None:
        return f"process {peer.rank} has not joined the others"
    how = {"gone": "is gone", "stopped": "is stopped (SIGSTOP, or a debugger)"}.get(peer.fate)
    how = how or f"has given no sign of life for {peer.silent(now):.0f} s"
    return f"{peer.beat.name} {how}; it was last seen in {peer.beat.doing}"
