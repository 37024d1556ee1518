"""The one grader, for training and evaluation: is the answer in a model's text the gold answer?

`extract` finds the answer in the text, `normalise` brings it to one notation, `shape` reads its form, `equal` compares.
Plain numbers and equal texts are decided here at once; all else in worker processes with a hard deadline (`pool`).
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rewards.grading import plain, points, pool
from rewards.grading.extract import LONGEST_TEXT, TAIL, Found, after_reasoning, extract, extract_gold
from rewards.grading.normalise import LONGEST, normal
from rewards.grading.plain import equal_text

__all__ = ["GRADER", "Judgement", "Verdict", "after_reasoning", "gold_text", "grade", "grade_many", "self_test"]


TIMEOUT = 5.0
"""Seconds for one comparison, unless the caller gives others."""


def _versions() -> str:
    found = ["2"]
    for package in ("math-verify", "latex2sympy2_extended", "sympy", "mpmath", "antlr4-python3-runtime"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} missing")
    return ", ".join(found)


def _code() -> str:
    """A digest of this package's own source: two graders with the same one judge alike."""
    digest = blake2b(digest_size=8)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


GRADER: dict[str, Any] = {
    "name": "rewards.grading",
    "version": _versions(),
    "code": _code(),
    "settings": {
        "timeout": TIMEOUT,
        "memory": pool.MEMORY,
        "decimal_tolerance": plain.TOLERANCE,
        "least_digits": plain.LEAST_DIGITS,
        "digits": points.DIGITS,
        "same": points.SAME,
        "points": points.POINTS,
        "longest_answer": LONGEST,
        "longest_text": LONGEST_TEXT,
        "tail": TAIL,
    },
}
"""What judged: version, source and every setting that can change a verdict. Goes into every result."""


