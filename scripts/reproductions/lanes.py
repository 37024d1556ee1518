"""Runs in processes of their own, some at a time; what is done is kept, and the same command goes on with what is not."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MEASURED = "measured.json"
SPEC = "spec.json"
LOG = "log.txt"
LANE = "REPRODUCE_LANE"
"""Environment variable of a run: which of the lanes it is in, from 0."""


class Failed(RuntimeError):
    """A run ended otherwise than it should; one line."""


def result(folder: Path, spec: dict[str, Any]) -> dict[str, Any] | None:
    """What a run measured, if it is there and of this very specification."""
    try:
        found = json.loads((folder / MEASURED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if found.get("spec") == spec else None


@dataclass
class Lanes:
    """`lanes` processes at a time, each with one thread."""

    work: Path
    program: Path
    """Called with the folder of a run, whose `spec.json` says what it is."""
    lanes: int = 2
    say: Callable[[str], None] = field(default=lambda line: print(line, flush=True))

    def run(self, specs: Sequence[Any], expected: Callable[[Any], float]) -> list[dict[str, Any]]:
        """What each run measured, in order.

        Args:
            specs: with `name` and `to_json()`.
            expected: seconds that a run takes, for the estimate of what is left.

        Raises:
            Failed: a run did. Those that are under way are ended; all go on where they were, given the command again.
        """
        todo = [s for s in specs if result(self.work / s.name, s.to_json()) is None]
        total, going = len(todo), {}
        try:
            while todo or going:
                while todo and len(going) < self.lanes:
                    spec = todo.pop(0)
                    lane = min(set(range(self.lanes)) - {lane for *_, lane in going.values()})
                    going[self._start(spec, lane)] = (spec, time.monotonic(), lane)
                time.sleep(0.2)
                for process in [p for p in going if p.poll() is not None]:
                    spec, began, _ = going.pop(process)
                    if process.returncode != 0 or result(self.work / spec.name, spec.to_json()) is None:
                        raise Failed(
                            f"{spec.name}: ended with {process.returncode}; see {self.work / spec.name / LOG}"
                        )
                    left = (sum(map(expected, todo)) + sum(expected(s) for s, *_ in going.values()) / 2) / self.lanes
                    done = total - len(todo) - len(going)
                    took = time.monotonic() - began
                    self.say(f"{done}/{total} {spec.name}: {took:.0f} s; about {left / 60:.0f} min of these are left")
        finally:
            for process in going:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)  # and what it has started; a run then keeps its last step
            for process in going:
                process.wait()
        return [result(self.work / s.name, s.to_json()) or {} for s in specs]

    def _start(self, spec: Any, lane: int) -> subprocess.Popen[bytes]:
        folder = self.work / spec.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SPEC).write_text(json.dumps(spec.to_json(), indent=2) + "\n", encoding="utf-8")
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        with (folder / LOG).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, str(self.program), str(folder.resolve())],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | threads | {LANE: str(lane)},
                start_new_session=True,
            )
