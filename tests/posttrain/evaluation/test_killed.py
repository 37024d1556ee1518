"""`posttrain evaluate` killed without warning and started again: nothing that was answered is asked twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
ENGINES = Path(__file__).parent / "counting.py"


def start(words: list[str], asked: Path, pause: float) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "posttrain.cli", "evaluate", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "ASKED": str(asked), "PAUSE": str(pause)}, cwd=asked.parent,
    )  # fmt: skip


def seeds_of(file: Path) -> list[int]:
    """Seeds of the whole lines of a samples file: each request has its own."""
    text = file.read_text() if file.exists() else ""
    return [json.loads(line)["seed"] for line in text.splitlines(keepends=True) if line.endswith("\n")]


def kill_half_way_and_go_on(words: list[str], folder: Path, total: int, chunk: int, patience: float) -> dict:
    """Run until half of the samples are there, SIGKILL, run again; the finished result."""
    out, first, second = folder / "out", folder / "asked-1", folder / "asked-2"
    words = [*words, "--chunk", str(chunk), "--out", str(out)]
    running = start(words, first, pause=0.3)
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
    again = start(words, second, pause=0)
    said, _ = again.communicate(timeout=patience)
    assert again.returncode == 0, said
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert (
        len(samples)
        == len({(s["item_id"], s["sample"]) for s in samples})
        == len({s["seed"] for s in samples})
        == total
    )
    asked = [int(line) for line in second.read_text().splitlines()]
    assert not set(asked) & set(answered), "asked again although it was answered"
    assert sorted(asked + answered) == sorted(s["seed"] for s in samples)
    lost = len(first.read_text().splitlines()) - len(answered)
    assert 0 <= lost <= chunk, "a kill loses the requests that were being worked on, no more"
    result = json.loads((out / "result.json").read_text())
    assert any(
        f"{len(answered)} of {total} samples were there from an earlier call" in note for note in result["notes"]
    )
    return result


def test_killed_half_way(tiny, tmp_path):
    words = ["--model", tiny, "--benchmark", "arithmetic", "--engine", f"{ENGINES}:CountingTransformers",
             "--samples", "3", "--temperature", "1", "--max-tokens", "24", "--limit", "20"]  # fmt: skip
    result = kill_half_way_and_go_on(words, tmp_path, total=60, chunk=7, patience=200)
    assert (result["n"], result["k"]) == (20, 3)
    whole = start([*words, "--out", str(tmp_path / "whole")], tmp_path / "asked-3", pause=0)
    said, _ = whole.communicate(timeout=200)
    assert whole.returncode == 0, said
    other = json.loads((tmp_path / "whole" / "result.json").read_text())
    same = ("metrics", "strict", "budgets", "curves", "lengths", "tokens")
    assert {k: other[k] for k in same} == {k: result[k] for k in same}


def test_killed_before_it_knew_enough(tiny, tmp_path):
    """Its accuracy is near 0: the interval narrows from one side, and 60 problems are more than it needs."""
    words = ["--model", tiny, "--benchmark", "arithmetic", "--engine", f"{ENGINES}:CountingTransformers",
             "--max-tokens", "24", "--limit", "60", "--until-interval", "8", "--chunk", "4"]  # fmt: skip
    whole = start([*words, "--out", str(tmp_path / "whole")], tmp_path / "asked", pause=0)
    said, _ = whole.communicate(timeout=200)
    assert whole.returncode == 0, said
    expected = json.loads((tmp_path / "whole" / "result.json").read_text())
    out = tmp_path / "out"
    running = start([*words, "--out", str(out)], tmp_path / "asked-1", pause=0.3)
    end = time.monotonic() + 200
    while len(seeds_of(out / "samples.jsonl")) < expected["n"] // 2:
        assert running.poll() is None, running.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    answered = seeds_of(out / "samples.jsonl")
    again = start([*words, "--out", str(out)], tmp_path / "asked-2", pause=0)
    said, _ = again.communicate(timeout=200)
    assert again.returncode == 0, said
    found = json.loads((out / "result.json").read_text())
    assert not {int(x) for x in (tmp_path / "asked-2").read_text().split()} & set(answered)
    assert found["stopped"] == expected["stopped"]
    assert found["metrics"] == expected["metrics"]
    assert found["n"] < 60


@pytest.mark.vllm
def test_real_questions_through_vllm(long, data, tmp_path):
    words = ["--model", long, "--benchmark", "gsm8k", "--data", str(data / "gsm8k.jsonl"), "--limit", "16",
             "--engine", f"{ENGINES}:CountingVLLM", "--samples", "2", "--temperature", "0.8", "--max-tokens", "24"]  # fmt: skip
    result = kill_half_way_and_go_on(words, tmp_path, total=32, chunk=4, patience=600)
    assert (result["benchmark"], result["n"], result["k"]) == ("gsm8k", 16, 2)
    samples = [json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").read_text().splitlines()]
    assert all(isinstance(s["cached_tokens"], int) for s in samples)
    assert result["cost"]["tokens"]["cached"] > 0, "the second sample of a question finds its prompt in the cache"
    assert result["cost"]["eflops"]["total"] > 0
    assert result["metrics"]["accuracy"]["value"] < 0.5
    assert all(s["prompt"][0]["content"].endswith("within \\boxed{}.") for s in samples)
