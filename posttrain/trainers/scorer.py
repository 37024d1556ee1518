"""Rewards as TRL wants them: one thin callable a column, all reading one guarded pass over the batch.

A row that one reward could not judge (a fault that may be skipped, or `None`) is not judged in any column: TRL adds up a
partly judged row as if the missing number were 0.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from accelerate.utils import gather_object

from posttrain.errors import Alarm
from posttrain.recipe.schema import Reward
from posttrain.rundir import RunDir, append_line
from posttrain.trainers.extras import bounded
from posttrain.trainers.timing import Timer
from rewards.runtime import Fault, Guard

WINDOW = 1000
"""Rows over which a reward's `on_error.at_most` is counted."""

FROM_TRL = ("trainer_state", "log_extra", "log_metric", "environments")


@dataclass
class Judged:
    """One reward of the recipe, guarded."""

    name: str
    where: str
    setting: Reward
    guard: Guard
    recent: deque[tuple[int, int]] = field(default_factory=deque)
    """(rows, faulty rows) of the last batches over all processes: as few as hold `WINDOW` rows."""


class Scorer:
    """Scores a batch once, applies the recipe's `on_error`, and keeps the scores for the record."""

    def __init__(self, judged: Sequence[Judged], run: RunDir, timer: Timer):
        self.judged = list(judged)
        self.run = run
        self.timer = timer
        self.scores: list[dict[str, float | None]] = []
        """Of the last batch of this process: for each row, reward name -> number before weights (None: not judged)."""
        self.faults: list[list[str]] = []
        self.extras: list[dict[str, Any]] = []
        """What rewards told `log_extra` about each row of that batch, JSON-able and bounded."""
        self.left_out: Callable[[], Sequence[bool]] | None = None
        """Says which rows of the batch count as not judged, whatever their scores are (truncated ones, say)."""
        self._batch: Any = None

    def state_dict(self) -> dict[str, Any]:
        """How many rows of the last batches could not be judged, by reward."""
        return {judged.name: [list(pair) for pair in judged.recent] for judged in self.judged}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for judged in self.judged:
            judged.recent = deque((int(rows), int(faulty)) for rows, faulty in state.get(judged.name, ()))

    def columns(self) -> list[Callable[..., list[float | None]]]:
        """One callable a reward with TRL's signature; their `__name__`s are the metric names."""
        return [self._column(judged.name) for judged in self.judged]

    def _column(self, name: str) -> Callable[..., list[float | None]]:
        def column(prompts: Any, completions: Any, completion_ids: Any, **columns: Any) -> list[float | None]:
            if self._batch is not completions:
                self._score(prompts, completions, completion_ids, columns)
                self._batch = completions
            out = self.left_out() if self.left_out is not None else [False] * len(self.scores)
            return [
                None if left or None in row.values() else row[name] for left, row in zip(out, self.scores, strict=True)
            ]

        column.__name__ = name
        return column

    def _score(self, prompts: Any, completions: Any, completion_ids: Any, columns: dict[str, Any]) -> None:
        extras = {k: columns[k] for k in FROM_TRL if k in columns}
        per_row = {k: v for k, v in columns.items() if k not in FROM_TRL}
        self.scores = [{} for _ in prompts]
        self.faults = [[] for _ in prompts]
        self.extras = [{} for _ in prompts]
        found: dict[str, list[Fault]] = {}
        with self.timer("rewards"):
            for judged in self.judged:
                told = {**extras, "log_extra": self._noting(judged.name, extras.get("log_extra"))}
                scored = judged.guard.score(prompts, completions, completion_ids, per_row, told)
                for row, value in zip(self.scores, scored.values, strict=True):
                    row[judged.name] = value
                for fault in scored.faults:
                    for i in range(len(prompts)) if fault.row is None else [fault.row]:
                        self.faults[i].append(f"{judged.name}: {fault.kind}: {fault.text}")
                        self.scores[i][judged.name] = None
                found[judged.name] = scored.faults
            step = int(getattr(columns.get("trainer_state"), "global_step", 0))
            self._settle(found, len(prompts), step, columns.get("log_metric"))

    def _noting(self, reward: str, onwards: Callable[..., None] | None) -> Callable[[str, list[Any]], None]:
        """`log_extra` that also keeps what it is told; a name that another reward has used is told apart by the reward's."""
        others = {name for row in self.extras for name in row}

        def note(name: str, values: list[Any]) -> None:
            key = f"{reward}/{name}" if name in others else name
            for row, value in zip(self.extras, values, strict=False):
                if value is not None:
                    row[key] = bounded(value)
            if onwards is not None:
                onwards(name, values)

        return note

    def _settle(self, found: dict[str, list[Fault]], rows: int, step: int, log_metric: Any) -> None:
        """All processes see all faults, so that all stop or all go on.

        Raises:
            Alarm: a fault under `fail`, too many under `skip_row`, or a batch in which no row could be judged.
        """
        for name, faults in found.items():
            for fault in faults:
                append_line(self.run.faults, {"step": step, "reward": name, "where": fault.where, "row": fault.row,
                                              "row_id": fault.row_id, "kind": fault.kind, "text": fault.text})  # fmt: skip
        mine = {
            name: (self._faulty_rows(faults, rows), [_say(f, step) for f in faults[:1]])
            for name, faults in found.items()
        }
        everyone = gather_object([(rows, mine)])
        for judged in self.judged:
            total = sum(n for n, _ in everyone)
            faulty = sum(of[judged.name][0] for _, of in everyone)
            first = next((say for _, of in everyone for say in of[judged.name][1]), "")
            if log_metric is not None:
                log_metric(f"rewards/{judged.name}/faults", faulty / max(total, 1))
            judged.recent.append((total, faulty))
            while sum(n for n, _ in judged.recent) - judged.recent[0][0] >= WINDOW:
                judged.recent.popleft()
            if faulty:
                self._decide(judged, first)

    @staticmethod
    def _faulty_rows(faults: list[Fault], rows: int) -> int:
        return rows if any(f.row is None for f in faults) else len({f.row for f in faults})

    def _decide(self, judged: Judged, first: str) -> None:
        on_error = judged.setting.on_error
        who = f"{judged.where} ({judged.setting.use})"
        if on_error.do == "fail":
            mend = f"mend the reward, or set {judged.where}.on_error: {{do: skip_row}} to leave such rows out"
            raise Alarm(f"{who}: {first}; {mend}")
        total, faulty = judged.recent[-1]
        if faulty == total:
            raise Alarm(f"{who}: no row of the batch could be judged; first: {first}")
        rows, skipped = (sum(column) for column in zip(*judged.recent, strict=True))
        allowed = on_error.at_most * max(rows, WINDOW)
        if skipped > allowed:
            raise Alarm(
                f"{who}: {skipped} of the last {rows} rows could not be judged, "
                f"at_most {on_error.at_most:g} allows {allowed:g}; last: {first}"
            )


def _say(fault: Fault, step: int) -> str:
    row = f" on row {fault.row_id}" if fault.row_id else "" if fault.row is None else f" on row {fault.row}"
    return f"{fault.kind}{row} at step {step}: {fault.text}"


def close(judged: Sequence[Judged]) -> None:
    """End the worker processes of all rewards."""
    for one in judged:
        one.guard.close()
