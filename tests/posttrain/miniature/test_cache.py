"""Entries of the cache: made once, whole or not at all, whoever else is at it."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from posttrain.errors import Mistake
from posttrain.miniature import cache

ROOT = Path(__file__).resolve().parents[3]

BUILDER = """
import pathlib, sys, time
from posttrain.miniature.cache import cached
log, pause = pathlib.Path(sys.argv[1]), float(sys.argv[2])
def make(directory):
    (directory / "half").write_text("x")
    with log.open("a") as file:
        file.write("made\\n")
    time.sleep(pause)
    (directory / "value").write_text("42")
entry = cached("thing", {"a": 1}, make)
print((entry / "value").read_text())
"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "miniature"


def start(log: Path, pause: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILDER, str(log), str(pause)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(condition, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def test_an_entry_is_made_once_and_says_of_what(home):
    calls = []

    def make(directory: Path) -> None:
        calls.append(directory)
        (directory / "value").write_text("1")

    first = cache.cached("thing", {"seed": 0}, make)
    assert cache.cached("thing", {"seed": 0}, make) == first
    assert cache.cached("thing", {"seed": 1}, make) != first
    assert len(calls) == 2
    assert first.parent == home
    assert json.loads((first / cache.MADE).read_text())["made_of"] == {"seed": 0}


def test_of_two_processes_the_second_waits_and_takes_what_the_first_made(tmp_path):
    log = tmp_path / "log"
    first = start(log, 3.0)
    until(log.exists)
    second = start(log, 0.0)
    results = [process.communicate(timeout=60) for process in (first, second)]
    assert [out.strip() for out, _ in results] == ["42", "42"]
    assert log.read_text() == "made\n"
    assert "waiting" in results[1][1]


def test_what_a_killed_process_left_is_cleared_and_made_anew(tmp_path, home):
    log = tmp_path / "log"
    first = start(log, 60.0)
    until(log.exists)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=30)
    assert list(home.glob(".thing-*.tmp-*"))
    second = start(log, 0.0)
    out, _ = second.communicate(timeout=60)
    assert out.strip() == "42"
    assert not list(home.glob(".thing-*.tmp-*"))


def test_a_failure_leaves_nothing_and_the_next_call_tries_again(home):
    def fail(directory: Path) -> None:
        (directory / "half").write_text("x")
        raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck"):
        cache.cached("thing", {}, fail)
    assert not [p for p in home.iterdir() if p.is_dir()]
    entry = cache.cached("thing", {}, lambda directory: None)
    assert (entry / cache.MADE).exists()


def test_an_entry_without_its_mark_is_made_again(home):
    entry = cache.cached("thing", {}, lambda directory: (directory / "value").write_text("1"))
    (entry / cache.MADE).unlink()
    (entry / "stray").write_text("x")
    assert cache.cached("thing", {}, lambda directory: (directory / "value").write_text("2")) == entry
    assert (entry / "value").read_text() == "2"
    assert not (entry / "stray").exists()


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path / "file"))
    with pytest.raises(Mistake, match="POSTTRAIN_CACHE") as caught:
        cache.cached("thing", {}, lambda directory: None)
    assert "\n" not in str(caught.value)


def test_where_the_cache_is(monkeypatch):
    monkeypatch.setenv("POSTTRAIN_CACHE", "/a")
    assert cache.folder() == Path("/a")
    monkeypatch.delenv("POSTTRAIN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache.folder() == Path("/b/posttrain")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.folder().is_relative_to(Path.home())


def module(folder: Path, text: str):
    file = folder / "some_module.py"
    file.write_text(text)
    spec = importlib.util.spec_from_file_location("some_module", file)
    assert spec is not None
    return importlib.util.module_from_spec(spec)


def test_words_do_not_change_a_fingerprint_and_code_does(tmp_path):
    plain = cache.fingerprint(module(tmp_path, "def f(x):\n    return x + 1\nclass C:\n    a: int = 1\n"))
    wordy = '"""Doc."""\n# why\ndef f(x):\n    """Doc."""\n    return (x + 1)\nclass C:\n    "D."\n    a: int = 1\n    "d"\n'
    assert cache.fingerprint(module(tmp_path, wordy)) == plain
    for other in ("def f(x):\n    return x + 2\nclass C:\n    a: int = 1\n", "def f(x):\n    return x + 1\n"):
        assert cache.fingerprint(module(tmp_path, other)) != plain


def test_looking_up_an_entry_does_not_import_torch(tmp_path):
    code = "import sys; from posttrain.miniature import arithmetic, cache; cache.versions(); print('torch' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"
