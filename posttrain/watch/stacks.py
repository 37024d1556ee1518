"""Where a thread is: in one line for others, in full for a file."""

from __future__ import annotations

import faulthandler
import os
import sys
import sysconfig
from pathlib import Path
from types import FrameType

_WAITING = ("/torch/distributed/", "/accelerate/utils/operations.py", "/accelerate/state.py")
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_DEEP = 12
"""Frames from the innermost on in which a collective is looked for: decorators and wrappers lie in between."""


def place(thread: int) -> tuple[str, bool]:
    """`function (file.py:12)` of the innermost frame of a thread that is no library's, and whether the thread is inside
    something that waits for other processes (a collective, or the backward pass, which ends in one)."""
    frame = sys._current_frames().get(thread)
    if frame is None:
        return "", False
    frames: list[FrameType] = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    waiting = any(mark in f.f_code.co_filename for f in frames[:_DEEP] for mark in _WAITING)
    waiting = waiting or any(f.f_code.co_name == "_engine_run_backward" for f in frames[:_DEEP])
    ours = next((f for f in frames if not f.f_code.co_filename.startswith((*_LIBRARIES, "<frozen"))), frames[0])
    said = _line(ours)
    return (said if ours is frames[0] else f"{said}, in {_line(frames[0])}"), waiting


def dump(path: Path, title: str) -> None:
    """The stacks of all threads of this process, to a new file.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(exist_ok=True)  # not its parents: a run's folder that was removed stays away
    with path.open("w", encoding="utf-8") as file:
        file.write(title + "\n\n")
        file.flush()
        faulthandler.dump_traceback(file, all_threads=True)


def free_name(folder: Path, rank: int) -> Path:
    """`rRANK-N.txt` with the first N that is not taken."""
    serial = 1
    while (path := folder / f"r{rank}-{serial}.txt").exists():
        serial += 1
    return path


def _line(frame: FrameType) -> str:
    code = frame.f_code
    return f"{code.co_name} ({os.path.basename(code.co_filename)}:{frame.f_lineno})"
