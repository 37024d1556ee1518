"""The ways a command ends that are not our fault. `cli.main` and `train.main` turn them into exit codes."""

from __future__ import annotations


class Mistake(Exception):
    """Something the user can mend: one line saying what is wrong, where, and how to mend it. Exit code 2."""


class Alarm(Exception):
    """The run stopped itself, state kept: one line saying what, where and what to do. Exit code 3."""


class Ended(KeyboardInterrupt):
    """The run was ended from outside its own course: a signal, another process that died, a wait that took too long.

    No `Exception`: it is raised anywhere in the main thread, and no library may take it for a fault of its own.
    The message is the line that says why; `said`: it was printed already, or another process prints it.
    """

    def __init__(self, line: str, code: int = 3, said: bool = False):
        super().__init__(line)
        self.code = code
        self.said = said
