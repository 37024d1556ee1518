"""Checkpoints of real trainers on a real small disk."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import TrainerCallback

from posttrain import checkpoints
from posttrain.errors import Alarm
from posttrain.imports import load_object
from posttrain.rundir import RunDir, append_line, read_lines
from posttrain.trainers import TRAINERS

ROOT = Path(__file__).resolve().parents[3]


def trainer_of(built):
    return load_object(TRAINERS[built.recipe.trainer.algorithm]).build(built)


@pytest.fixture
def disk(tmp_path):
    """A file system of 8 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or os.system(f"mount -t tmpfs -o size=8m tmpfs {place} 2>/dev/null"):
        pytest.skip("needs the right to mount a small file system")
    yield place
    os.system(f"umount -l {place}")


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_checkpoints_are_sealed_and_rotated(parts, algorithm):
    built = parts(algorithm=algorithm, args={"max_steps": 5}, checkpoints={"every": 1, "keep": 2})
    trainer_of(built).train()
    assert [step for step, _ in checkpoints.all_of(built.run)] == [4, 5]
    found = checkpoints.newest(built.run)
    assert (found.step, found.world, found.reason) == (5, 1, "schedule")
    assert {"adapter_model.safetensors", "optimizer.pt", "trainer_state.json", "rng_state.pth"} <= set(found.files)


def test_the_best_by_a_metric_stays(parts):
    scores = iter([0.1, 0.9, 0.3, 0.2, 0.4])
    now = {}

    def told(completions, trainer_state, **_):
        step = trainer_state.global_step
        if step not in now:
            now[step] = next(scores)
        return [now[step]] * len(completions)

    built = parts(rewards=[told], args={"max_steps": 5},
                  checkpoints={"every": 1, "keep": 1, "keep_best": 1, "metric": "reward"})  # fmt: skip
    trainer_of(built).train()
    kept = {m.step: m.metric for m in map(checkpoints.whole, (p for _, p in checkpoints.all_of(built.run)))}
    assert kept == {2: pytest.approx(0.9), 5: pytest.approx(0.4)}


class Filled(TrainerCallback):
    """Fills the disk after one step, and makes room after another."""

    def __init__(self, place, full_after: int, free_after: int):
        self.file = place / "filler"
        self.when = (full_after, free_after)

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.when[0]:
            free = os.statvfs(self.file.parent)
            self.file.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - 64 * 1024)))
        if state.global_step == self.when[1]:
            self.file.unlink()


def test_a_full_disk_costs_the_checkpoint_and_not_the_run(parts, disk, caplog):
    built = parts(args={"max_steps": 6}, checkpoints={"every": 2})
    built.run = RunDir.claim(str(disk), "x")
    built.arguments["output_dir"] = str(built.run.checkpoints)
    trainer = trainer_of(built)
    trainer.add_callback(Filled(disk, full_after=3, free_after=5))
    trainer.train()
    assert [step for step, _ in checkpoints.all_of(built.run)] == [2, 6]
    assert checkpoints.newest(built.run).step == 6
    assert (
        "the checkpoint of step 4 was not saved: the disk is full; the one of step 2 stays, the next try is in 2 steps"
        in caplog.text
    )
    lines = [json.loads(line) for line in built.run.metrics.read_text().splitlines()]
    assert [r["step"] for r in lines if r["phase"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert [r.get("checkpoints/failed") for r in lines if r["phase"] == "train"] == [None, None, None, None, 1, 1]


def test_a_disk_that_stays_full_ends_the_run(parts, disk):
    built = parts(args={"max_steps": 40}, checkpoints={"every": 1})
    built.run = RunDir.claim(str(disk), "x")
    built.arguments["output_dir"] = str(built.run.checkpoints)
    trainer = trainer_of(built)
    trainer.add_callback(Filled(disk, full_after=3, free_after=40))
    with pytest.raises(Alarm, match="3 checkpoints in a row could not be saved"):
        trainer.train()
    assert trainer.state.global_step == 5  # those of steps 3, 4 and 5
    assert checkpoints.newest(built.run).step == 2


def test_another_error_while_saving_is_not_swallowed(parts):
    built = parts(args={"max_steps": 1}, checkpoints={"every": 1})
    trainer = trainer_of(built)

    def broken(folder):
        raise ValueError("not the disk")

    trainer.write_parts = broken
    with pytest.raises(ValueError, match="not the disk"):
        trainer.train()
    assert checkpoints.newest(built.run) is None


class Removed(TrainerCallback):
    def __init__(self, root):
        self.root = root

    def on_step_begin(self, args, state, control, **_):
        if state.global_step == 1:
            shutil.rmtree(self.root)


def test_a_removed_folder_ends_the_run_with_a_line(parts):
    built = parts(args={"max_steps": 6})
    trainer = trainer_of(built)
    trainer.add_callback(Removed(built.run.root))
    with pytest.raises(Alarm, match="the folder of this run was removed or moved while it ran"):
        trainer.train()
    assert trainer.state.global_step == 1


def test_rollouts_of_a_step_that_is_gone_on_with_join_those_that_are_there(parts):
    """Held-out rows of step 0 stay when a run goes on from its beginning; the step's training rollouts come to them."""
    built = parts(args={"max_steps": 1})
    append_line(built.run.rollout_file(0, 0), {"step": 0, "phase": "eval", "row_id": "held out"})
    trainer_of(built).train()
    built.stack.close()
    phases = [r["phase"] for r in read_lines(built.run.rollout_file(0, 0))]
    assert phases == ["eval"] + ["train"] * 8


TWO = """
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from accelerate import Accelerator
from posttrain import checkpoints
from posttrain.recipe.schema import Checkpoints
from posttrain.rundir import RunDir
from posttrain.trainers import saving

accelerator = Accelerator(cpu=True)
rank, run = accelerator.process_index, RunDir(sys.argv[1])
recipe = SimpleNamespace(checkpoints=Checkpoints(every=1, keep=1))
parts = SimpleNamespace(recipe=recipe, run=run, failed_saves=0, failed_in_a_row=0)
got = []
for step in (1, 2, 3):
    trainer = SimpleNamespace(parts=parts, accelerator=accelerator, state=SimpleNamespace(global_step=step))

    def write(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"part-{rank}.safetensors").write_bytes(bytes(100))
        if rank == 1 and step == 2:
            with open("/dev/full", "wb") as file:
                file.write(bytes(100))

    made = saving.save(trainer, write)
    got.append(None if made is None else (made.step, made.world, sorted(made.files)))
accelerator.wait_for_everyone()
os.write(1, f"rank {rank}: {got} {parts.failed_saves}\\n".encode())  # in one piece, whatever the other writes
accelerator.end_training()
"""


@pytest.mark.processes
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_is_full_for_one_process_costs_all_of_them_the_checkpoint(tmp_path):
    (tmp_path / "two.py").write_text(TWO)
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(ROOT / "recipes/accelerate/cpu.yaml"),
    ]
    ended = subprocess.run(
        [*command, "--num_processes", "2", str(tmp_path / "two.py"), str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    files = ["part-0.safetensors", "part-1.safetensors"]
    wanted = [(1, 2, files), None, (3, 2, files)]
    assert sorted(ended.stdout.splitlines())[-2:] == [f"rank {rank}: {wanted} 1" for rank in (0, 1)]
    assert "the checkpoint of step 2 was not saved: the disk is full; the one of step 1 stays" in ended.stderr
    assert [step for step, _ in checkpoints.all_of(RunDir(tmp_path / "run"))] == [3]
