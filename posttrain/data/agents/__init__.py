"""Trajectories of agents: Agent Data Protocol, ATIF and chats read, checked, and made into rows to train on.

Nothing is loaded before it is asked for.
"""

from __future__ import annotations

from typing import Any

_WHERE = {"sft": "turns", "preferences": "pairs", "export": "rollouts"}
"""Function: its module (of another name, so that importing one does not hide the other)."""


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        import importlib

        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(name)
