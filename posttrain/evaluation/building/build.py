"""Documents → a benchmark file: everything that was read, asked, drafted and dropped is counted, and adds up."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from posttrain.errors import Mistake
from posttrain.evaluation.benchmarks.own import FORMAT
from posttrain.evaluation.building import chunks, duplicates, gates
from posttrain.evaluation.building.chunks import Chunk, Spans, word_spans
from posttrain.evaluation.building.documents import Document, Found, read_documents
from posttrain.evaluation.building.endpoint import Failed
from posttrain.evaluation.building.gates import Refused, check
from posttrain.evaluation.building.journal import Journal, Reply, Request
from posttrain.evaluation.building.lines import Candidate, drop_of, lines_of, row_of
from posttrain.evaluation.building.questions import CHOICE, OPEN, PROMPT, messages, parse
from posttrain.rundir import write_atomic, write_json

DUPLICATE = "near-duplicate"
CONTRADICTION = "same question, other answer"


class Writer(Protocol):
    """Who writes the questions: an `Endpoint`, or a `Local` engine."""

    @property
    def settings(self) -> dict[str, Any]:
        """`model`, and what else shapes an answer."""
        ...

    def ask(self, requests: Sequence[Request], done: Callable[[Request, Reply | Failed], None]) -> None: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked about the documents."""

    kinds: tuple[str, ...] = (OPEN, CHOICE)
    questions: int = 5
    """Of each kind, a chunk."""
    length: int = chunks.LENGTH
    overlap: int = chunks.OVERLAP
    most: int | None = None
    """Ask about so many chunks only, drawn by `seed`."""
    seed: int = 0
    cut: float = gates.CUT
    """A citation that is not word by word in its chunk needs this partial match."""

    def __post_init__(self) -> None:
        if not self.kinds or set(self.kinds) - {OPEN, CHOICE}:
            raise Mistake(f"kinds: {OPEN}, {CHOICE} or both, not {', '.join(self.kinds) or 'none'}")
        for name, value, least in (("questions", self.questions, 1), ("chunks", self.most, 1)):
            if value is not None and value < least:
                raise Mistake(f"{name}: at least {least}, not {value}")
        chunks.windows(0, self.length, self.overlap)


@dataclass
class Report:
    """What became of everything. `drafts` = `kept` + all of `dropped`; `requests` = `replies` + all of `failed`."""

    documents: int = 0
    copies: int = 0
    """Files left out because another has the same text."""
    left_out: list[tuple[str, str]] = field(default_factory=list)
    chunks: int = 0
    requests: int = 0
    replies: int = 0
    from_journal: int = 0
    """Of the replies: those that an earlier call got."""
    cut: int = 0
    """Of the replies: those that ended at the token limit."""
    failed: dict[str, int] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)
    """What in replies was no question, by reason."""
    drafts: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    kept: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    """Of the questions kept: how they are judged (number, choice, words)."""


@dataclass(frozen=True, slots=True)
class Files:
    """What a build writes, all beside the benchmark."""

    out: Path

    @property
    def journal(self) -> Path:
        """Every reply as it came."""
        return self.out.with_name(f"{self.out.stem}.journal.jsonl")

    @property
    def dropped(self) -> Path:
        """Every draft that was dropped, with its reason, and every failed request."""
        return self.out.with_name(f"{self.out.stem}.dropped.jsonl")

    @property
    def report(self) -> Path:
        """The counts, the plan and where it all came from."""
        return self.out.with_name(f"{self.out.stem}.build.json")


