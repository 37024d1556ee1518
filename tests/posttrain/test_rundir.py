"""The claim on a run's folder, and files that are whole whatever happens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from posttrain.errors import Alarm, Mistake
from posttrain.rundir import RunDir, append_line, read_lines, write_json

ROOT = Path(__file__).resolve().parents[2]


def ended(tmp_path: Path, state: str, **more) -> RunDir:
    run = RunDir(tmp_path / "x")
    write_json(run.status, {"state": state, "steps": 3, **more})
    return run


def test_a_new_folder_is_made_and_held(tmp_path):
    run = RunDir.claim(str(tmp_path / "runs"), "x")
    assert run.root.is_dir()
    assert run.state is None
    assert not run.cut_off
    run.release()


@pytest.mark.parametrize("state", ["running", "failed", "stopped"])
def test_a_run_that_did_not_finish_goes_on(tmp_path, state):
    old = ended(tmp_path, state)
    run = RunDir.claim(str(tmp_path), "x")
    assert run.read_status() == old.read_status()
    run.release()


def test_a_run_that_is_done_is_refused_and_left_as_it_is(tmp_path):
    old = ended(tmp_path, "done")
    with pytest.raises(Mistake, match=r"x: this run is done; begin anew with --restart .* or give another name"):
        RunDir.claim(str(tmp_path), "x")
    assert old.state == "done"
    with pytest.raises(Mistake, match="is done"):  # and not "another launch is at work there"
        RunDir.claim(str(tmp_path), "x")


@pytest.mark.parametrize("state", ["done", "running"])
def test_restart_moves_the_old_one_aside(tmp_path, state):
    ended(tmp_path, state)
    runs = [RunDir.claim(str(tmp_path), "x", restart=True)]
    assert not runs[0].holds_a_run
    write_json(runs[0].status, {"state": "failed"})
    runs[0].release()
    runs.append(RunDir.claim(str(tmp_path), "x", restart=True))  # within the same second, most likely
    aside = [p for p in tmp_path.iterdir() if p.name != "x"]
    assert sorted(RunDir(p).state for p in aside) == sorted([state, "failed"])
    runs[1].check()
    runs[1].release()


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(Mistake, match="a file is in the way"):
        RunDir.claim(str(tmp_path), "x")
    with pytest.raises(Mistake, match="a file is in the way"):
        RunDir.claim(str(tmp_path / "x"), "y")


CLAIM = """
import sys
from posttrain.rundir import RunDir, write_json
run = RunDir.claim(sys.argv[1], "x")
write_json(run.status, {"state": "running"})
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that has claimed the run."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("restart", [False, True])
def test_a_second_launch_is_refused_by_name_and_touches_nothing(other, tmp_path, restart):
    run = RunDir(tmp_path / "x")
    assert not run.cut_off
    with pytest.raises(
        Mistake, match=rf"x: another launch is at work there \(process {other.pid} on .*\); wait for it"
    ):
        RunDir.claim(str(tmp_path), "x", restart)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert run.state == "running"


def test_a_killed_run_is_cut_off_and_can_be_taken(other, tmp_path):
    other.kill()
    other.wait()
    assert RunDir(tmp_path / "x").cut_off
    run = RunDir.claim(str(tmp_path), "x")
    assert not run.cut_off
    run.release()


def test_a_removed_folder_is_an_alarm(tmp_path):
    run = RunDir.claim(str(tmp_path), "x")
    run.check()
    for path in run.root.iterdir():
        path.unlink()
    run.root.rmdir()
    with pytest.raises(Alarm, match="the folder of this run was removed or moved while it ran"):
        run.check()
    append_line(run.metrics, {"step": 1})
    with pytest.raises(Alarm):
        run.check()
    run.release()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "\x00", "[" * 100_000])
def test_a_status_of_anything_says_nothing(tmp_path, text):
    run = RunDir(tmp_path)
    run.status.write_text(text)
    assert run.read_status() == {}
    assert run.state is None


def test_status_is_changed_in_place(tmp_path):
    run = ended(tmp_path, "running")
    run.update_status(state="stopped", error="rank 1 is gone")
    assert run.read_status() == {"state": "stopped", "steps": 3, "error": "rank 1 is gone"}


def test_a_line_that_does_not_fit_on_the_disk_leaves_no_part(tmp_path):
    """A real file system of 64 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() != 0 or os.system(f"mount -t tmpfs -o size=64k tmpfs {place} 2>/dev/null"):
        pytest.skip("needs the right to mount a small file system")
    try:
        path, made = place / "metrics.jsonl", 0

        def fill():
            nonlocal made
            while made < 1000:
                append_line(path, {"step": made, "text": "x" * 1001})
                made += 1

        with pytest.raises(OSError, match="space"):
            fill()
        assert 0 < made < 65
        assert [r["step"] for r in read_lines(path)] == list(range(made))
        assert path.read_bytes().endswith(b"}\n")
        os.truncate(path, len(json.dumps({"step": 0, "text": "x" * 1001})) + 1)
        append_line(path, {"step": 1})
        assert [r["step"] for r in read_lines(path)] == [0, 1]
    finally:
        os.system(f"umount -l {place}")
