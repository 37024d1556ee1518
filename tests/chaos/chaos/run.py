"""One training process (or two) that is watched from outside: what it has done, what it has said, how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]


class Watched:
    """A command, its output, and the moments at which it got on. `progress` tells how many steps are done."""

    def __init__(
        self, command: list[str], folder: Path, name: str, env: Mapping[str, str], progress: Callable[[], int]
    ):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.out, self.err = folder / f"{name}.out", folder / f"{name}.err"
        self.began = time.monotonic()
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **env},
                stdout=out,
                stderr=err,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.moments: list[float] = []
        """When step 1, 2, ... was seen to be done (monotonic)."""
        self.ended: float | None = None
        self._progress = progress
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            code = self.process.poll()
            done = self._progress()
            while len(self.moments) < done:
                self.moments.append(time.monotonic())
            if code is not None:
                self.ended = time.monotonic()
                return
            time.sleep(0.02)

    @property
    def step(self) -> int:
        """Optimiser steps done."""
        return len(self.moments)

    @property
    def usual(self) -> float:
        """Seconds that a step takes when nothing is wrong: the median."""
        gaps = [b - a for a, b in zip(self.moments, self.moments[1:], strict=False)]
        return statistics.median(gaps) if gaps else 0.0

    @property
    def longest(self) -> float:
        """Seconds of the longest step (but for the first)."""
        return max((b - a for a, b in zip(self.moments, self.moments[1:], strict=False)), default=0.0)

    def wait_step(self, step: int, seconds: float = 300.0) -> float | None:
        """When `step` was done (monotonic); None if the process ended, or the time was up, before that."""
        until = time.monotonic() + seconds
        while self.step < step and self.ended is None and time.monotonic() < until:
            time.sleep(0.01)
        return self.moments[step - 1] if self.step >= step else None

    def wait_after(self, at: float, seconds: float) -> float | None:
        """When the step that was in flight at that moment (monotonic) was done; None as above. Steps are seen a little late, and
        none is as short as that."""
        at += 0.06
        until = time.monotonic() + seconds
        while True:
            ended = self.ended is not None or time.monotonic() > until
            if (done := next((m for m in self.moments if m > at), None)) is not None or ended:
                return done
            time.sleep(0.01)

    def wait(self, seconds: float) -> int | None:
        """The exit code; None if it is still going on after so many seconds."""
        until = time.monotonic() + seconds
        while self.ended is None and time.monotonic() < until:
            time.sleep(0.02)
        return None if self.ended is None else self.process.returncode

    def said(self) -> str:
        """All of stderr so far."""
        return self.err.read_text(errors="replace") if self.err.exists() else ""

    def line(self, pattern: str, after: int = 0) -> str | None:
        """The first line of stderr with `pattern`, from character `after` on."""
        return next((x for x in self.said()[after:].splitlines() if re.search(pattern, x)), None)

    def wait_line(self, pattern: str, after: int = 0, seconds: float = 60.0) -> str | None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            ended = self.ended is not None
            if (found := self.line(pattern, after)) is not None or ended:
                return found
            time.sleep(0.05)
        return None

    def ranks(self) -> dict[int, int]:
        """Rank -> process id of the training processes below this command."""
        found = {}
        for pid in _below(self.process.pid):
            with contextlib.suppress(OSError):
                env = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
                rank = next((int(e[5:]) for e in env if e.startswith(b"RANK=")), None)
                # Not a worker of a reward, nor anything else that has inherited the variable.
                if rank is not None and (b"posttrain.train" in words or b"bare_train" in words):
                    found.setdefault(rank, pid)
        return found

    def kill(self) -> None:
        """All that it started too."""
        pids = [self.process.pid, *_below(self.process.pid)]
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


class Run(Watched):
    """`posttrain train` with a recipe, in `folder`; its run is `folder/runs/x`."""

    SMALL = (
        "evaluation=[]",
        "preflight=off",
        "trainer.args.per_device_train_batch_size=16",
        "trainer.args.num_generations=8",
        "rollouts.sampling.max_tokens=12",
        "data.train.with={n: 256}",
        "run.name=x",
    )

    def __init__(
        self, folder: Path, *words: str, processes: int = 1, env: Mapping[str, str] | None = None, name: str = "ours"
    ):
        recipe = str(ROOT / "recipes" / "arithmetic_grpo.yaml")
        if processes > 1:
            command = [sys.executable, "-m", "posttrain.cli", "train", "--processes", str(processes)]
            command += ["--accelerate", str(ROOT / "recipes/accelerate/cpu.yaml")]
        else:
            command = [sys.executable, "-m", "posttrain.train"]
        self.root = folder / "runs" / "x"
        super().__init__(
            [*command, recipe, *self.SMALL, *words], folder, name, {"POSTTRAIN_VLLM_KEY": "only-for-tests", **(env or {})},
            self._steps,
        )  # fmt: skip

    def _steps(self) -> int:
        steps = [m["step"] for m in self.lines("metrics.jsonl") if m.get("phase") == "train"]
        return max(steps, default=0)

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The whole lines of a file of the run."""
        with contextlib.suppress(OSError):
            text = (self.root / name).read_text()
            return [json.loads(x) for x in text[: text.rfind("\n") + 1].splitlines()]
        return []

    def rollouts(self) -> list[dict[str, Any]]:
        files = sorted((self.root / "rollouts").glob("*.jsonl"))
        return [json.loads(x) for f in files for x in f.read_text().splitlines()]

    def status(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            return json.loads((self.root / "status.json").read_text())
        return {}

    def kept(self) -> int:
        """The step of the newest whole checkpoint; 0 if there is none."""
        from posttrain import checkpoints
        from posttrain.rundir import RunDir

        found = checkpoints.newest(RunDir(self.root)) if self.root.is_dir() else None
        return found.step if found else 0


class Bare(Watched):
    """TRL's own trainer, or its client, by one of the scripts beside this file."""

    def __init__(
        self, script: str, folder: Path, *, processes: int = 1, env: Mapping[str, str] | None = None, **options: Any
    ):
        command = [sys.executable]
        if processes > 1:
            command += ["-m", "accelerate.commands.launch", "--config_file", str(ROOT / "recipes/accelerate/cpu.yaml")]
            command += ["--num_processes", str(processes)]
        command += [str(Path(__file__).with_name(script)), json.dumps(options)]
        super().__init__(command, folder, "bare", env or {}, self._steps)

    def _steps(self) -> int:
        text = self.out.read_text(errors="replace") if self.out.exists() else ""
        return max((int(n) for n in re.findall(r"^done (\d+)$", text, re.MULTILINE)), default=0)

    def last_line(self) -> str:
        """The exception, or whatever it said last."""
        if (self.process.poll() or 0) < 0:
            return ""  # killed: what it said before that is not about it
        lines = [x for x in self.said().splitlines() if x.strip()]
        errors = [x for x in lines if re.match(r"[\w.]*(Error|Exception|Exit|Interrupt)\b", x)]
        return (errors or lines or [""])[-1].strip()[:240]


def _below(pid: int) -> list[int]:
    try:
        children = [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [p for child in children for p in (child, *_below(child))]
