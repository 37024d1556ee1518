"""Every file name of a run, and who may write there.

runs/NAME/
  recipe.yaml            as it was given           resolved.json     with every default and override
  environment.json       versions, machine         plan.json         batch geometry and counts
  status.json            state, started, ended     metrics.jsonl     one line a logged step
  launches.jsonl         one line a start          .lock             held while a launch is at work
  rollouts/000034-r0.jsonl   every rollout of generation step 34 made by rank 0
  faults.jsonl           what rewards did wrong    adapters/v000035/ the adapter as the engine got it (rotated)
  checkpoints/           see posttrain.checkpoints adapter/ | model/ the result
  evaluation/before-arithmetic/{samples.jsonl,result.json}
  report.html
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from posttrain import terminal
from posttrain.errors import Alarm, Mistake
from posttrain.lock import Held, Holder, Lock, holder


def write_atomic(path: Path, text: str, durable: bool = True) -> None:
    """Write `text` so that a reader sees the old file or the new one, never a part.

    Args:
        durable: wait until the disk has it, so that it survives the machine and not only this process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def write_json(path: Path, value: Any) -> None:
    write_atomic(path, terminal.in_json(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)) + "\n")


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Add one JSON line with one write, so that lines of several writers never mix.

    Raises:
        OSError: the disk is full, say. Then nothing is added, not even a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = (terminal.in_json(json.dumps(record, ensure_ascii=False, allow_nan=False)) + "\n").encode()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        written = os.write(handle, line)
        if written < len(line):
            # A disk that fills up takes what still fits; the next line would be glued to that.
            os.ftruncate(handle, os.lseek(handle, 0, os.SEEK_CUR) - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    finally:
        os.close(handle)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a JSON-lines file; a last line that is still being written is left out."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            if not line.endswith("\n"):
                return
            if line.strip():
                yield json.loads(line)


class RunDir:
    """The folder of one run. Only names and claims; what is in the files is their writers' business."""

    def __init__(self, root: Path | str):
        self.root = Path(root)
        self._lock: Lock | None = None

    @classmethod
    def claim(cls, directory: str, name: str, restart: bool = False) -> RunDir:
        """Take the folder for this launch and keep others out. Call it on the main process only.

        A run that was cut off goes on, whatever cut it off. Nothing in the folder is touched before it is ours.

        Args:
            restart: begin anew; a run that is there is moved aside, to `NAME.DATE-TIME`.

        Raises:
            Mistake: another launch is at work there, or the run is done.
            OSError: the folder cannot be made.
        """
        run = cls(Path(directory) / name)
        run._take()
        if restart and run.holds_a_run:
            aside = _aside(run.root)
            os.rename(run.root, aside)
            run.release()  # the lock went with the folder
            run._take()
        elif run.state == "done":
            run.release()
            raise Mistake(
                f"{run.root}: this run is done; begin anew with --restart (it is moved aside), or give another name "
                "(run.name=...)"
            )
        return run

    def _take(self) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise Mistake(f"{self.root}: a file is in the way; give another run.name or run.directory") from None
        self._lock = Lock(self.lock)
        try:
            self._lock.take(waiting=self._wait_for)
        except Held as held:
            after = "" if held.holder.main else ", left over from a launch whose main process is gone; end it"
            raise Mistake(
                f"{self.root}: another launch is at work there ({held}{after}); wait for it, or give another name "
                "(run.name=...)"
            ) from None

    def _wait_for(self, holder: Holder) -> None:
        told = terminal.line(f"{self.root}: waiting for {holder} of the earlier launch to end")
        print(told, file=sys.stderr, flush=True)

    def join(self, rank: int) -> None:
        """Take part in the launch that claimed the folder, as its process `rank`.

        Raises:
            Mistake: another process is there under that rank.
        """
        self.root.mkdir(parents=True, exist_ok=True)  # another machine may have a file system of its own
        self._lock = Lock(self.lock)
        try:
            self._lock.join(rank)
        except Held as held:
            raise Mistake(f"{self.root}: {held} is at work there as process {rank}; end it") from None

    def release(self) -> None:
        """Let others have the folder. The end of the process does it too."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @property
    def gone(self) -> bool:
        """True if the folder is not the one that this process claimed any more: it was removed or moved away."""
        return self._lock is not None and self._lock.gone

    @contextlib.contextmanager
    def there(self) -> Iterator[None]:
        """What fails in this block because the folder is gone is told as that, whoever met it first.

        Raises:
            Alarm: instead of that error.
        """
        try:
            yield
        except (Alarm, Mistake):
            raise
        except Exception as error:
            if self.gone:
                raise self._gone() from error
            raise

    def check(self) -> None:
        """Raises:
        Alarm: the folder is gone.
        """
        if self.gone:
            raise self._gone()

    def _gone(self) -> Alarm:
        return Alarm(
            f"{self.root}: the folder of this run was removed or moved while it ran, so nothing that it writes would be "
            "kept with the rest; start again, under another run.name if the folder is to stay away"
        )

    @property
    def holds_a_run(self) -> bool:
        return self.status.exists() or self.recipe.exists()

    @property
    def state(self) -> str | None:
        """What `status.json` says: `running`, `done`, `failed` or `stopped`; None if it says nothing."""
        state = self.read_status().get("state")
        return state if isinstance(state, str) else None

    @property
    def cut_off(self) -> bool:
        """True if the run did not end and no process is at work on it."""
        return self.state == "running" and self.lock.exists() and holder(self.lock) is None

    def read_status(self) -> dict[str, Any]:
        """`status.json`; empty if there is none that can be read."""
        try:
            # (A pipe or a device of that name would never end.)
            found = json.loads(self.status.read_bytes()) if self.status.is_file() else None
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def update_status(self, **facts: Any) -> None:
        """Change entries of `status.json`, for whoever ends the run when its main thread cannot."""
        write_json(self.status, {**self.read_status(), **facts})

    @property
    def lock(self) -> Path:
        return self.root / ".lock"

    @property
    def launches(self) -> Path:
        return self.root / "launches.jsonl"

    @property
    def recipe(self) -> Path:
        return self.root / "recipe.yaml"

    @property
    def resolved(self) -> Path:
        return self.root / "resolved.json"

    @property
    def environment(self) -> Path:
        return self.root / "environment.json"

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    @property
    def status(self) -> Path:
        return self.root / "status.json"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def faults(self) -> Path:
        return self.root / "faults.jsonl"

    @property
    def rollouts(self) -> Path:
        return self.root / "rollouts"

    def rollout_file(self, step: int, rank: int) -> Path:
        return self.rollouts / f"{step:06d}-r{rank}.jsonl"

    @property
    def adapters(self) -> Path:
        return self.root / "adapters"

    def adapter_version(self, version: int) -> Path:
        return self.adapters / f"v{version:06d}"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def spare(self) -> Path:
        """What the other processes leave of every step; see `posttrain.trainers.spare`."""
        return self.root / ".spare"

    @property
    def adapter(self) -> Path:
        return self.root / "adapter"

    @property
    def model(self) -> Path:
        return self.root / "model"

    def evaluation(self, when: str, benchmark: str) -> Path:
        """Folder of one evaluation: `when` is `before`, `after` or `step-000050`."""
        return self.root / "evaluation" / f"{when}-{benchmark}"

    @property
    def report(self) -> Path:
        return self.root / "report.html"


def _aside(root: Path) -> Path:
    """A name for an old run that is free."""
    first = root.with_name(f"{root.name}.{time.strftime('%Y%m%d-%H%M%S')}")
    aside, serial = first, 1
    while aside.exists():
        serial += 1
        aside = first.with_name(f"{first.name}~{serial}")
    return aside
