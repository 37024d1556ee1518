"""How a command ends: 0 done, 2 the user's mistake in one line, 3 stopped by an alarm, 1 our fault with a traceback."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

from posttrain import terminal
from posttrain.errors import Alarm, Ended, Mistake

CODE_FILE = "POSTTRAIN_EXIT_FILE"
"""`accelerate launch` answers 1 whatever its child answered; the child leaves its code in the file named here."""


def guarded(do: Callable[[], object]) -> int:
    """Run `do` and turn how it ended into an exit code."""
    terminal.guard()
    code = _run(do)
    if code and (file := os.environ.get(CODE_FILE)):
        Path(file).write_text(str(code))
    return code


def _run(do: Callable[[], object]) -> int:
    try:
        do()
    except Mistake as mistake:
        return _say(str(mistake), 2)
    except Alarm as alarm:
        return _say(f"stopped: {alarm}", 3)
    except Ended as ended:
        return ended.code if ended.said else _say(f"stopped: {ended}", ended.code)
    except KeyboardInterrupt:
        return _say("interrupted", 130)
    except BrokenPipeError:
        # Whoever read our output has gone (`posttrain ... | head`). What a shell would say of a closed pipe:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (nothing more can be said; the interpreter flushes it at its end)
        return 141
    except Exception as error:
        if _full(error):
            name = getattr(error, "filename", None)
            where = f" ({name})" if name else ""
            return _say(f"stopped: the disk is full{where}; make room, and the same command again goes on", 3)
        if _gave_up(error):
            return _say(f"stopped: {error}", 3)
        sys.stderr.write(terminal.traceback_of(error))
        return 1
    return 0


def stopped(error: BaseException) -> bool:
    """True if the error is how a run stops itself, or is stopped, with its state kept: not a mistake and not our fault."""
    return isinstance(error, Alarm | KeyboardInterrupt) or (
        isinstance(error, Exception) and (_full(error) or _gave_up(error))
    )


def _full(error: BaseException) -> bool:
    """True if the error, or what brought it about, is a full disk. safetensors and torch say so in their texts only."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        text = str(seen)
        if any(os.strerror(code) in text for code in (errno.ENOSPC, errno.EDQUOT)) or "PytorchStreamWriter" in text:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


GAVE_UP = {"rollouts.records": ("EngineError", "StaleRollout"), "rewards.workers": ("WorkersError",)}
"""Errors of the other packages whose message is the one line that the user needs."""


def _gave_up(error: Exception) -> bool:
    # Nothing is imported: this must work before anyone knows whose `rewards` and `rollouts` that would be.
    for module, names in GAVE_UP.items():
        loaded = sys.modules.get(module)
        if loaded is not None and isinstance(error, tuple(getattr(loaded, name) for name in names)):
            return True
    return False


def _say(text: str, code: int) -> int:
    rank = os.environ.get("RANK", "0")
    # Mistakes are found by every process alike; one of them says so.
    if code != 2 or rank == "0":
        prefix = "" if rank == "0" else f"[process {rank}] "
        print(f"{prefix}posttrain: {terminal.clean(text)}", file=sys.stderr)
    return code
