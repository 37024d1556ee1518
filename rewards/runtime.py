"""Guards around reward functions: what comes back is a finite number, *not judged*, or a fault with its row. Never a 0 for a failure.

A batch goes to the function as TRL would send it. If that call raises, dies, runs out of time or gives the wrong number
of results, the rows are asked again one by one, so that a bad row of fifty faults alone; the second pass may take as long
as the first, and each of its rows half of what is left. A function should therefore judge each row by itself (rows of one
prompt stay together in the first call, but not in the second).
"""

from __future__ import annotations

import functools
import heapq
import math
import numbers
import pickle
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rewards.calling import Answer, Bad, Callee, Cell, Unfit, name_of
from rewards.memory import share
from rewards.workers import Allowance, Workers, WorkersError, one_line

Kind = Literal["exception", "timeout", "length", "not_a_number", "not_finite", "crash"]

LOGGERS = ("log_extra", "log_metric")
"""Callables that TRL hands to a reward. Calls are held back until the batch is done, so that a second pass logs once."""

SLOWEST = 10
RECENT = 1000


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that went wrong, in one line."""

    where: str
    """The reward's place in the recipe: `rewards.0`."""
    row: int | None
    """Row of the batch; None = the whole batch."""
    row_id: str | None
    kind: Kind
    text: str

    def __str__(self) -> str:
        row = "" if self.row is None else f" row {self.row_id or self.row}"
        return f"{self.where}{row}: {self.kind}: {self.text}"


class RewardFault(RuntimeError):
    """A reward function failed on a row and `on_error` is `fail`. One line; `.fault` has the parts."""

    def __init__(self, name: str, fault: Fault, rows: int = 1):
        more = f" (and {rows - 1} more rows)" if rows > 1 else ""
        super().__init__(f"reward {name}: {fault}{more}")
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Scores:
    """One number a row; None with a fault = failed, None without = the function did not judge the row."""

    values: list[float | None]
    faults: list[Fault]
    seconds: float
    """Wall time of the whole batch."""


@dataclass(frozen=True, slots=True, order=True)
class Slow:
    """A call that took long, and the rows it was for (one row only where rows were asked singly)."""

    seconds: float
    rows: tuple[str, ...]


