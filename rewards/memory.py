"""How much memory a process and its children hold, and how much there is for us. Linux; elsewhere nothing is known."""

from __future__ import annotations

import os
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_GROUPS = ("memory.max", "memory/memory.limit_in_bytes")
"""Files below /sys/fs/cgroup with the limit of the container that we run in: of version 2, of version 1."""


def held(pid: int) -> int | None:
    """Resident memory of a process and all its descendants in bytes; None if it is gone or cannot be known."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    total = pages * _PAGE
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # a kernel without that list
        children = []
    return total + sum(held(int(child)) or 0 for child in children)


def there_is() -> int | None:
    """Memory of this machine, or of the container that we run in, in bytes; None if it cannot be known."""
    found = []
    for name in _GROUPS:
        try:
            found.append(int((Path("/sys/fs/cgroup") / name).read_text()))
        except (OSError, ValueError):  # no such version, or `max`
            continue
    try:
        first = Path("/proc/meminfo").read_text().split("\n", 1)[0]  # MemTotal:  24000000 kB
        found.append(int(first.split()[1]) * 1024)
    except (OSError, ValueError, IndexError):
        pass
    return min(found, default=None)


def share() -> int | None:
    """Half of it, divided by the training processes of this machine: what the workers of one reward may hold together."""
    whole = there_is()
    processes = os.environ.get("LOCAL_WORLD_SIZE", "")
    return None if whole is None else whole // 2 // (int(processes) if processes.isdigit() and int(processes) else 1)
