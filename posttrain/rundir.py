"""Every file name of a run, and who may write there.

runs/NAME/
  recipe.yaml            as it was given           resolved.json     with every default and override
  environment.json       versions, machine         plan.json         batch geometry and counts
  status.json            state, started, ended     metrics.jsonl     one line a logged step
  rollouts/000034-r0.jsonl   every rollout of generation step 34 made by rank 0
  faults.jsonl           what rewards did wrong    adapters/v000035/ the adapter as the engine got it (rotated)
  checkpoints/           TRL's own                 adapter/ | model/ the result
  evaluation/before-arithmetic/{samples.jsonl,result.json}
  report.html
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from posttrain import terminal
from posttrain.errors import Mistake


def write_atomic(path: Path, text: str) -> None:
    """Write `text` so that a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
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
    """Add one JSON line with one write, so that lines of several writers never mix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = (terminal.in_json(json.dumps(record, ensure_ascii=False, allow_nan=False)) + "\n").encode()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, line)
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

    @classmethod
    def claim(cls, directory: str, name: str, if_exists: str = "refuse") -> RunDir:
        """Take the folder for a new run, or refuse in one line. Call it on the main process only.

        Raises:
            Mistake: the folder already holds a run and `if_exists` is `refuse`.
        """
        run = cls(Path(directory) / name)
        if run.status.exists() or run.recipe.exists():
            if if_exists == "refuse":
                raise Mistake(
                    f"{run.root}: already holds a run; give it another name (run.name=...), "
                    "or run.if_exists=restart to begin anew (the old one is moved aside), or run.if_exists=resume"
                )
            if if_exists == "restart":
                aside = run.root.with_name(f"{run.root.name}.{time.strftime('%Y%m%d-%H%M%S')}")
                serial = 1
                while aside.exists():
                    serial += 1
                    aside = run.root.with_name(f"{aside.name.split('~')[0]}~{serial}")
                os.rename(run.root, aside)
        run.root.mkdir(parents=True, exist_ok=True)
        return run

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
