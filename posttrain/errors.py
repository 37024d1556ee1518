"""The two ways a command ends that are not our fault. `cli.main` and `train.main` turn them into exit codes."""

from __future__ import annotations


class Mistake(Exception):
    """Something the user can mend: one line saying what is wrong, where, and how to mend it. Exit code 2."""


class Alarm(Exception):
    """The run stopped itself, state kept: one line saying what, where and what to do. Exit code 3."""
