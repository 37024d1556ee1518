"""`posttrain evaluate --adaptive` killed without warning and started again: what was answered is not asked again, and the way
through the bank is the one that an undisturbed evaluation takes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from posttrain.evaluation import find_benchmark
from posttrain.evaluation.adaptive.bank import Bank, Calibrated, Item, gold_digest, text_digest

ROOT = Path(__file__).resolve().parents[4]
ENGINES = Path(__file__).resolve().parents[1] / "counting.py"
ITEMS, BATCH = 24, 4


def write_bank(path: Path, benchmark: str, data: str | None, count: int) -> Path:
    """A bank of the first problems, with parameters made up."""
    problems = find_benchmark(benchmark).load(data, count)
    draw = np.random.default_rng(0)
    a, b = np.exp(draw.normal(0, 0.4, count)), draw.normal(-1, 1.5, count)
    Bank(
        benchmark=benchmark,
        models=[Calibrated(name=f"m{x}", accuracy=0.5, answered=count, ability=x) for x in (-1.0, 1.0)],
        fit={"date": "2026-01-01"},
        items=[
            Item(id=p.item_id, a=float(a[i]), b=float(b[i]), text=text_digest(p.question), gold=gold_digest(p.gold))
            for i, p in enumerate(problems)
        ],
    ).write(path)
    return path


def start(words: list[str], asked: Path, pause: float) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "posttrain.cli", "evaluate", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "ASKED": str(asked), "PAUSE": str(pause)}, cwd=asked.parent,
    )  # fmt: skip


def seeds_of(file: Path) -> list[int]:
    """Seeds of the whole lines of a samples file: each request has its own."""
    text = file.read_text() if file.exists() else ""
    return [json.loads(line)["seed"] for line in text.splitlines(keepends=True) if line.endswith("\n")]


def finish(words: list[str], asked: Path, patience: float) -> str:
    running = start(words, asked, pause=0)
    said, _ = running.communicate(timeout=patience)
    assert running.returncode == 0, said
    return said


def killed_and_whole(words: list[str], folder: Path, samples: int, patience: float) -> tuple[dict, dict]:
    """Results of an evaluation that was killed half way and started again, and of an undisturbed one."""
    out, total = folder / "out", ITEMS * samples
    words = [*words, "--adaptive", "--items", str(ITEMS), "--batch", str(BATCH), "--samples", str(samples)]
    running = start([*words, "--out", str(out)], folder / "asked-1", pause=0.5)
    end = time.monotonic() + patience
    while len(seeds_of(out / "samples.jsonl")) < total // 2:
        assert running.poll() is None, running.stdout.read()
        assert time.monotonic() < end, "half of the samples never came"
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    answered = seeds_of(out / "samples.jsonl")
    assert total // 2 <= len(answered) < total
    assert not (out / "result.json").exists()
    finish([*words, "--out", str(out)], folder / "asked-2", patience)
    asked = [int(line) for line in (folder / "asked-2").read_text().splitlines()]
    assert not set(asked) & set(answered), "asked again although it was answered"
    assert len(asked) == len(set(asked)) == total - len(answered)
    assert sorted(asked + answered) == sorted(seeds_of(out / "samples.jsonl"))
    lost = len((folder / "asked-1").read_text().splitlines()) - len(answered)
    assert 0 <= lost <= BATCH * samples, "a kill loses the batch that was being worked on, no more"
    finish([*words, "--out", str(folder / "whole")], folder / "asked-3", patience)
    killed, whole = (json.loads((folder / name / "result.json").read_text()) for name in ("out", "whole"))
    assert any(
        f"{len(answered)} of {total} samples were there from an earlier call" in note for note in killed["notes"]
    )
    return killed, whole


def check(killed: dict, whole: dict) -> None:
    assert killed["adaptive"] == whole["adaptive"]
    assert killed["metrics"] == whole["metrics"]
    assert (killed["n"], killed["adaptive"]["items"], killed["adaptive"]["stop"]) == (ITEMS, ITEMS, "items")
    assert killed["cost"]["tokens"] == whole["cost"]["tokens"]
    assert 0 < killed["cost"]["of_full"]["share"] < 1


def test_killed_half_way(tiny, tmp_path):
    bank = write_bank(tmp_path / "bank.json", "arithmetic", None, 100)
    words = ["--model", tiny, "--benchmark", "arithmetic", "--engine", f"{ENGINES}:CountingTransformers", "--bank", str(bank),
             "--temperature", "1", "--max-tokens", "24", "--limit", "100"]  # fmt: skip
    killed, whole = killed_and_whole(words, tmp_path, samples=2, patience=200)
    check(killed, whole)


@pytest.mark.vllm
def test_real_questions_through_vllm(long, data, tmp_path):
    file = str(data / "gsm8k.jsonl")
    bank = write_bank(tmp_path / "bank.json", "gsm8k", file, 200)
    words = ["--model", long, "--benchmark", "gsm8k", "--data", file, "--engine", f"{ENGINES}:CountingVLLM", "--bank", str(bank),
             "--limit", "200", "--temperature", "0", "--max-tokens", "24", "--adaptive", "--items", str(ITEMS),
             "--batch", str(BATCH), "--out", str(tmp_path / "out")]  # fmt: skip
    said = finish(words, tmp_path / "asked", patience=600)
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (result["n"], result["adaptive"]["items"], result["adaptive"]["stop"]) == (ITEMS, ITEMS, "items")
    samples = [json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").read_text().splitlines()]
    assert {s["item_id"] for s in samples} == {step["item"] for step in result["adaptive"]["trace"]}
    assert all(s["prompt"][0]["content"].endswith("within \\boxed{}.") for s in samples)
    assert result["cost"]["eflops"]["total"] > 0
    assert "24 of 200" in " ".join(said.split())
