"""The books of a run's completions: none is lost between sampling and training, none is trained on twice.

Every completion gets a ticket, a number that travels with its row through TRL's shuffling and splitting. So what a
training pass really consumed is known by identity, not by counting what should have been there. One ledger a process;
plain data, so that it can lie in a checkpoint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

TICKET = "ticket"
"""Key of the tickets in TRL's batches: int64, shape (rows,)."""


@dataclass(slots=True)
class Sample:
    """A completion that training has not done with, or whose generation is the last."""

    row_id: str
    sample: int
    version: int
    tokens: int
    """Those that the policy wrote and the loss should see."""
    left_out: str | None = None
    """Why it has no vote in the policy's loss: `unjudged`, `masked`; None = it has one."""
    passes: int = 0
    """Training passes that an optimiser step has taken up."""
    counted: bool = False

    def __str__(self) -> str:
        return f"row {self.row_id}, sample {self.sample} (version {self.version})"


@dataclass
class Ledger:
    """Counts of completions. At every boundary between optimiser steps: issued = finished, and
    finished = trained + dropped + waiting.

    Args:
        iterations: training passes over each completion (TRL's `num_iterations`).
    """

    iterations: int
    issued: int = 0
    """Asked for."""
    finished: int = 0
    """Came back."""
    trained: int = 0
    """Taken up by an optimiser step, once however many passes there are."""
    dropped: dict[str, int] = field(default_factory=dict)
    """By reason: gone through training without a vote."""
    sampled_tokens: int = 0
    trained_tokens: int = 0
    generations: int = 0
    micro_batches: int = 0
    digest: str = ""
    """Chain over (row, sample, version) of all completions in order: equal in two runs that asked for the same."""
    _held: dict[int, Sample] = field(default_factory=dict)
    """Ticket -> completion, of the last generation, and of earlier ones that the step under way has used."""
    _first: int = 0
    """The last generation's first ticket."""
    _pending: dict[int, int] = field(default_factory=dict)
    """Ticket -> passes since the last optimiser step."""

    @property
    def waiting(self) -> int:
        """Finished, and not yet taken up by an optimiser step."""
        return sum(not sample.counted for sample in self._held.values())

    def names(self, tickets: Sequence[int], most: int = 3) -> str:
        """The completions behind tickets, for a message."""
        told = [str(self._held[t]) for t in tickets if t in self._held]
        return "; ".join(told[:most]) + (f" and {len(told) - most} more" if len(told) > most else "")

    def issue(self, count: int) -> None:
        """`count` completions are asked of the engine."""
        self.issued += count

    def finish(self, samples: Sequence[Sample]) -> tuple[list[int], str | None]:
        """They came back, in order. Gives their tickets, and what is wrong if the generation before is not used up."""
        wrong = self._passed_over()
        chain = hashlib.blake2b(bytes.fromhex(self.digest), digest_size=16)
        for s in samples:
            chain.update(f"{s.row_id}\x1f{s.sample}\x1f{s.version}\n".encode())
        self.digest = chain.hexdigest()
        tickets = list(range(self.finished, self.finished + len(samples)))
        # An optimiser step may take in several generations; what it has used of the earlier ones is counted when it ends.
        self._held = {t: s for t, s in self._held.items() if t in self._pending} | dict(
            zip(tickets, samples, strict=True)
        )
        self._first = self.finished
        self.finished += len(samples)
        self.sampled_tokens += sum(s.tokens for s in samples)
        self.generations += 1
        return tickets, wrong

    def consume(self, tickets: Iterable[int]) -> tuple[int, str | None]:
        """A training pass over these rows. Gives the tokens that its loss should see, and what is wrong with them."""
        self.micro_batches += 1
        tokens, wrong = 0, None
        for ticket in tickets:
            sample = self._held.get(ticket)
            if sample is None:
                wrong = f"ticket {ticket} is trained on, which is none of the last generation"
                continue
            tokens += 0 if sample.left_out == "masked" else sample.tokens
            self._pending[ticket] = self._pending.get(ticket, 0) + 1
            if sample.passes + self._pending[ticket] > self.iterations:
                wrong = f"{sample} is trained on more often than num_iterations ({self.iterations}) says"
        return tokens, wrong

    def commit(self, applied: bool = True) -> None:
        """An optimiser step has taken up what was consumed since the last one (not `applied`: it was skipped)."""
        for ticket, passes in self._pending.items():
            sample = self._held[ticket]
            sample.passes += passes
            if not sample.counted and applied:
                self._count(sample, sample.left_out)
            elif not sample.counted and sample.passes >= self.iterations:
                self._count(sample, "overflow")
        self._pending.clear()
        self._held = {ticket: sample for ticket, sample in self._held.items() if ticket >= self._first}

    def _count(self, sample: Sample, reason: str | None) -> None:
        sample.counted = True
        if reason is None:
            self.trained += 1
            self.trained_tokens += sample.tokens
        else:
            self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def imbalance(self, micro_step: int, every: int, buffered: Sequence[Sequence[int]]) -> str | None:
        """What is wrong between two optimiser steps; None = nothing.

        Args:
            micro_step: training passes so far by TRL's own count.
            every: micro-batches of one generation.
            buffered: tickets of TRL's micro-batches of the last generation, as it holds them.
        """
        if self.issued != self.finished:
            return f"{self.issued} completions were asked for and {self.finished} came back"
        dropped = sum(self.dropped.values())
        if self.finished != self.trained + dropped + self.waiting:
            return (
                f"{self.finished} completions came back, but {self.trained} trained on + {dropped} dropped + "
                f"{self.waiting} waiting are {self.trained + dropped + self.waiting}"
            )
        if self.micro_batches != micro_step:
            return f"{self.micro_batches} micro-batches went through training, and TRL counts {micro_step}"
        due = -(-micro_step // (every * self.iterations))
        if self.generations != due:
            return f"{self.generations} generations were made where {micro_step} micro-batches need {due}"
        at = micro_step % (every * self.iterations)
        return self._passed_over() if at == 0 else self._beside(buffered, at, every)

    def _passed_over(self) -> str | None:
        """The generation should be used up: which completion is not?"""
        lost = [s for t, s in self._held.items() if s.passes + self._pending.get(t, 0) < self.iterations]
        if not lost:
            return None
        return f"{lost[0]} was sampled, and training passed over it ({len(lost)} such completions)"

    def _beside(self, buffered: Sequence[Sequence[int]], at: int, every: int) -> str | None:
        """Each completion is in TRL's buffer, with as many passes as its place there implies."""
        passes: dict[int, int] = {}
        for j, tickets in enumerate(buffered):
            passes.update(dict.fromkeys(tickets, at // every + (j < at % every)))
        for ticket, sample in self._held.items():
            if ticket not in passes:
                return f"{sample} was sampled, and the trainer no longer holds it"
            if passes[ticket] != sample.passes:
                return f"{sample} has had {sample.passes} passes where its place in the batch says {passes[ticket]}"
        strangers = passes.keys() - self._held.keys()
        return (
            f"the trainer holds ticket {min(strangers)}, which is none of the last generation" if strangers else None
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain data (JSON). Call it between two optimiser steps."""
        kept = {k: v for k, v in vars(self).items() if not k.startswith("_")}
        return {**kept, "dropped": dict(self.dropped), "held": {str(k): asdict(s) for k, s in self._held.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            if name not in ("held", "iterations"):
                setattr(self, name, dict(value) if isinstance(value, dict) else value)
        self._held = {int(k): Sample(**s) for k, s in state["held"].items()}
        self._first = min(self._held, default=self.finished)
        self._pending.clear()
