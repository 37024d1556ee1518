"""Item banks: the parameters of a benchmark's items and where they come from, one JSON file.

```json
{"kind": "posttrain item bank", "version": 1, "benchmark": "gsm8k", "grader": {...}, "prompt": "hash" | null,
 "samples": 4, "models": [{"name", "accuracy", "answered", "ability"}], "fit": {"date", "settings", "loss", ...},
 "items": [{"id", "a", "b", "text": "digest of the question" | null, "gold": "digest of the answer" | null,
            "solved": share of the models' answers that were right, "answered": models}],
 "held_out": [{"items": 50, "misses": [0.1, 0.4, ...]}],
 "notes": [...], "digest": "..."}
```
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError

from posttrain.errors import Mistake
from posttrain.evaluation.adaptive.ability import Prior
from posttrain.evaluation.adaptive.model import Floats
from posttrain.evaluation.benchmarks.base import Problem, tidy
from posttrain.rundir import write_json

KIND = "posttrain item bank"
VERSION = 1
LARGEST = 256 * 2**20
"""Bytes of a bank that is read: tens of thousands of items take a few MiB."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Item(_Part):
    id: Annotated[str, Field(min_length=1)]
    a: Annotated[FiniteFloat, Field(gt=0)]
    b: FiniteFloat
    text: str | None = None
    """Digest of the question; None = not known when the bank was made."""
    gold: str | None = None
    """Digest of the right answer."""
    solved: Annotated[FiniteFloat, Field(ge=0, le=1)] | None = None
    answered: int | None = None


class Calibrated(_Part):
    name: str
    accuracy: FiniteFloat
    answered: int
    ability: FiniteFloat


class HeldOut(_Part):
    """How far the predicted accuracies of the bank's own models were off when they were judged without being in it."""

    items: Annotated[int, Field(gt=0)]
    """Chosen items that the predictions were made from."""
    misses: Annotated[list[Annotated[FiniteFloat, Field(ge=0)]], Field(min_length=1)]
    """One a model, in half-widths of the item model's 95 % interval, rising."""


class Bank(_Part):
    """What a bank file holds."""

    kind: Literal["posttrain item bank"] = KIND
    version: Literal[1] = VERSION
    benchmark: str | None
    """Name of the benchmark; None = the tables did not say."""
    grader: dict[str, Any] | None = None
    """Grader (name, version, settings) behind each 0/1."""
    prompt: str | None = None
    """Hash of the prompt style that the calibration models were asked with; None = not known, or several."""
    samples: FiniteFloat | None = None
    """Mean number of samples behind each share."""
    models: list[Calibrated]
    fit: dict[str, Any]
    items: Annotated[list[Item], Field(min_length=1)]
    held_out: list[HeldOut] = []
    """By rising number of items; empty = not measured (`heldout`)."""
    notes: list[str] = []
    digest: str = ""

    @property
    def a(self) -> Floats:
        return np.array([item.a for item in self.items])

    @property
    def b(self) -> Floats:
        return np.array([item.b for item in self.items])

    @property
    def start(self) -> float:
        """Mean ability of the calibration models: where every evaluation begins."""
        return float(np.mean([model.ability for model in self.models])) if self.models else 0.0

    @property
    def gap(self) -> float | None:
        """Mean difference in ability of calibration models that are neighbours in rank; None for fewer than two. An error
        below it is where arXiv 2509.11106 (section 6) stops asking."""
        found = [model.ability for model in self.models]
        return (max(found) - min(found)) / (len(found) - 1) if len(found) > 1 else None

    @property
    def prior(self) -> Prior:
        """Abilities as the calibration models have them."""
        return Prior(self.start, 1.0)

    def signed(self) -> Bank:
        """The same with the digest of what is in it."""
        return self.model_copy(update={"digest": _digest_of(self.model_dump())})

    def write(self, path: Path | str) -> Bank:
        """Write it, whole or not at all. Returns it with its digest."""
        signed = self.signed()
        write_json(Path(path), signed.model_dump())
        return signed


