"""When the launcher dies, its training processes end too, in order: they would train on unseen otherwise."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

_NAMES = (b"accelerate", b"torchrun", b"torch.distributed", b"deepspeed")
_SET_PDEATHSIG = 1


def follow() -> bool:
    """Ask the kernel for a SIGTERM when the parent ends, if the parent is a launcher; True if it was asked.

    A shell is none: what was started from it with nohup is meant to stay.
    """
    if sys.platform != "linux":
        return False
    parent = os.getppid()
    try:
        words = Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    if not any(name in word for word in words[:4] for name in _NAMES):
        return False
    import ctypes

    with suppress(OSError, AttributeError):
        if ctypes.CDLL(None, use_errno=True).prctl(_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
            return False
        if os.getppid() != parent:  # it ended in between
            os.kill(os.getpid(), signal.SIGTERM)
        return True
    return False