def build(
    places: Sequence[str | Path],
    writer: Writer,
    out: Path | str,
    plan: Plan | None = None,
    spans: Spans = word_spans,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Write the benchmark `out` (.jsonl) about the documents at `places`, and beside it its journal, report and drops.

    A call that was cut off goes on where it stopped: what is in the journal is not asked again.

    Args:
        spans: where the tokens of a text are, for the lengths of chunks.
        progress: told how many of the requests are answered (or failed) so far.

    Raises:
        Mistake: documents that cannot be read, a file in the way, or not one question that passes (then `out` is not
            written; the report and the drops are).
    """
    plan = plan or Plan()
    files = Files(check_out(out))
    found = read_documents(places)
    documents = {document.id: document for document in found.documents}
    parts = _parts(found, plan, spans)
    by_id = {chunk.id: chunk for chunk in parts}
    requests = [
        Request(chunk.id, kind, tuple(messages(chunk, kind, plan.questions))) for chunk in parts for kind in plan.kinds
    ]
    report = Report(
        documents=len(documents),
        copies=len(found.duplicates),
        left_out=found.left_out,
        chunks=len(parts),
        requests=len(requests),
    )
    replies, failures = _ask(requests, writer, Journal(files.journal), report, progress)
    candidates: list[Candidate] = []
    drops: list[dict[str, Any]] = [
        {"reason": f"request: {failed.reason}", "detail": failed.detail, "chunk": request.chunk, "kind": request.kind}
        for request, failed in failures
    ]
    unread, dropped = Counter[str](), Counter[str]()
    for request in requests:
        reply = replies.get((request.chunk, request.kind))
        if reply is None:
            continue
        report.replies += 1
        report.cut += reply.finish == "length"
        parsed = parse(reply.text, request.kind)
        unread += parsed.faults
        drops += [{"reason": f"unread: {why}", "chunk": request.chunk, "kind": request.kind} for why in parsed.faults]
        report.drafts += len(parsed.drafts)
        chunk = by_id[request.chunk]
        for one in parsed.drafts:
            held = check(one, [chunk], plan.cut)
            if isinstance(held, Refused):
                dropped[held.reason] += 1
                drops.append(drop_of(held.reason, one, chunk, held.detail))
            else:
                candidates.append(Candidate(one, held, chunk, reply))
    rows = _merged(candidates, documents, writer.settings, plan, dropped, drops)
    report.kept = len(rows)
    report.unread, report.dropped = dict(unread.most_common()), dict(dropped.most_common())
    report.kinds = dict(Counter(row["kind"] for row in rows))
    write_atomic(files.dropped, lines_of(drops))
    write_json(files.report, _provenance(report, plan, writer, documents))
    if not rows:
        raise Mistake(
            f"{files.out}: not written, since not one of {report.drafts} drafts in {report.replies} replies passed "
            f"({_most(report)}); see {files.dropped}"
        )
    write_atomic(files.out, lines_of(rows))
    return report


def check_out(out: Path | str) -> Path:
    """Where the benchmark goes.

    Raises:
        Mistake: not a .jsonl, or a file is in the way that no build wrote.
    """
    path = Path(out).expanduser()
    if path.suffix != ".jsonl":
        raise Mistake(f"--out {path}: should end in .jsonl")
    if path.is_dir():
        raise Mistake(f"--out {path}: a folder is in the way")
    if path.exists():
        with path.open("rb") as file:
            first = file.readline(65536)
        if f'"{FORMAT}"'.encode() not in first:
            raise Mistake(f"--out {path}: a file that no build wrote is in the way; give another name")
    return path


def _parts(found: Found, plan: Plan, spans: Spans) -> list[Chunk]:
    every = [c for document in found.documents for c in chunks.chunk(document, plan.length, plan.overlap, spans)]
    if plan.most is None or plan.most >= len(every):
        return every
    return [every[i] for i in sorted(random.Random(plan.seed).sample(range(len(every)), plan.most))]


def _ask(
    requests: Sequence[Request],
    writer: Writer,
    journal: Journal,
    report: Report,
    progress: Callable[[int, int], None],
) -> tuple[dict[tuple[str, str], Reply], list[tuple[Request, Failed]]]:
    """Replies by (chunk, kind), from the journal or the writer; and what failed."""
    settings = writer.settings
    replies: dict[tuple[str, str], Reply] = {}
    failures: list[tuple[Request, Failed]] = []
    missing = []
    for request in requests:
        if (known := journal.get(request.key(settings))) is not None:
            replies[request.chunk, request.kind] = known
        else:
            missing.append(request)
    report.from_journal = len(replies)
    progress(len(replies), len(requests))

    def done(request: Request, outcome: Reply | Failed) -> None:
        if isinstance(outcome, Reply):
            journal.add(request.key(settings), request, outcome)
            replies[request.chunk, request.kind] = outcome
        else:
            failures.append((request, outcome))
        progress(len(replies) + len(failures), len(requests))

    if missing:
        writer.ask(missing, done)
    failures.sort(key=lambda pair: (pair[0].chunk, pair[0].kind))
    report.failed = dict(Counter(failed.reason for _, failed in failures).most_common())
    return replies, failures


def _merged(
    candidates: Sequence[Candidate],
    documents: dict[str, Document],
    settings: dict[str, Any],
    plan: Plan,
    dropped: Counter[str],
    drops: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    asked = [duplicates.Asked(c.draft.question, c.draft.answer, c.passed.scores.citation) for c in candidates]
    merged = duplicates.fold(asked)
    for i in sorted({*merged.stands_for, *merged.contradictions}):
        reason = DUPLICATE if i in merged.stands_for else CONTRADICTION
        detail = candidates[merged.stands_for[i]].draft.question if i in merged.stands_for else ""
        dropped[reason] += 1
        drops.append(drop_of(reason, candidates[i].draft, candidates[i].chunk, detail))
    return [
        row_of(candidates[i], weight, documents[candidates[i].chunk.document], settings)
        for i, weight in zip(merged.kept, merged.weights, strict=True)
    ]


def _provenance(report: Report, plan: Plan, writer: Writer, documents: dict[str, Document]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "writer": writer.settings,
        "prompt": PROMPT,
        "plan": asdict(plan),
        "report": asdict(report),
        "documents": [
            {"id": d.id, "digest": d.digest, "date": d.date, "date_from": d.date_from, "characters": len(d.text)}
            for d in documents.values()
        ],
    }


def _most(report: Report) -> str:
    """The most frequent reasons, in a few words."""
    counts = Counter(report.dropped) + Counter(report.unread) + Counter(report.failed)
    return "; ".join(f"{reason}: {count}" for reason, count in counts.most_common(3)) or "no replies"
