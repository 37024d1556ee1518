"""Every rollout goes to the run directory, by a writer thread, one file a generation step and process."""

from __future__ import annotations

import json
import queue
import threading
from pathlib import Path
from typing import Any

from posttrain.rundir import RunDir, read_lines, write_atomic


class Recorder:
    """Writes batches of records in the background. `close` waits for what is left and raises what went wrong."""

    def __init__(self, run: RunDir, rank: int):
        self.run = run
        self.rank = rank
        self.count = 0
        """Training rollouts recorded by this process."""
        self._queue: queue.Queue[tuple[Path, list[dict[str, Any]]] | None] = queue.Queue(maxsize=64)
        self._error: BaseException | None = None
        self._steps: dict[Path, list[dict[str, Any]]] = {}
        self._thread = threading.Thread(target=self._write, name="rollout-writer", daemon=True)
        self._thread.start()

    def write(self, step: int, phase: str, records: list[dict[str, Any]]) -> None:
        """Queue the records of one generation batch.

        Raises:
            OSError: an earlier write failed (a full disk, say).
            Alarm: the folder of the run is gone.
        """
        self._tell()
        if phase == "train":
            self.count += len(records)
        self._queue.put((self.run.rollout_file(step, self.rank), records))

    def flush(self) -> None:
        """Wait until all that was queued is on the disk.

        Raises:
            OSError: a write failed.
            Alarm: the folder of the run is gone.
        """
        self._queue.join()
        self._tell()

    def _tell(self) -> None:
        self.run.check()
        if self._error is not None:
            raise self._error

    def _write(self) -> None:
        while (item := self._queue.get()) is not None:
            path, records = item
            try:
                if self.run.gone:  # whoever queues the next batch is told
                    continue
                # A step may hold several generation batches, some of them from before the run was cut and went on; the file is
                # replaced with all of them.
                held = self._steps.get(path) or list(read_lines(path))
                held = [*held, *records]
                self._steps = {path: held}
                write_atomic(path, "".join(json.dumps(r, ensure_ascii=False, allow_nan=False) + "\n" for r in held))
            except BaseException as error:
                if not self.run.gone:
                    self._error = error
            finally:
                self._queue.task_done()

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = int(state["count"])

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join(timeout=60)
        if self._error is not None:
            raise self._error