def _digest_of(record: dict[str, Any]) -> str:
    text = json.dumps({k: v for k, v in record.items() if k != "digest"}, sort_keys=True)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def read_bank(path: Path | str) -> Bank:
    """A bank file.

    Raises:
        Mistake: there is none, it is none, it was altered since it was written, or an item is there twice.
    """
    file = Path(path).expanduser()
    try:
        if not file.is_file():
            raise Mistake(f"{path}: no such file; make a bank with posttrain irt fit RESPONSES... --out BANK")
        if file.stat().st_size > LARGEST:
            raise Mistake(f"{path}: not an item bank (larger than {LARGEST >> 20} MiB)")
        record = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise Mistake(f"{path}: not an item bank ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(record, dict) or record.get("kind") != KIND:
        raise Mistake(f'{path}: not an item bank (no "kind": "{KIND}"); make one with posttrain irt fit')
    if record.get("version") != VERSION:
        raise Mistake(f"{path}: an item bank of another version ({str(record.get('version'))[:20]}, not {VERSION})")
    try:
        bank = _shape().validate_python(record)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise Mistake(f"{path}: not an item bank ({where}: {first['msg']})"[:300]) from error
    if bank.digest != _digest_of(record):
        raise Mistake(f"{path}: altered since it was written (its digest is another); fit it again")
    if (twice := _repeated([item.id for item in bank.items])) is not None:
        raise Mistake(f"{path}: item {named(twice)} is there twice")
    return bank


@cache
def _shape() -> TypeAdapter[Bank]:
    return TypeAdapter(Bank)


def _repeated(names: Sequence[str]) -> str | None:
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]


def named(text: str) -> str:
    """A name from a file, for a message: one line, not endless."""
    short = " ".join(text.split())
    return short if len(short) <= 80 else short[:77] + "..."


def text_digest(question: str) -> str:
    """Digest of a question, as in the item ids of benchmarks."""
    return hashlib.blake2b(tidy(question).encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


def gold_digest(gold: object) -> str:
    """Digest of a right answer."""
    text = gold if isinstance(gold, str) else json.dumps(gold, sort_keys=True, default=str)
    return text_digest(text)


@dataclass(frozen=True, slots=True)
class Pool:
    """Items of a bank that can be asked here."""

    bank: Bank
    problems: list[Problem]
    items: list[Item]
    """Of `problems`, in their order (the bank's)."""
    notes: list[str] = field(default_factory=list)

    @property
    def a(self) -> Floats:
        return np.array([item.a for item in self.items])

    @property
    def b(self) -> Floats:
        return np.array([item.b for item in self.items])


def pool(
    bank: Bank,
    where: str,
    benchmark: str,
    problems: Sequence[Problem],
    *,
    grader: dict[str, Any] | None = None,
    prompt: str | None = None,
    part: bool = False,
) -> Pool:
    """The problems that a bank knows, with a note for whatever else differs from when it was made.

    Args:
        where: the bank's path, for messages.
        grader, prompt: of this evaluation.
        part: only some of the benchmark's problems were loaded (a limit); the bank may hold more.

    Raises:
        Mistake: the bank is of another benchmark, lacks these problems, or was made with other texts or answers.
    """
    if bank.benchmark is not None and bank.benchmark != benchmark:
        raise Mistake(f"{where}: a bank of {bank.benchmark}, not of {benchmark}; give that benchmark's own")
    by_id = {problem.item_id: problem for problem in problems}
    found = [(item, by_id[item.id]) for item in bank.items if item.id in by_id]
    if not found:
        raise Mistake(
            f"{where}: none of its {len(bank.items)} items (the first: {named(bank.items[0].id)}) is among the "
            f"{len(by_id)} problems of {benchmark}; fit it with --benchmark {benchmark}, or give the data it was made from"
        )
    if not part and len(found) < len(bank.items):
        missing = next(item.id for item in bank.items if item.id not in by_id)
        raise Mistake(
            f"{where}: {len(bank.items) - len(found)} of its {len(bank.items)} items (the first: {named(missing)}) are not "
            f"among the {len(by_id)} problems of {benchmark}; give the data it was made from (--data PATH)"
        )
    for item, problem in found:
        if item.text is not None and item.text != text_digest(problem.question):
            raise Mistake(
                f"{where}: item {named(item.id)} was fitted with another question text than {benchmark} has now"
            )
        if item.gold is not None and item.gold != gold_digest(problem.gold):
            raise Mistake(
                f"{where}: item {named(item.id)} was fitted with another right answer than {benchmark} has now"
            )
    notes = []
    if bank.grader is not None and grader is not None and bank.grader != grader:
        keys = sorted(k for k in {*bank.grader, *grader} if bank.grader.get(k) != grader.get(k))
        said = ", ".join(f"{k}: {bank.grader.get(k)} then, {grader.get(k)} now" for k in keys)
        notes.append(f"another grader than the bank's ({said}): its difficulties may not hold")
    if bank.prompt is not None and prompt is not None and bank.prompt != prompt:
        notes.append(f"another prompt style than the bank's ({bank.prompt} then, {prompt} now)")
    if len(by_id) > len(found):
        notes.append(f"{len(by_id) - len(found)} of {len(by_id)} problems are not in the bank and are never asked")
    return Pool(bank, [problem for _, problem in found], [item for item, _ in found], notes)
