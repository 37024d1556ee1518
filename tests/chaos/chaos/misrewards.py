"""Rewards that misbehave on some rows, chosen by what the policy wrote, so that no count has to survive anything.

Copied beside a run as `misrewards.py`; the bare run imports the same file.
"""

import os
import signal
import time
import zlib

KEPT = []


def number(completion):
    """A number in [0, 1) of its own for each text."""
    text = completion if isinstance(completion, str) else completion[-1]["content"]
    return zlib.crc32(text.encode()) / 2**32


def hit(completion, share, who):
    """Whether it misbehaves on that row; `struck-WHO` in the working directory gets the moment, in seconds of the monotonic clock."""
    struck = number(completion) < share
    if struck:
        with open(f"struck-{who}", "a") as file:
            file.write(f"{time.monotonic()}\n")
    return struck


def fine(completions, **columns):
    return [number(c) for c in completions]


def raises(completions, share=0.02, **columns):
    if any(hit(c, share, "raises") for c in completions):
        raise ValueError("no digits in the answer")
    return fine(completions)


def hangs(completions, share=0.02, **columns):
    if any(hit(c, share, "hangs") for c in completions):
        time.sleep(3600)
    return fine(completions)


def dies(completions, share=0.02, **columns):
    if any(hit(c, share, "dies") for c in completions):
        os.kill(os.getpid(), signal.SIGKILL)
    return fine(completions)


def nan(completions, share=0.02, **columns):
    return [float("nan") if hit(c, share, "nan") else number(c) for c in completions]


def text(completions, share=0.02, **columns):
    return ["good" if hit(c, share, "text") else number(c) for c in completions]


def leaks(completions, mib=40, **columns):
    """More at every call, and never given back."""
    KEPT.append(b"x" * (mib << 20))
    return fine(completions)


def infinite(completions, share=0.02, **columns):
    return [float("inf") if hit(c, share, "infinite") else number(c) for c in completions]
