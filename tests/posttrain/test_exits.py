from __future__ import annotations

import errno
import sys

import pytest

from posttrain.errors import Alarm, Ended, Mistake
from posttrain.exits import CODE_FILE, guarded, stopped
from rewards.workers import WorkersError
from rollouts.records import EngineError, StaleRollout


def raising(error):
    def do():
        raise error

    return do


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (Mistake("r.yaml:3: no"), 2, "posttrain: r.yaml:3: no\n"),
        (Alarm("too many"), 3, "posttrain: stopped: too many\n"),
        (EngineError("no server left"), 3, "posttrain: stopped: no server left\n"),
        (StaleRollout("version 2"), 3, "posttrain: stopped: version 2\n"),
        (WorkersError("cannot start"), 3, "posttrain: stopped: cannot start\n"),
        (KeyboardInterrupt(), 130, "posttrain: interrupted\n"),
        (Ended("told to end"), 3, "posttrain: stopped: told to end\n"),
        (Ended("interrupted", 130, said=True), 130, ""),
        (BrokenPipeError(), 141, ""),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/x/metrics.jsonl"),
            3,
            "posttrain: stopped: the disk is full (runs/x/metrics.jsonl); make room, and the same command again goes on\n",
        ),
        (
            RuntimeError(
                "Error while serializing: I/O error: No space left on device (os error 28)"
            ),  # as safetensors says it
            3,
            "posttrain: stopped: the disk is full; make room, and the same command again goes on\n",
        ),
    ],
)
def test_each_ending_has_its_code_and_its_line(capsys, monkeypatch, tmp_path, error, code, said):
    monkeypatch.setenv(CODE_FILE, str(tmp_path / "code"))
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr("sys.stdout", sys.stdout)
    assert guarded(raising(error)) == code
    assert capsys.readouterr().err == said
    assert (tmp_path / "code").read_text() == str(code)


def test_our_own_fault_shows_its_traceback(capsys):
    assert guarded(raising(ZeroDivisionError("ours"))) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_mistake_is_said_once_and_an_alarm_by_everyone(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert guarded(raising(Mistake("x"))) == 2
    assert capsys.readouterr().err == ""
    assert guarded(raising(Alarm("x"))) == 3
    assert capsys.readouterr().err == "[process 1] posttrain: stopped: x\n"


def test_done(tmp_path, monkeypatch):
    monkeypatch.setenv(CODE_FILE, str(tmp_path / "code"))
    assert guarded(lambda: None) == 0
    assert not (tmp_path / "code").exists()


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (Alarm("x"), True),
        (EngineError("x"), True),
        (KeyboardInterrupt(), True),
        (OSError(errno.EDQUOT, "quota"), True),
        (OSError(errno.ENOENT, "gone"), False),
        (Mistake("x"), False),
        (SystemExit(1), False),
        (ValueError("x"), False),
    ],
)
def test_which_endings_are_a_stop(error, kept):
    assert stopped(error) == kept
