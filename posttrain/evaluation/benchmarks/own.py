"""A file that is a benchmark: what `posttrain benchmark build` wrote, or YourBench's table (`prepare_lighteval`).

`--benchmark questions.jsonl`. Multiple choice is judged by the letter or the text of the choice, numbers by the grader,
other answers by their words: case, punctuation, articles and typography do not count, anything else does. Rows of
YourBench's table pass the same gates as drafts do when a benchmark is built; what is left out is told in the result's notes.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from posttrain.errors import Mistake
from posttrain.evaluation.benchmarks.base import Benchmark, Problem, by_gold
from posttrain.evaluation.parts import writer_of
from posttrain.evaluation.rows import Fields, read_file
from rewards.grading import Judgement, Verdict
from rewards.grading.extract import extract

FORMAT = "posttrain-benchmark-1"
NUMBER, CHOICE, WORDS = "number", "choice", "words"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def benchmark(path: str, where: str = "benchmark") -> Benchmark:
    """The benchmark in a file, named after it.

    Raises:
        Mistake: no such file, or neither of the two formats.
    """
    file = Path(path).expanduser()
    try:
        digest = hashlib.blake2b(file.read_bytes(), digest_size=6).hexdigest()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "no name of a file"
        raise Mistake(f"{where}: {path}: {why} (looked in {Path.cwd()})") from None
    first = next(iter(read_file(file)), None)
    if first is None:
        raise Mistake(f"{where}: {path}: no rows")
    made = partial(Benchmark, file.stem, read, judge=judge, file=str(file), digest=digest)
    if first.get("format") == FORMAT:
        return made(notes=notes)
    if {"ground_truth_answer", "citations"} <= set(first):
        from posttrain.evaluation.building import yourbench

        table = yourbench.Table(file)
        return made(rows=lambda limit: table.rows(), notes=lambda problems: [*table.notes(), *notes(problems)])
    told = ", ".join(map(str, first)) or "no columns"
    raise Mistake(
        f'{where}: {path}: neither a file of `posttrain benchmark build` (column "format": "{FORMAT}") nor YourBench\'s table '
        f"(columns ground_truth_answer, citations); it has {told}. For a data set in another form give its benchmark and "
        "--data PATH"
    )


def read(row: Fields) -> Problem:
    """A row of `build`'s file → a problem. What is asked holds the choices; the gold is the letter."""
    if row.get("format") != FORMAT:
        raise row.wrong(("format",), row["format"], f'"{FORMAT}"')
    question, answer, kind = row.text("question"), row.number_or_text("answer"), row["kind"]
    if kind not in (NUMBER, CHOICE, WORDS):
        raise row.wrong(("kind",), kind, f"{NUMBER}, {CHOICE} or {WORDS}")
    gold = answer
    choices: list[str] = []
    if kind == CHOICE:
        choices = row["choices"]
        if not isinstance(choices, list) or not 2 <= len(choices) <= len(LETTERS) or not all(
            isinstance(c, str) and c.strip() for c in choices
        ):  # fmt: skip
            raise row.wrong(("choices",), choices, f"a list of 2 to {len(LETTERS)} texts")
        right = row["gold"]
        if not isinstance(right, list) or len(right) != 1 or right[0] not in range(len(choices)):
            raise row.wrong(("gold",), right, f"a list with one index from 0 to {len(choices) - 1}")
        gold = LETTERS[right[0]]
        listed = "\n".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
        question = f"{question}\n\n{listed}\n\nAnswer with the letter of the right choice."
    known = ("citations", "document", "document_date", "documents", "scope", "question_type", "difficulty", "weight",
             "generator")  # fmt: skip
    columns = {name: row[name] for name in known if row.get(name) is not None}
    cluster = row["cluster"] if isinstance(row.get("cluster"), str) else ""
    return Problem(question, gold, cluster=cluster, columns={"kind": kind, "choices": choices, **columns})


_PLAIN_NUMBER = re.compile(
    r"[$€£¥]?\s*[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?\s*(?:%|percent|°[CF]?|[a-zA-Zµ]{1,12}(?:\^?[23²³])?)?"
)
_SCALES = re.compile(
    r"\b(?:hundred|thousand|million|billion|trillion|k|m|bn|am|pm|st|nd|rd|th|bc|ad|ce|bce"
    r"|(?:jan|feb|mar|apr|may|jun|jul|aug|sept?|oct|nov|dec)[a-z]*)\.?$",
    re.I,
)