class Judgement(StrEnum):
    """RIGHT, WRONG, NONE (the text has no answer, or there is no gold) or TIMEOUT (comparing took too long)."""

    RIGHT = "RIGHT"
    WRONG = "WRONG"
    NONE = "NONE"
    TIMEOUT = "TIMEOUT"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the grader found."""

    verdict: Judgement
    extracted: str | None = None
    """The answer as the text has it."""
    parsed: str | None = None
    """The same in normal form."""
    rule: str = ""
    """Why: `number`, `same text`, `value`, `how many`, `other unit`, ...; `no gold`, `no answer`, `gold not read`."""
    by: str | None = None
    """The mark by which the answer was found in the text: `box`, `boxes`, `hashes`, `label`, `phrase`, `whole`, `conclusion`."""

    @property
    def strict(self) -> Judgement:
        """What the box alone says: the verdict where the answer came from a box, else NONE.

        A text with a box is never judged by anything else, so this is what `boxed_only=True` gives, without a second comparison.
        """
        return self.verdict if self.by in ("box", "boxes") else Judgement.NONE

    @property
    def right(self) -> bool:
        return self.verdict is Judgement.RIGHT


def grade(gold: Any, text: str, *, boxed_only: bool = False, timeout: float = TIMEOUT) -> Verdict:
    """Judge one text. `gold` as a data set stores it: text, number, or a list of answers that must all be given.

    `boxed_only`: only what is in a box counts as an answer. `timeout`: seconds for the comparison; a text that needs more is
    TIMEOUT. Never raises for what is in the texts; callable from any thread.

    Raises:
        WorkersError: the worker processes cannot be started.
    """
    return grade_many([(gold, text)], boxed_only=boxed_only, timeout=timeout)[0]


def grade_many(
    pairs: Iterable[tuple[Any, str]],
    *,
    boxed_only: bool = False,
    timeout: float = TIMEOUT,
    budget: float | None = None,
) -> list[Verdict]:
    """Judge many (gold, text) at once, in as many processes as `pool.size()` says; one verdict a pair, in order.

    `budget`: seconds that all slow comparisons may take together (absent = no bound); those that there is no time for are
    TIMEOUT by the rule `no time left`.
    """
    verdicts: list[Verdict | None] = []
    waiting: list[tuple[int, tuple[str, str], Verdict]] = []
    for gold, text in pairs:
        verdict, left = _at_once(gold, text, boxed_only)
        if left is not None:
            waiting.append((len(verdicts), left, verdict))
        verdicts.append(verdict)
    if waiting:
        compared = pool.compare([pair for _, pair, _ in waiting], timeout, budget)
        for (place, _, found), (outcome, rule) in zip(waiting, compared, strict=True):
            verdicts[place] = replace(found, verdict=Judgement(outcome.upper()), rule=rule)
    return verdicts  # type: ignore[return-value]


def _at_once(gold: Any, text: str, boxed_only: bool) -> tuple[Verdict, tuple[str, str] | None]:
    """The verdict, or (with the answer found so far) what is left to compare."""
    wanted = gold_text(gold)
    if wanted is None:
        return Verdict(Judgement.NONE, rule="no gold"), None
    found = extract(text, boxed_only=boxed_only) if isinstance(text, str) else None
    if found is None:
        return Verdict(Judgement.NONE, rule="no answer"), None
    if len(found.answer) > LONGEST:
        same = found.answer.split() == wanted.split()
        return _decided(same, found, None, "same text" if same else "too long"), None
    if not (parsed := normal(found.answer)):
        return Verdict(Judgement.NONE, rule="no answer"), None
    if len(wanted) > LONGEST:
        return _decided(False, found, parsed, "gold not read"), None
    known = equal_text(normal(wanted), parsed)
    if known is None:
        return Verdict(Judgement.NONE, found.answer, parsed, by=found.by), (wanted, found.answer)
    return _decided(known[0], found, parsed, known[1]), None


def _decided(same: bool, found: Found, parsed: str | None, rule: str) -> Verdict:
    return Verdict(Judgement.RIGHT if same else Judgement.WRONG, found.answer, parsed, rule, found.by)


def gold_text(gold: Any) -> str | None:
    """A gold answer as text; None if there is none (None, NaN, empty). 27.0 → `27`; a list → its items, joined."""
    if isinstance(gold, bool) or gold is None:
        return str(gold) if isinstance(gold, bool) else None
    if (
        not isinstance(gold, (str, bytes, numbers.Number))
        and getattr(gold, "ndim", None) == 0
        and hasattr(gold, "item")
    ):
        gold = gold.item()
    if isinstance(gold, numbers.Integral):
        return str(int(gold))
    if isinstance(gold, numbers.Real):
        value = float(gold)
        if not math.isfinite(value):
            return None
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(gold, str):
        return extract_gold(gold)
    if isinstance(gold, Sequence) and not isinstance(gold, bytes):
        answers = [gold_text(item) for item in gold]
        return ", ".join(a for a in answers if a) or None
    return None


KNOWN_ANSWERS = (
    (r"\frac{3}{4}", r"so $\boxed{0.75}$", Judgement.RIGHT),
    (r"2\sqrt{3}", r"$\boxed{\sqrt{12}}$", Judgement.RIGHT),
    (r"2\sqrt{3}", r"$\boxed{\sqrt{11}}$", Judgement.WRONG),
    ("12", r"I do not know.", Judgement.NONE),
    ("12", r"$\boxed{\frac{}}}{$", Judgement.WRONG),
)


def self_test(timeout: float = TIMEOUT) -> None:
    """Grade a few texts whose verdict is known, and one that never ends (stopped after a second).

    Raises:
        RuntimeError: the grader is out of order here; one line.
    """
    for gold, text, wanted in KNOWN_ANSWERS:
        found = grade(gold, text, timeout=timeout).verdict
        if found is not wanted:
            raise RuntimeError(f"the grader is out of order: {text!r} against {gold!r} gave {found}, not {wanted}")
    hanging = grade("2", r"$\boxed{9^{9^{9}}}$", timeout=1.0).verdict
    if hanging is not Judgement.TIMEOUT:
        raise RuntimeError(f"the grader is out of order: a comparison without end gave {hanging}, not TIMEOUT")
