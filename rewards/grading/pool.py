"""The grader's worker processes: started on first use, shared by all threads of a process, killed at a deadline."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

from rewards.workers import Allowance, Workers

MEMORY = 4 << 30
"""Address space of one worker in bytes."""
REMEMBERED = 20_000
"""Comparisons kept, so that the many equal answers of a group, and what ran into its deadline, are worked out once."""

Pair = tuple[str, str]
Answer = tuple[str, str]
"""(`right` | `wrong` | `timeout`, rule)"""
NO_TIME = "no time left"
"""The rule of a pair that had less than its time limit, because others had used up what their batch may cost."""


class Budget(Allowance):
    """Each comparison may take `seconds`, the slow ones together `total`; the quick ones are free.

    Near the end there is less for the next one (half of what is left), so that a few texts that never end do not take the
    time of all others, and a batch full of them ends.
    """

    LEAST = 0.5
    """Seconds from which a comparison is slow, and the least that one is given."""

    def __init__(self, seconds: float, total: float):
        super().__init__(seconds)
        self.left = total

    def next(self) -> float:
        return min(self.seconds, max(self.LEAST, self.left / 2)) if self.left >= self.LEAST else 0.0

    def spent(self, seconds: float) -> None:
        if seconds >= min(self.LEAST, self.seconds):
            self.left -= seconds


_lock = threading.Lock()
_workers: Workers | None = None
_known: OrderedDict[Pair, tuple[Answer, float]] = OrderedDict()


def size() -> int:
    """How many workers: a share of the cores, at most 4; or what the environment variable REWARDS_GRADER_PROCESSES says."""
    given = os.environ.get("REWARDS_GRADER_PROCESSES", "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    local = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, min(4, (os.cpu_count() or 1) // max(1, int(local) if local.isdigit() else 1)))


def compare(pairs: Sequence[Pair], timeout: float, budget: float | None = None) -> list[Answer]:
    """Each (gold, answer) compared in a worker; `timeout` seconds for each. `budget`: seconds that slow ones may take in
    all; absent = as many as there are, at `timeout` each.

    Raises:
        WorkersError: the workers do not start, say because Math-Verify is not installed.
    """
    answers: dict[Pair, Answer] = {}
    with _lock:
        for pair in pairs:
            known = _known.get(pair)
            if known is not None and (known[0][0] != "timeout" or known[1] >= timeout):
                _known.move_to_end(pair)
                answers[pair] = known[0]
    todo = list(dict.fromkeys(p for p in pairs if p not in answers))
    if todo:
        allowance = Allowance(timeout) if budget is None else Budget(timeout, budget * size())
        outcomes = _pool().run(todo, allowance)
        died = [k for k, outcome in enumerate(outcomes) if outcome.kind == "crash"]
        for k, outcome in zip(died, _pool().run([todo[k] for k in died], allowance), strict=True):
            outcomes[k] = outcome  # once more: it may have been killed from outside
        for pair, outcome in zip(todo, outcomes, strict=True):
            if outcome.kind == "value":
                answers[pair] = outcome.value
            elif outcome.kind == "exception" and not outcome.text.startswith(("MemoryError", "RecursionError")):
                answers[pair] = ("wrong", f"not comparable: {outcome.text}")
            elif outcome.kind == "unrun" or (outcome.kind == "timeout" and outcome.seconds < 0.99 * timeout):
                answers[pair] = ("timeout", NO_TIME)
            else:  # the text's doing as well: a worker that dies on it, or runs out of memory, would do so again
                answers[pair] = ("timeout", outcome.text)
        with _lock:
            for pair in todo:
                if answers[pair][1] != NO_TIME:
                    _known[pair] = (answers[pair], timeout)
            while len(_known) > REMEMBERED:
                _known.popitem(last=False)
    return [answers[pair] for pair in pairs]


def _pool() -> Workers:
    global _workers
    with _lock:
        if _workers is None:
            _workers = Workers(_make, size(), memory=MEMORY, quiet=True)
        return _workers


def close() -> None:
    """End the workers and forget what was compared; the next comparison starts anew."""
    global _workers
    with _lock:
        _known.clear()
        if _workers is not None:
            _workers.close()
            _workers = None


def pids() -> list[int]:
    """Process ids of the workers that live now."""
    return _workers.pids() if _workers is not None else []


def _unlocked() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_unlocked)


def _make() -> Callable[[str, str], Answer]:
    import sys

    import latex2sympy2_extended  # noqa: F401  (imported before the first deadline counts)
    import math_verify  # noqa: F401

    from rewards.grading.equal import equal

    sys.set_int_max_str_digits(100_000)

    def compared(gold: str, answer: str) -> Answer:
        same, rule = equal(gold, answer)
        return ("right" if same else "wrong"), rule

    return compared
