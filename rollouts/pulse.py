"""A count of everything that got done in this process: tokens drawn, answers received, phases entered.

Whoever waits cannot know how long is too long; whoever works can say that something moved. Nothing is imported and nothing
is locked: two threads that count at the same moment may count one, and what is asked is only whether the count changed.
"""

from __future__ import annotations

_count = 0


def beat(times: int = 1) -> None:
    """Something moved."""
    global _count
    _count += times


def count() -> int:
    """How often something moved so far; never goes down."""
    return _count
