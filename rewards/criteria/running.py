"""Checks carried out: the quick ones here, the others in worker processes that are killed at a deadline.

A regular expression can take longer than the universe lasts on a text that a policy wrote, and no thread can be stopped in one.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Sequence

from rewards.criteria.checks import QUICK, Check, built
from rewards.criteria.item import Verdict
from rewards.grading import Judgement, grade_many
from rewards.grading.pool import Budget, size
from rewards.workers import Outcome, Workers, one_line

SECONDS = 2.0
"""What one check may take."""
DEADLINES = 10
"""So many deadlines may the slow checks of one batch take together; what is left then has FAILED."""
MEMORY = 4 << 30
"""Address space of one worker in bytes."""

Finding = tuple[Verdict, str]
"""The verdict, and why in a few words."""

_lock = threading.Lock()
_workers: Workers | None = None


def run(jobs: Sequence[tuple[str, Sequence[Check]]], seconds: float = SECONDS) -> list[list[Finding]]:
    """What the checks find: for each job (a text and its checks) one finding a check, in order.

    A check that raises, dies or overruns `seconds` is FAILED, with the reason: neither met nor unmet. Answers on which a
    comparison of formulas overruns, or whose gold cannot be read, are FAILED too.

    Raises:
        WorkersError: the worker processes cannot be started.
    """
    found: list[list[Finding | None]] = [[None] * len(checks) for _, checks in jobs]
    slow: list[tuple[int, list[int]]] = []
    formulas: list[tuple[int, int]] = []
    for j, (text, checks) in enumerate(jobs):
        later = []
        for k, check in enumerate(checks):
            if check.kind in QUICK:
                met, why = built(check)(text)
                found[j][k] = _said(met, why)
            elif check.kind == "math_equal":
                formulas.append((j, k))
            else:
                later.append(k)
        if later:
            slow.append((j, later))
    for (j, ks), findings in zip(slow, _in_workers([(jobs[j][0], [jobs[j][1][k] for k in ks]) for j, ks in slow], seconds), strict=True):  # fmt: skip
        for k, finding in zip(ks, findings, strict=True):
            found[j][k] = finding
    for boxed_only in (False, True):
        some = [
            (j, k) for j, k in formulas if json.loads(jobs[j][1][k].options).get("boxed_only", False) is boxed_only
        ]
        pairs = [(json.loads(jobs[j][1][k].value), jobs[j][0]) for j, k in some]
        graded = grade_many(pairs, boxed_only=boxed_only, timeout=seconds, budget=DEADLINES * seconds)
        for (j, k), one in zip(some, graded, strict=True):
            undecided = one.verdict is Judgement.TIMEOUT or one.rule in ("no gold", "gold not read")
            found[j][k] = (Verdict.FAILED, one.rule) if undecided else _said(one.verdict is Judgement.RIGHT, one.rule)
    return found  # type: ignore[return-value]


def _said(met: bool, why: str) -> Finding:
    return (Verdict.MET if met else Verdict.UNMET), why


def _in_workers(jobs: list[tuple[str, list[Check]]], seconds: float) -> list[list[Finding]]:
    """A job's checks together first; of one that does not come back, each by itself, so that one bad check fails alone."""
    if not jobs:
        return []
    budget = Budget(seconds, DEADLINES * seconds * size())
    first = _pool().run(jobs, budget)
    apart = [(j, k) for j, outcome in enumerate(first) if outcome.kind != "value" for k in range(len(jobs[j][1]))]
    second = dict(zip(apart, _pool().run([(jobs[j][0], [jobs[j][1][k]]) for j, k in apart], budget), strict=True))
    return [
        outcome.value if outcome.kind == "value" else [_lone(second[j, k]) for k in range(len(jobs[j][1]))]
        for j, outcome in enumerate(first)
    ]


def _lone(outcome: Outcome) -> Finding:
    if outcome.kind == "value":
        return outcome.value[0]
    return Verdict.FAILED, f"the check did not end: {outcome.kind}: {outcome.text}"


def _pool() -> Workers:
    global _workers
    with _lock:
        if _workers is None:
            _workers = Workers(_make, size(), memory=MEMORY, quiet=True)
        return _workers


def close() -> None:
    """End the workers; the next check starts them anew."""
    global _workers
    with _lock:
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


def _make() -> Callable[[str, list[Check]], list[Finding]]:
    def checked(text: str, checks: list[Check]) -> list[Finding]:
        findings: list[Finding] = []
        for check in checks:
            try:
                findings.append(_said(*built(check)(text)))
            except Exception as error:
                findings.append((Verdict.FAILED, one_line(error)))
        return findings

    return checked
