"""What this machine has left."""

from __future__ import annotations

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
    import os

    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