def kind_of(answer: str, choices: Sequence[str] = ()) -> str:
    """How an answer is judged. A number may have one unit after it, but no word that changes its size or sense."""
    if choices:
        return CHOICE
    words = answer.strip().rstrip(".")
    # (The grader may leave out a unit; "3.5 million" without its million is another number, and "5 pm" is none.)
    number = _PLAIN_NUMBER.fullmatch(words) and not _SCALES.search(re.sub(r"(?<=\d)(?=[A-Za-z])", " ", words))
    return NUMBER if number else WORDS


def judge(problems: Sequence[Problem], texts: Sequence[str]) -> list[Verdict]:
    """The grader finds the answer in each text (a box, "the answer is ...") and compares numbers and letters."""
    pairs = list(zip(problems, texts, strict=True))
    numbers = [(problem, text) for problem, text in pairs if problem.columns["kind"] == NUMBER]
    graded = iter(by_gold([p for p, _ in numbers], [t for _, t in numbers]))
    return [next(graded) if p.columns["kind"] == NUMBER else _compared(p, text) for p, text in pairs]


def _compared(problem: Problem, text: str) -> Verdict:
    found = extract(text)
    said = _untexed(found.answer) if found else ""
    if found is None or not said:
        return Verdict(Judgement.NONE, rule="no answer")
    if problem.columns["kind"] == CHOICE:
        right, rule = _chosen(said, problem.columns["choices"]) == problem.gold, "choice"
    else:
        right, rule = same_words(problem.gold, said), "words"
    return Verdict(Judgement.RIGHT if right else Judgement.WRONG, found.answer, said, rule, found.by)


def _chosen(said: str, choices: Sequence[str]) -> str | None:
    from posttrain.evaluation.building.questions import which

    index = which(said, list(choices))
    return None if index is None else LETTERS[index]


_TEX = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|operatorname)\s*\{([^{}]*)\}")


def _untexed(answer: str) -> str:
    r"""`\text{Ann Lee}` → `Ann Lee`; what a box makes of words."""
    for _ in range(4):  # (one in another; deeper is nonsense)
        answer = _TEX.sub(r"\1", answer)
    return re.sub(r"\\[ ,;!]|~|\$", " ", answer).strip()


def same_words(a: str, b: str) -> bool:
    """True if two answers have the same words in the same order, but for case, typography, punctuation and articles."""
    first = _words(a)
    return bool(first) and first == _words(b)


def _words(text: str) -> list[str]:
    from posttrain.evaluation.building.matching import plain

    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", plain(text).text)
    text = "".join(c for c in text if not unicodedata.combining(c))
    # A point, comma or hyphen inside a number is part of it; a minus in front of one too.
    kept = re.findall(r"(?:(?<!\w)-)?\d+(?:[.,]\d+)*%?|[^\W\d_]+|_|[^\w\s.,;:!?'\"()\[\]{}/-]", text)
    return [word for word in kept if word not in ("a", "an", "the")]


def notes(problems: Sequence[Problem]) -> list[str]:
    """What must be said beside a score on these problems."""
    kinds = Counter(str(p.columns.get("kind")) for p in problems)
    found = []
    if kinds[WORDS]:
        found.append(
            f"{kinds[WORDS]} of {len(problems)} answers are words and are judged by the same words (case, punctuation and "
            "articles aside): a right answer in other words counts as wrong"
        )
    writers = sorted({writer_of(p) for p in problems} - {""})
    if len(writers) == 1:
        found.append(f"the questions were written by {writers[0]}: compare no model of its family by them alone")
    elif writers:
        found.append(
            f"the questions were written by {', '.join(writers)}: a model of one of their families is looked at by the "
            "questions of the others (`parts.by_writer`)"
        )
    merged = sum(int(p.columns.get("weight") or 1) > 1 for p in problems)
    if merged:
        found.append(
            f"near-duplicates are merged in {merged} of the questions; each counts once in accuracy, and by its number in "
            "`parts.weighted`"
        )
    return found
