"""What is read of a run: in bounds, at any moment, whatever is in the files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.report import build, data
from posttrain.rundir import RunDir, append_line, write_json

MakeRun = Callable[..., Path]


@given(st.integers(0, 500), st.integers(0, 500))
def test_evenly_spaced_with_both_ends(count: int, wanted: int) -> None:
    chosen = data.evenly(count, wanted)
    assert len(chosen) == min(count, wanted)
    assert chosen == sorted(set(chosen))
    assert all(0 <= i < count for i in chosen)
    if count and wanted >= 2:
        assert (chosen[0], chosen[-1]) == (0, count - 1)
        gaps = {b - a for a, b in pairwise(chosen)}
        assert not gaps or max(gaps) - min(gaps) <= 1


def test_rollouts_are_limited_by_a_rule_that_is_stated(make_run: MakeRun) -> None:
    root = make_run("limited", steps=60, evaluations=False)  # 60 steps of 16
    run = data.read(root, max_rows=480)
    steps = sorted({row["step"] for row in run.rollouts.rows})
    assert len(run.rollouts.rows) == 480
    assert (steps[0], steps[-1], len(steps)) == (0, 59, 30)
    assert "30 of the 60 steps" in run.rollouts.rule

    everything = data.read(root, max_rows=960)
    assert len(everything.rollouts.rows) == 960
    assert "all 60 steps" in everything.rollouts.rule


def test_of_a_large_step_whole_groups_are_kept(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for rank in range(2):
        for group in range(100):
            for sample in range(8):
                append_line(
                    run.rollout_file(7, rank),
                    {"step": 7, "row_id": f"{rank}-{group}", "sample": sample, "completion": "x"},
                )
    rows = data.read(tmp_path, max_rows=400).rollouts.rows
    groups: dict[str, list[int]] = {}
    for row in rows:
        groups.setdefault(row["row_id"], []).append(row["sample"])
    assert 300 <= len(rows) <= 400
    assert all(samples == list(range(8)) for samples in groups.values())
    assert {name.split("-")[0] for name in groups} == {"0", "1"}


def test_text_is_shortened_until_it_fits_and_that_is_said(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for i in range(200):
        append_line(
            run.rollout_file(0, 0), {"row_id": str(i), "prompt": "p" * 10, "completion": f"start{'z' * 30_000}end"}
        )
    read = data.read(tmp_path, max_chars=1_000_000)
    assert sum(map(data.size, read.rollouts.rows)) <= 1_000_000
    for row in read.rollouts.rows:
        assert row["completion"].startswith("startz")
        assert row["completion"].endswith("zend")
    assert any("without their middle" in note for note in read.notes)


def test_a_line_that_is_half_written_is_left_out(make_run: MakeRun) -> None:
    root = make_run("half", steps=5)
    run = RunDir(root)
    before = data.read(root)
    for path in (
        run.metrics,
        run.rollout_file(4, 0),
        run.faults,
        run.evaluation("after", "arithmetic") / "samples.jsonl",
    ):
        whole = json.dumps(
            {"step": 99, "phase": "train", "reward": 5.0, "row_id": "é", "completion": "日本"}, ensure_ascii=False
        ).encode()
        with path.open("ab") as file:
            file.write(whole[:-4])  # ends inside a character
    after = data.read(root)
    assert after.train == before.train
    assert after.rollouts.rows == before.rollouts.rows
    assert after.faults == before.faults
    assert after.samples == before.samples
    assert after.notes == []


def test_broken_lines_and_files_are_counted_not_fatal(make_run: MakeRun) -> None:
    root = make_run("broken", steps=5)
    run = RunDir(root)
    with run.metrics.open("ab") as file:
        file.write(
            b'not json\n[1, 2]\n{"step": "six"}\n\n'
            + b'{"step": 6, "phase": "train", "reward": '
            + b"9" * 5000
            + b"}\n"
            + b"[" * 100_000
            + b"\n"
        )
        file.write(b'{"step": 7, "phase": "train", "reward": NaN, "loss": 1e999, "x": true, "y": "text"}\n')
    with run.rollout_file(2, 0).open("ab") as file:
        file.write(
            b'"a string"\n{"rewards": "none", "faults": 3, "prompt": 17, "completion": ["a", {"b": 1}], "reward": "high"}\n'
        )
    run.status.write_bytes(b"{ half")
    run.plan.write_bytes(b"[]")
    read = data.read(root)
    assert read.train["reward"].steps[-1] == 7
    assert read.train["reward"].values[-1] is None
    assert "x" not in read.train
    assert any("metrics.jsonl: 5 broken lines" in note for note in read.notes)
    assert any("status.json" in note for note in read.notes)
    assert build(root).exists()


@pytest.mark.parametrize("gone", ["recipe.yaml", "resolved.json", "environment.json", "plan.json", "status.json", "metrics.jsonl", "faults.jsonl", "rollouts", "evaluation"])  # fmt: skip
def test_any_file_may_be_missing(make_run: MakeRun, gone: str) -> None:
    root = make_run("missing", steps=3)
    path = root / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert build(root).stat().st_size > 10_000


def test_a_step_that_was_done_again_counts_once(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for step, reward in ((1, 0.1), (2, 0.2), (3, 0.3), (2, 0.7), (3, 0.8)):
        append_line(run.metrics, {"step": step, "phase": "train", "time": 1.0, "reward": reward})
    series = data.read(tmp_path).train["reward"]
    assert (series.steps, series.values) == ([1, 2, 3], [0.1, 0.7, 0.8])


def test_very_long_logs_are_read_in_strides_to_the_last_line(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.metrics.write_text(
        "".join(json.dumps({"step": i, "phase": "train", "loss": i}) + "\n" for i in range(1, 50_001))
    )
    read = data.read(tmp_path)
    assert len(read.train["loss"].steps) <= data.MAX_LINES + 3
    assert read.train["loss"].steps[-1] == 50_000
    assert any("every 3-th" in note for note in read.notes)


def test_right_and_wrong_come_from_the_reward_that_says_so(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for i, rewards in enumerate(
        ({"boxed": 1.0, "correct": 0.0}, {"boxed": 1.0, "correct": 1.0}, {"boxed": 0.0, "correct": None})
    ):
        append_line(run.rollout_file(0, 0), {"row_id": str(i), "rewards": rewards})
    picked = data.read(tmp_path).rollouts
    assert [row["right"] for row in picked.rows] == [False, True, None]
    assert "correct" in picked.judge


def test_evaluations_are_in_the_order_of_training(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    write_json(run.status, {"state": "done", "steps": 120})
    for when in ("after", "step-000100", "before", "step-000020"):
        write_json(
            run.evaluation(when, "gsm8k") / "result.json",
            {"benchmark": "gsm8k", "when": when, "metrics": {"accuracy": {"value": 0.5}}},
        )
    found = data.read(tmp_path).evaluations
    assert [(e.when, e.step) for e in found] == [
        ("before", 0),
        ("step-000020", 20),
        ("step-000100", 100),
        ("after", 120),
    ]
    assert found[0].estimate() == (0.5, None, None)


def test_faults_are_counted_in_full_and_listed_in_part(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    lines = [
        {"step": i, "reward": "a" if i % 3 else "b", "kind": "timeout", "row_id": str(i), "text": f"fault {i}"}
        for i in range(1_000)
    ]
    run.faults.write_text("".join(json.dumps(line) + "\n" for line in lines))
    faults = data.read(tmp_path).faults
    assert faults.total == 1_000
    assert [(reward, count) for reward, _, count, _ in faults.kinds] == [("a", 666), ("b", 334)]
    assert [f["step"] for f in faults.listed] == [*range(50), *range(950, 1_000)]
