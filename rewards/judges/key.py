"""A judge's key: from an environment variable or a file, never from a setting, and never repeated."""

from __future__ import annotations

import os
from pathlib import Path

LONGEST = 4096


def read(variable: str) -> str | None:
    """What `variable` holds, else the content of the file that `{variable}_FILE` names; None = neither is set.

    Raises:
        ValueError: the file cannot be read, or what is there cannot be sent as a key. It is not shown.
    """
    value, where = os.environ.get(variable, ""), variable
    name = os.environ.get(f"{variable}_FILE", "")
    if not value and name:
        where = f"{variable}_FILE ({name})"
        try:
            value = Path(name).expanduser().read_bytes()[: LONGEST + 2].decode("ascii", "replace").rstrip("\r\n")
        except (OSError, RuntimeError, ValueError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise ValueError(f"{where}: the judge's key cannot be read: {reason}") from error
        if not value:
            raise ValueError(f"{where}: the file is empty; it should hold the judge's key")
    if len(value) > LONGEST or any(not "!" <= c <= "~" for c in value):
        raise ValueError(f"{where}: the judge's key should be one word of plain characters; it is not shown")
    return value or None


def hide(text: str, key: str | None) -> str:
    """`text` without the key, in case that a server sent it back."""
    return text.replace(key, "(the key)") if key and len(key) >= 4 else text
