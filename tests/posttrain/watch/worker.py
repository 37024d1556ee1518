"""One training process in small: a watch, a gloo group, steps of a reward and an all-reduce, and a fault at a given step.

`worker.py FOLDER FAULT RANK`: at step 3, process RANK does FAULT. Env: RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT; STALL, DEADLINE.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from posttrain import exits
from posttrain.errors import Alarm
from posttrain.rundir import RunDir, write_json
from posttrain.watch import Limits, Watch
from rollouts import pulse

FAULT_STEP = 3
STEPS = int(os.environ.get("STEPS", "1000"))


def stuck_reward():
    time.sleep(1000)


def holds_interpreter():
    re.match(r"(a+)+$", "a" * 60 + "b")


def fault(name: str) -> None:
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif name == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif name == "sleep":
        stuck_reward()
    elif name == "interpreter":
        holds_interpreter()
    elif name == "alarm":
        raise Alarm("rewards.0: not a number on row 7")
    elif name == "bug":
        raise ValueError("a bug of ours")
    elif name == "exit":
        os._exit(7)


def main() -> None:
    folder, name, where = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    limits = Limits(float(os.environ.get("STALL", 2)), float(os.environ.get("DEADLINE", 5)))
    with Watch(rank, world, limits=limits) as watch:
        import torch
        from torch import distributed

        if world > 1:
            distributed.init_process_group("gloo", rank=rank, world_size=world)
        watch.meet()
        run = RunDir(folder)
        if rank == 0:
            write_json(run.status, {"state": "running", "launched": time.time(), "earlier": 1.0})
        state = {"phase": "loading", "step": 0, "boundary": -1}

        def save(reason: str, absent: frozenset[int]) -> tuple[Path | None, str]:
            """As a trainer does it: each its own part, the first one waits for all and seals."""
            step = state["boundary"]
            (folder / f"part-r{rank}").write_text(str(step))
            if rank:
                return None, f"process {rank} has written its part"
            until = time.monotonic() + 20
            while True:
                parts = [folder / f"part-r{r}" for r in range(world)]
                if all(p.exists() and p.read_text() == str(step) for p in parts):
                    (folder / "sealed").write_text(str(step))
                    return folder, f"the state of step {step} is kept in {folder}"
                if absent or time.monotonic() > until:
                    return None, f"no state of step {step}"
                time.sleep(0.05)

        watch.know(run, None, lambda: (state["phase"], state["step"]), lambda: state["boundary"], save)
        child = subprocess.Popen(["sleep", "1000"])  # what os._exit would leave behind
        (folder / f"child-r{rank}").write_text(str(child.pid))
        (folder / f"pid-r{rank}").write_text(str(os.getpid()))
        try:
            with watch.kept():
                for step in range(STEPS):
                    state["step"], state["phase"] = step, "rewards"
                    pulse.beat()
                    if step == FAULT_STEP and rank == where:
                        time.sleep(float(os.environ.get("BEFORE", 1.5)))
                        (folder / "fault").write_text(json.dumps(time.time()))
                        fault(name)
                    time.sleep(0.05)
                    state["phase"] = "training"
                    if world > 1:
                        distributed.all_reduce(torch.ones(1))
                    pulse.beat()
                    state["boundary"] = step + 1
                    watch.at_boundary()
        finally:
            child.kill()


if __name__ == "__main__":
    sys.exit(exits.guarded(main))
