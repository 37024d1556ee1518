"""Reward functions for the guard's tests. In a file of their own, so that worker processes can import them.

A plain completion says what happens on its row: `ok 3`, `raise`, `hang`, `nan`, `inf`, `text`, `none`, `drop` (no result), `double` (two results),
`exit`, `segfault`, `huge`, `list`, `complex`. The value of `ok x` is x.
"""

import asyncio
import ctypes
import os
import time

HANG_SECONDS = 600


def result_of(word):
    """The results (a list, usually of one) for a completion."""
    what, _, number = word.partition(" ")
    if what == "ok":
        return [float(number)]
    if what == "raise":
        raise ValueError("no digits\nin it")
    if what == "hang":
        time.sleep(HANG_SECONDS)
    if what == "slow":
        time.sleep(float(number))
        return [1.0]
    if what == "exit":
        os._exit(7)
    if what == "segfault":
        ctypes.string_at(0)
    if what == "spin":
        9 ** (9**9)
    odd = {
        "nan": [float("nan")],
        "inf": [float("-inf")],
        "text": ["1.0"],
        "bytes": [b"1"],
        "none": [None],
        "drop": [],
        "double": [1.0, 2.0],
        "huge": [10**400],
        "list": [[1.0]],
        "complex": [1j],
        "bool": [True],
    }
    return odd[what]


def by_word(completions, **columns):
    return [value for word in completions for value in result_of(word)]


async def by_word_async(completions, **columns):
    async def one(word):
        if word == "hang":
            await asyncio.sleep(HANG_SECONDS)
        return result_of(word)

    return [value for values in await asyncio.gather(*(one(w) for w in completions)) for value in values]


class ByWord:
    def __init__(self, scale=1.0):
        self.scale = scale

    def __call__(self, completions, **columns):
        return [
            value if isinstance(value, (str, bytes, list, type(None))) else value * self.scale
            for value in by_word(completions)
        ]


class ByWordAsync:
    async def __call__(self, completions, **columns):
        return await by_word_async(completions)


def logging(completions, log_extra, log_metric, **columns):
    log_extra("seen", [c.upper() for c in completions])
    log_metric("length", sum(map(len, completions)) / len(completions))
    return by_word(completions)


def pid(completions, **columns):
    return [os.getpid() for _ in completions]


def with_child(completions, **columns):
    import subprocess

    child = subprocess.Popen(["sleep", "600"])
    with open(columns["file"][0], "w") as file:
        file.write(str(child.pid))
    time.sleep(HANG_SECONDS)


def unbuildable():
    raise RuntimeError("no weights here")


def exits(completions, **columns):
    raise SystemExit(3)


# For the worker processes themselves: factories of a job's function.


def returns_result_of():
    return result_of


def returns_taker_of_memory():
    return lambda size: len(bytearray(size))


def returns_lock_maker():
    import threading

    return threading.Lock


def dies_when_built():
    os._exit(5)


def hangs_when_built():
    time.sleep(HANG_SECONDS)


KEPT = []


def returns_hoarder():
    """A job keeps so many MiB for ever and says how many it holds."""

    def keep(mib):
        KEPT.append(b"x" * (mib << 20))
        return sum(map(len, KEPT)) >> 20

    return keep


def returns_spender():
    """A job takes so many MiB, for longer than it takes to notice, and gives them back."""

    def spend(mib):
        taken = b"x" * (mib << 20)
        time.sleep(3.0)
        return len(taken) >> 20

    return spend


def leaking(completions, **columns):
    KEPT.append(b"x" * (20 << 20))
    return by_word(completions)
