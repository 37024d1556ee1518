"""The key of servers: from an environment variable or a file, never from an option, and never repeated."""

from __future__ import annotations

import os
from pathlib import Path

from rollouts.records import EngineError

HIDDEN = "(the key)"
LONGEST = 4096


def read(variable: str) -> str | None:
    """What `variable` holds, else the content of the file that `{variable}_FILE` names; None = neither is set.

    Raises:
        EngineError: the file cannot be read, or what is there cannot be sent as a key. It is not shown.
    """
    value, where = os.environ.get(variable, ""), variable
    if not value and (name := os.environ.get(f"{variable}_FILE")):
        where = f"{variable}_FILE ({name})"
        try:
            with Path(name).expanduser().open("rb") as file:
                value = file.read(LONGEST + 2).decode("ascii", "replace").rstrip("\r\n")
        except (OSError, ValueError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise EngineError(f"{where}: the key cannot be read: {reason}") from error
        if not value:
            raise EngineError(f"{where}: the file is empty; it should hold the key")
    # A client that is given anything else quotes it in its error.
    if len(value) > LONGEST or not all("!" <= c <= "~" for c in value):
        raise EngineError(
            f"{where}: should be one word of plain characters (no spaces, no line ends); it is not shown"
        )
    return value or None


def hide(text: str, key: str | None) -> str:
    """`text` without the key, in case that a server sent it back."""
    return text.replace(key, HIDDEN) if key and len(key) >= 4 else text
