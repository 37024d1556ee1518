import json
import os
from pathlib import Path

import pytest


@pytest.fixture
def misbehaving(monkeypatch):
    """The module with the odd reward functions, importable here and in worker processes."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import misbehaving

    return misbehaving


def _lines(path):
    if not path.is_file():
        pytest.skip(f"no {path}")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="session")
def benchmark_rows():
    """Rows of a benchmark file by name, where POSTTRAIN_BENCHMARKS says."""
    folder = os.environ.get("POSTTRAIN_BENCHMARKS")
    if not folder:
        pytest.skip("POSTTRAIN_BENCHMARKS does not name the folder with the benchmark files")
    return lambda name: _lines(Path(folder) / f"{name}.jsonl")


@pytest.fixture(scope="session")
def equivalence_cases():
    """The hand-written cases of answers that are, or are not, the same."""
    folder = os.environ.get("POSTTRAIN_BENCHMARKS")
    if not folder:
        pytest.skip("POSTTRAIN_BENCHMARKS does not name the folder with the benchmark files")
    return _lines(Path(folder).parent / "evaluation" / "answer_equivalence_cases.jsonl")