class Guard:
    """A reward function that may fail, made safe. Usable as it is in `GRPOTrainer(reward_funcs=[Guard(...)])`.

    Args:
        make: the reward function itself (sync, async, or an object with `__call__`), or a callable without arguments
            that gives it. A callable with a parameter `prompts`, `completions` or `completion_ids`, or with any
            required parameter, is taken for the function itself.
        name: name in metrics; None = the function's own.
        timeout: seconds that one call for a batch may take. With `processes` the worker is killed then. Without, an async
            function is cancelled then; a sync one cannot be stopped: its overrun is noticed when it returns, and its rows fault.
        processes: worker processes; 0 = call in this process and thread. With n, the rows are split into n calls. `make`
            and all columns must be picklable, and `trainer_state` is not passed.
        memory: GiB that the worker processes may hold together; None = half of the machine's (or the container's) over its training
            processes. Beyond it the biggest is killed and its rows are asked again; one that leaks is replaced between two calls.
        where: shown in faults.
        on_error: what `guard(...)` does with a fault: `fail` raises `RewardFault`, `skip_row` gives None for the row.

    Raises:
        ValueError: a bad setting, or a function that cannot be sent to worker processes.
    """

    def __init__(
        self,
        make: Callable[..., Any],
        *,
        name: str | None = None,
        timeout: float = 60.0,
        processes: int = 0,
        memory: float | None = None,
        where: str = "rewards.0",
        on_error: Literal["fail", "skip_row"] = "fail",
    ):
        if not callable(make):
            raise ValueError(f"{where}: {make!r:.80} is not callable")
        if not (isinstance(timeout, numbers.Real) and 0 < timeout < math.inf):
            raise ValueError(f"{where}: timeout must be a positive number of seconds, not {timeout!r}")
        if not isinstance(processes, int) or processes < 0:
            raise ValueError(f"{where}: processes must be 0 or more, not {processes!r}")
        if memory is not None and not (isinstance(memory, numbers.Real) and 0 < memory < math.inf):
            raise ValueError(f"{where}: memory must be a positive number of GiB, not {memory!r}")
        if on_error not in ("fail", "skip_row"):
            raise ValueError(f"{where}: on_error must be fail or skip_row, not {on_error!r}")
        self.make = make
        self.name = self.__name__ = name or name_of(make)
        self.timeout = float(timeout)
        self.processes = processes
        self.memory = memory
        self.where = where
        self.on_error = on_error
        self.calls = 0
        self._seconds: deque[float] = deque(maxlen=RECENT)
        self._slow: list[Slow] = []
        self._live()

    def _live(self) -> None:
        """The parts that stay in this process."""
        self._workers: Workers | None = None
        self._local: Callee | None = None
        if self.processes:
            holds = share() if self.memory is None else int(self.memory * 2**30)
            try:
                self._workers = Workers(functools.partial(Callee, self.make), self.processes, holds=holds)
            except WorkersError as error:
                raise ValueError(
                    f"{self.where}: {self.name} {error}; define it at the top level of a module, or set processes: 0"
                ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_workers", "_local")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._live()

    def __repr__(self) -> str:
        return f"Guard({self.name}, timeout={self.timeout:g}, processes={self.processes})"

    def __call__(
        self, prompts: Any = None, completions: Any = None, completion_ids: Any = None, **columns: Any
    ) -> list[float | None]:
        """TRL's own convention.

        Raises:
            RewardFault: the first fault, with `on_error="fail"`.
        """
        extras = {k: columns.pop(k) for k in ("trainer_state", *LOGGERS, "environments") if k in columns}
        scores = self.score(prompts, completions, completion_ids, columns, extras)
        if scores.faults and self.on_error == "fail":
            raise RewardFault(self.name, scores.faults[0], len(scores.faults))
        return scores.values

    def score(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None,
        columns: Mapping[str, Any],
        extras: Mapping[str, Any] | None = None,
    ) -> Scores:
        """One call for a batch: n prompts, n completions, and columns of n values each. Never raises for what the function does.

        `extras` (trainer_state, log_extra, log_metric, environments) go to the function as they are, without `processes`;
        in workers only the two loggers exist, and what they are told is passed on afterwards.
        """
        began = time.monotonic()
        given = {"prompts": prompts, "completions": completions, "completion_ids": completion_ids}
        rows = {k: v for k, v in given.items() if v is not None} | dict(columns)
        n = next((len(v) for v in given.values() if v is not None), 0)
        batch = _Batch(rows, n, dict(extras or {}))
        self.calls += 1
        try:
            cells, logs = self._cells(batch)
        except (WorkersError, Unfit) as error:
            fault = Fault(self.where, None, None, "exception", str(error))
            return Scores([None] * n, [fault], time.monotonic() - began)
        _replay(logs, batch)
        values: list[float | None] = [None if isinstance(cell, Bad) else cell for cell in cells]
        faults = [
            Fault(self.where, i, batch.row_id(i), cell.kind, cell.text)
            for i, cell in enumerate(cells)
            if isinstance(cell, Bad)
        ]
        return Scores(values, faults, time.monotonic() - began)

    def _cells(self, batch: _Batch) -> tuple[list[Cell], list[_Log]]:
        cells: list[Cell] = [None] * batch.n
        logs: list[_Log] = []
        parts = batch.split(max(1, self.processes))
        second = _Halving(self.timeout, max(1, self.processes))
        for part, answer in zip(parts, self._ask(batch, parts, Allowance(self.timeout)), strict=True):
            if isinstance(answer, Bad) and len(part) > 1 and self._can_ask_again(answer):
                answers = self._singly(batch, part, answer, second)
            else:
                answers = [(part, answer)]
            for rows, one in answers:
                if not isinstance(one, Bad):
                    logs.append((rows, one.logs))
                for k, i in enumerate(rows):
                    cells[i] = one if isinstance(one, Bad) else one.cells[k]
        return cells, logs

    def _singly(
        self, batch: _Batch, part: Sequence[int], bad: Bad, allowance: Allowance
    ) -> list[tuple[Sequence[int], Bad | Answer]]:
        """The rows of a part that failed as a whole, asked one by one."""
        rows = [[i] for i in part]
        answers = self._ask(batch, rows, allowance)
        if bad.kind == "length" and not any(isinstance(a, Bad) and a.kind != "unrun" for a in answers):
            # It miscounts, and single rows do not show where: then none of its numbers can be placed.
            return [(part, bad)]
        unrun = Bad(bad.kind, f"{bad.text} (with its batch; not asked again singly, there was no time left)")
        return [
            (row, unrun if isinstance(answer, Bad) and answer.kind == "unrun" else answer)
            for row, answer in zip(rows, answers, strict=True)
        ]

    def _can_ask_again(self, bad: Bad) -> bool:
        """In this process a sync function that overran would only overrun again."""
        return bad.kind != "timeout" or self.processes > 0 or self._callee().is_async

    def _callee(self) -> Callee:
        if self._local is None:
            try:
                self._local = Callee(self.make)
            except Exception as error:
                raise Unfit(f"could not be built: {one_line(error)}") from error
        return self._local

    def _ask(self, batch: _Batch, parts: Sequence[Sequence[int]], allowance: Allowance) -> list[Bad | Answer]:
        """One answer a part.

        Raises:
            Unfit, WorkersError: it cannot be asked at all.
        """
        if self._workers is not None:
            return self._ask_workers(self._workers, batch, parts, allowance)
        callee = self._callee()
        jobs = [(batch.take(part), len(part), batch.extras) for part in parts]
        if callee.is_async and len(parts) > 1:
            timed = callee.together(jobs, self.timeout)
        else:
            timed = [callee.guarded(*job, allowance) for job in jobs]
        answers = []
        for part, (answer, seconds) in zip(parts, timed, strict=True):
            self._note(seconds, batch, part)
            if seconds > self.timeout and not isinstance(answer, Bad):
                answer = Bad("timeout", f"took {seconds:.1f} s of {self.timeout:g} s; processes: 1 would stop it then")
            answers.append(answer)
        return answers

    def _ask_workers(
        self, workers: Workers, batch: _Batch, parts: Sequence[Sequence[int]], allowance: Allowance
    ) -> list[Bad | Answer]:
        batch.check_picklable()
        logging = tuple(k for k in LOGGERS if k in batch.extras)
        outcomes = workers.run([(batch.take(part), len(part), logging) for part in parts], allowance)
        answers: list[Bad | Answer] = []
        for part, outcome in zip(parts, outcomes, strict=True):
            self._note(outcome.seconds, batch, part)
            answer = outcome.value if outcome.kind == "value" else Bad(outcome.kind, outcome.text)
            if isinstance(answer, Bad) and answer.kind == "unfit":
                raise Unfit(answer.text)
            answers.append(answer)
        return answers

    def _note(self, seconds: float, batch: _Batch, part: Sequence[int]) -> None:
        self._seconds.append(seconds)
        slow = Slow(seconds, tuple(batch.row_id(i) or str(i) for i in part[:8]))
        if len(self._slow) < SLOWEST:
            heapq.heappush(self._slow, slow)
        elif slow > self._slow[0]:
            heapq.heapreplace(self._slow, slow)

    def timing(self) -> dict[str, Any]:
        """`calls`, seconds per call over the last 1000 (`p50`, `p99`), and the `slowest` calls with up to 8 of their rows."""
        ordered = sorted(self._seconds)

        def rank(share: float) -> float:
            return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

        return {"calls": self.calls, "p50": rank(0.5), "p99": rank(0.99), "slowest": sorted(self._slow, reverse=True)}

    def pids(self) -> list[int]:
        """Process ids of the workers that live now."""
        return self._workers.pids() if self._workers is not None else []

    def close(self) -> None:
        """End the worker processes and the event loop. A later call starts them again. Done by itself at exit."""
        if self._workers is not None:
            self._workers.close()
        if self._local is not None:
            self._local.close()


_Log = tuple[Sequence[int], list[tuple[str, str, Any]]]


class _Halving(Allowance):
    """Time for a second pass: each row may take half of what is left, so that no row can starve all others."""

    LEAST = 0.05

    def __init__(self, seconds: float, side_by_side: int):
        super().__init__(seconds * side_by_side)
        self.most = seconds

    def next(self) -> float:
        return min(self.seconds / 2, self.most) if self.seconds > self.LEAST else 0.0

    def spent(self, seconds: float) -> None:
        self.seconds -= seconds


class _Batch:
    def __init__(self, rows: dict[str, Any], n: int, extras: dict[str, Any]):
        self.rows = rows
        self.n = n
        self.extras = extras
        self._picklable = False

    def row_id(self, i: int) -> str | None:
        ids = self.rows.get("row_id")
        return str(ids[i]) if isinstance(ids, Sequence) and len(ids) == self.n else None

    def take(self, part: Sequence[int]) -> dict[str, Any]:
        """The keyword arguments for some rows."""
        if len(part) == self.n:
            return dict(self.rows)
        return {
            k: [v[i] for i in part] if isinstance(v, (list, tuple)) and len(v) == self.n else v
            for k, v in self.rows.items()
        }

    def split(self, most: int) -> list[range]:
        """Up to `most` runs of rows of about equal length; rows of one prompt stay together where that leaves enough runs."""
        if self.n == 0:
            return []
        most = min(most, self.n)
        prompts = self.rows.get("prompts")
        starts = [i for i in range(self.n) if i == 0 or not prompts or prompts[i] != prompts[i - 1]]
        if len(starts) < most:
            starts = list(range(self.n))
        cuts = sorted({starts[k * len(starts) // most] for k in range(most)})
        return [range(a, b) for a, b in zip(cuts, [*cuts[1:], self.n], strict=True)]

    def check_picklable(self) -> None:
        if self._picklable:
            return
        for name, values in self.rows.items():
            try:
                pickle.dumps(values)
            except Exception as error:
                raise Unfit(
                    f'column "{name}" cannot be sent to worker processes ({one_line(error)}); drop it, or set processes: 0'
                ) from error
        self._picklable = True


def _replay(logs: list[_Log], batch: _Batch) -> None:
    """Pass on what the function logged. Of parts of a batch: extra columns joined, the k-th value of a metric averaged."""
    extra, metric = (batch.extras.get(k) for k in LOGGERS)
    columns: dict[str, list[Any]] = {}
    metrics: dict[tuple[str, int], list[tuple[float, int]]] = {}
    for part, entries in logs:
        seen: dict[str, int] = {}
        for kind, name, value in entries:
            if kind == "log_extra":
                column = columns.setdefault(name, [None] * batch.n)
                for i, v in zip(part, value, strict=False):
                    column[i] = v
            else:
                metrics.setdefault((name, seen.get(name, 0)), []).append((value, len(part)))
                seen[name] = seen.get(name, 0) + 1
    for name, column in columns.items():
        if extra is not None:
            extra(name, column)
    for (name, _), parts in metrics.items():
        if metric is not None:
            rows = sum(weight for _, weight in parts)
            metric(name, sum(value * weight for value, weight in parts) / rows)
