"""A run that is killed and started again ends as if nothing had been: same weights, same log, same rollouts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.processes
def test_killed_anywhere_and_started_again_nothing_differs(tmp_path):
    """The quick form of scripts/kill_and_resume.py: in generation and in the checkpoint write of one run, by SIGTERM in
    mid-step, in the optimiser step and in mid-step of one of two processes, and in the log of a run without rollouts."""
    script = [sys.executable, str(ROOT / "scripts/kill_and_resume.py"), "--quick", "--out", str(tmp_path)]
    ended = subprocess.run(script, capture_output=True, text=True, timeout=1500, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = json.loads((tmp_path / "resume.json").read_text())["rows"]
    assert [(r["differing_tensors"], r["differing_values"], r["differing_rollouts"]) for r in rows] == [(0, 0, 0)] * 5
    assert all(r["tensors"] == 56 for r in rows)
    # Each went on from a checkpoint, so something was killed and something was kept.
    assert all(r["resumed_from"][0] is None and r["resumed_from"][-1] is not None for r in rows)
    # A process that dies in mid-step takes nothing else with it: its part of step 5 was left behind (2 and 4 are scheduled).
    assert next(r for r in rows if r["kills"] == ["backward:11:1:KILL"])["resumed_from"][1] == 5
    # Pre-emption costs the step in flight alone: five steps were done, the sixth had begun.
    term = next(r for r in rows if r["kills"][0].endswith("TERM"))
    assert term["resumed_from"][1] in (5, 6)
    assert f"the state of step {term['resumed_from'][1]} is kept" in term["lines"][0]
