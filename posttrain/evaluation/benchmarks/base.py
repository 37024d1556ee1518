"""What a benchmark is: where its rows are, how one becomes a problem, how an answer to it is judged."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from posttrain.errors import Mistake
from posttrain.evaluation.benchmarks import BENCHMARKS
from posttrain.evaluation.prompts import OWN, Style
from posttrain.evaluation.rows import Fields, Hub, numbered, read_file, read_hub
from posttrain.imports import load_object, resolve_path
from rewards.grading import Verdict, grade_many
from rollouts.records import Prompt


@dataclass(frozen=True, slots=True)
class Problem:
    """One question and what a right answer to it is."""

    question: str
    gold: str
    """The right answer as the grader reads it."""
    item_id: str = ""
    """Stable name, `benchmark/digest of the question`: the same in every copy, order and subset of the data. Set by `load`."""
    cluster: str = ""
    """Problems that share it stand or fall together (parts of one exercise); absent = each stands alone."""
    prompt: Prompt | None = None
    """The row's own prompt, for benchmarks of style `own`."""
    solution: str = ""
    """A worked solution, if the source has one: for examples in a prompt."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """What else is known: the source's own id, subject, level, tolerance, ..."""


@dataclass(frozen=True, slots=True)
class Scored(Verdict):
    """A verdict with a number beside it: a rubric's score, say, which has no bounds. RIGHT is for full marks."""

    points: float | None = None
    """None = it could not be found; then it is left out of the mean (the verdict counts all the same)."""


Judge = Callable[[Sequence[Problem], Sequence[str]], Sequence[Verdict]]


def by_gold(problems: Sequence[Problem], texts: Sequence[str]) -> list[Verdict]:
    """The usual judge: the grader compares each text with its problem's gold."""
    return grade_many([(problem.gold, text) for problem, text in zip(problems, texts, strict=True)])


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A set of problems with one right answer each."""

    name: str
    read: Callable[[Fields], Problem]
    """One raw row → one problem. `Fields` says in one line which column of which row is missing."""
    hub: Hub | None = None
    """Where the rows are when no local file is given, ..."""
    rows: Callable[[int | None], Iterable[Mapping[str, Any]]] | None = None
    """... or a function that makes them (at most so many, if a number is given)."""
    style: str = "boxed"
    """Prompt style: a key of `posttrain.evaluation.prompts.STYLES`."""
    judge: Judge = by_gold
    """Problems and texts (the reasoning span already taken off) → verdicts."""
    size: int | None = None
    """How many problems the published set has."""
    file: str | None = None
    """The local file that is the benchmark (`benchmarks/own.py`); `--data` may still name another."""
    digest: str | None = None
    """Of that file's content: samples of another version of it are not taken for samples of this one."""
    notes: Callable[[Sequence[Problem]], list[str]] | None = None
    """What a reader of a result on these problems must know: how answers in words are judged, say."""
    train: Hub | None = None
    """Where solved problems that are not part of it are: examples for few-shot prompts."""

    def load(self, path: str | None = None, limit: int | None = None) -> list[Problem]:
        """The first `limit` problems (all if None), from a local file or else from the hub.

        Raises:
            Mistake: no such file, a row that cannot be read (which one, and why), or no rows at all.
        """
        source = path if path is not None else str(self.hub or self.file or self.name)
        problems: list[Problem] = []
        seen: dict[str, int] = {}
        for row in self._rows(path, limit):
            if limit is not None and len(problems) >= limit:
                break
            problem = self.read(row)
            item_id = problem.item_id or f"{self.name}/{_digest(problem.question)}"
            seen[item_id] = seen.get(item_id, 0) + 1
            if seen[item_id] > 1:  # the same question twice: two items, told apart by their order
                item_id = f"{item_id}-{seen[item_id]}"
            problems.append(replace(problem, item_id=item_id, cluster=problem.cluster or item_id))
        if not problems:
            raise Mistake(f"{source}: no rows for {self.name}")
        return problems

    def _rows(self, path: str | None, limit: int | None) -> Iterable[Fields]:
        if path is not None:
            return read_file(path)
        if self.file is not None and self.rows is None:
            return read_file(self.file)
        if self.rows is not None:
            return numbered(self.rows(limit), self.file or self.name)
        if self.hub is not None:
            return read_hub(self.hub, self.name)
        raise Mistake(f"{self.name}: has no home on the hub; give a local file with its rows (--data PATH)")

    def prompt(self, problem: Problem, style: Style) -> Prompt:
        if style.name != OWN:
            return style.render(problem.question)
        if problem.prompt is None:
            raise Mistake(
                f'{self.name}: {problem.item_id} brings no prompt of its own; choose another style than "own"'
            )
        return problem.prompt

    def grade(self, problem: Problem, text: str) -> Verdict:
        """Judge one answer."""
        return self.judge([problem], [text])[0]


FILES = (".jsonl", ".json", ".parquet")
"""Endings of files that are benchmarks themselves."""


def find_benchmark(use: str, where: str = "benchmark") -> Benchmark:
    """A benchmark by short name, import path, or the file that is one.

    Raises:
        Mistake: there is none, or the object is something else.
    """
    if use.endswith(FILES):
        from posttrain.evaluation.benchmarks import own

        return own.benchmark(use, where)
    path = resolve_path(use, BENCHMARKS, where)
    found = load_object(path, where)
    if not isinstance(found, Benchmark):
        raise Mistake(
            f"{where}: {path} is a {type(found).__name__}, not a posttrain.evaluation.benchmarks.base.Benchmark"
        )
    return found


def tidy(text: str) -> str:
    """Text for digests: NFC, runs of white space as one blank."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _digest(text: str) -> str:
    return hashlib.blake2b(tidy(text).encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


def stem(question: str, characters: int = 100) -> str:
    """A cluster name for parts of one exercise, which repeat its statement: a digest of the first `characters`."""
    return _digest(tidy(question)[:characters])


def whole_number(text: str) -> str:
    """`073` → `73`; anything else as it is."""
    digits = text.lstrip("+-")
    return str(int(text)) if digits.isascii() and digits.isdigit() and len(digits) < 100 else text


def last_boxed(text: str) -> str | None:
    """What is in the last `\\boxed{...}` whose braces close; None if there is none."""
    end = len(text)
    while (start := text.rfind("\\boxed{", 0, end)) >= 0:
        depth = 0
        first = start + len("\\boxed{")
        place = first
        while place < len(text):
            mark = text[place]
            if mark == "\\":
                place += 2
                continue
            if mark == "}" and depth == 0:
                return text[first:place]
            depth += {"{": 1, "}": -1}.get(mark, 0)
            place += 1
        end = start
    return None
