"""What this machine has left."""

from __future__ import annotations

import os
from pathlib import Path

LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
"""Where a container's limit of memory, and what it uses of it, are found."""


def host_memory() -> int | None:
    """Bytes of main memory that can still be had: what the kernel says, or less where a limit of the container is near.
    None where neither is known (not Linux)."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    available = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)
    if available is None:
        return None
    for limit, used in LIMITS:
        try:
            most, now = Path(limit).read_text().strip(), int(Path(used).read_text())
        except (OSError, ValueError):
            continue
        if most.isdigit():
            available = min(available, int(most) - now)
    return max(available, 0)


def resident() -> int:
    """Bytes of main memory that this process holds; 0 where that is not known."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def processor_seconds() -> float:
    """Processor time of this process, of its children that have ended, and (on Linux) of those that live."""
    used = os.times()
    total = used.user + used.system + used.children_user + used.children_system
    me, tick = str(os.getpid()), os.sysconf("SC_CLK_TCK")
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            # state, parent, ...: what follows the name, which may hold anything but is the only thing in parentheses.
            fields = file.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        if fields[1] == me:
            total += (int(fields[11]) + int(fields[12])) / tick
    return total
