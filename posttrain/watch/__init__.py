"""Waiting, with an end to it: progress, stalls, deadlines, processes that die, and signals.

watch.py      the thread: what it looks at, decides and does      beats.py    what processes tell each other, and who is in the way
board.py      where they tell it: the launch's store, or files    stacks.py   where a thread is
signals.py    SIGTERM and Ctrl-C, heard while the main thread is in C++
guard.py      the process beside, for when no thread runs         launcher.py the run ends with its launcher
processes.py  what the kernel knows of a process
"""

from posttrain.watch.watch import Limits, Watch

__all__ = ["Limits", "Watch"]
