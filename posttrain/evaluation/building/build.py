"""Documents → a benchmark file: everything that was read, asked, drafted and dropped is counted, and adds up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from posttrain.errors import Mistake
from posttrain.evaluation.building import duplicates
from posttrain.evaluation.building.chunks import Spans, word_spans
from posttrain.evaluation.building.documents import Document, read_documents
from posttrain.evaluation.building.endpoint import Failed
from posttrain.evaluation.building.gates import Refused, check
from posttrain.evaluation.building.groups import SINGLE, Group
from posttrain.evaluation.building.journal import Journal, Reply, Request
from posttrain.evaluation.building.lines import Candidate, drop_of, lines_of, row_of
from posttrain.evaluation.building.plan import Plan
from posttrain.evaluation.building.questions import parse
from posttrain.evaluation.building.report import Counts, Files, Report, check_out, provenance
from posttrain.evaluation.building.wording import messages
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


@dataclass
class _Said:
    """What one writer said, and what became of it."""

    name: str
    settings: Mapping[str, Any]
    replies: dict[tuple[str, str], Reply] = field(default_factory=dict)
    failures: list[tuple[Request, Failed]] = field(default_factory=list)
    candidates: list[tuple[Request, Candidate]] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    dropped: Counter[str] = field(default_factory=Counter)
    drops: list[dict[str, Any]] = field(default_factory=list)

    def drop(self, reason: str, one: Candidate | Any, request: Request, detail: str = "") -> None:
        draft = one.draft if isinstance(one, Candidate) else one
        self.dropped[reason] += 1
        self.drops.append(drop_of(reason, draft, request, self.name, detail))


def build(
    places: Sequence[str | Path],
    writers: Writer | Sequence[Writer],
    out: Path | str,
    plan: Plan | None = None,
    spans: Spans = word_spans,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Write the benchmark `out` (.jsonl) about the documents at `places`, and beside it its journal, report and drops.

    A call that was cut off goes on where it stopped: what is in the journal is not asked again.

    Args:
        writers: one, or several of different models: each is asked about everything, so that a model's score can be looked
            at by who wrote the questions.
        spans: where the tokens of a text are, for the lengths of chunks.
        progress: told how many of the requests are answered (or failed) so far.

    Raises:
        Mistake: documents that cannot be read, a file in the way, two writers of one model, or not one question that passes
            (then `out` is not written; the report and the drops are).
    """
    plan = plan or Plan()
    several = list(writers) if isinstance(writers, Sequence) else [writers]
    check_writers([writer.settings["model"] for writer in several])
    files = Files(check_out(out))
    found = read_documents(places)
    documents = {document.id: document for document in found.documents}
    groups = plan.groups(found.documents, spans)
    requests = [
        (group, Request(group.id, kind, tuple(messages(group.chunks, kind, plan.questions, plan.wishes))))
        for group in groups
        for kind in plan.kinds
    ]
    report = Report(
        documents=len(documents),
        copies=len(found.duplicates),
        left_out=found.left_out,
        chunks=len(groups),
        scopes=dict(Counter(group.scope for group in groups)),
    )
    said = _ask([request for _, request in requests], several, Journal(files.journal), progress)
    for one in said:
        _hold(one, requests, plan)
    rows = _fold(said, documents)
    for one in said:
        one.counts.dropped = dict(one.dropped.most_common())
        report.writers[one.name] = one.counts
        report.add(one.counts)
    report.kinds = dict(Counter(row["kind"] for row in rows))
    report.kept_scopes = dict(Counter(row["scope"] for row in rows))
    write_atomic(files.dropped, lines_of([line for one in said for line in one.drops]))
    write_json(files.report, provenance(report, plan, [one.settings for one in said], documents))
    if not rows:
        raise Mistake(
            f"{files.out}: not written, since not one of {report.drafts} drafts in {report.replies} replies passed "
            f"({report.most()}); see {files.dropped}"
        )
    write_atomic(files.out, lines_of(rows))
    return report


def check_writers(models: Sequence[str]) -> None:
    """Refuse no writer at all, and two of the same model: they would be told apart by nothing.

    Raises:
        Mistake: either.
    """
    if not models:
        raise Mistake("no one to write the questions")
    if again := next((name for name, count in Counter(models).items() if count > 1), None):
        raise Mistake(f'two writers are the model "{again}"; several writers are of different models')


def _ask(
    requests: Sequence[Request],
    writers: Sequence[Writer],
    journal: Journal,
    progress: Callable[[int, int], None],
) -> list[_Said]:
    """Replies from the journal or the writers, one writer after the other; and what failed."""
    said = [_Said(writer.settings["model"], writer.settings) for writer in writers]
    total = len(requests) * len(writers)
    missing: list[list[Request]] = []
    for one in said:
        known = {r.name: reply for r in requests if (reply := journal.get(r.key(one.settings))) is not None}
        one.replies |= known
        one.counts.requests, one.counts.from_journal = len(requests), len(known)
        missing.append([request for request in requests if request.name not in known])

    def tell() -> None:
        progress(sum(len(one.replies) + len(one.failures) for one in said), total)

    tell()
    for one, writer, asked in zip(said, writers, missing, strict=True):

        def done(request: Request, outcome: Reply | Failed, one: _Said = one) -> None:
            if isinstance(outcome, Reply):
                journal.add(request.key(one.settings), request, outcome)
                one.replies[request.name] = outcome
            else:
                one.failures.append((request, outcome))
            tell()

        if asked:
            writer.ask(asked, done)
        one.failures.sort(key=lambda pair: pair[0].name)
        one.counts.failed = dict(Counter(failed.reason for _, failed in one.failures).most_common())
    return said


def _hold(said: _Said, requests: Sequence[tuple[Group, Request]], plan: Plan) -> None:
    """Read one writer's replies, and hold every draft against its chunks."""
    counts, unread = said.counts, Counter[str]()
    for request, failed in said.failures:
        said.drops.append(_lost(f"request: {failed.reason}", request, said.name) | {"detail": failed.detail})
    for group, request in requests:
        reply = said.replies.get(request.name)
        if reply is None:
            continue
        counts.replies += 1
        counts.cut += reply.finish == "length"
        parsed = parse(reply.text, request.kind)
        unread += parsed.faults
        said.drops += [_lost(f"unread: {why}", request, said.name) for why in parsed.faults.elements()]
        counts.drafts += len(parsed.drafts)
        for draft in parsed.drafts:
            held = check(draft, group.chunks, plan.cut, several=group.scope != SINGLE)
            if isinstance(held, Refused):
                said.drop(held.reason, draft, request, held.detail)
            else:
                said.candidates.append((request, Candidate(draft, held, group, reply, said.settings)))
    counts.unread = dict(unread.most_common())


def _lost(reason: str, request: Request, writer: str) -> dict[str, Any]:
    return {"reason": reason, "chunk": request.chunk, "kind": request.kind, "writer": writer}


def _fold(said: Sequence[_Said], documents: Mapping[str, Document]) -> list[dict[str, Any]]:
    """The benchmark's lines: near-duplicates of all writers are one."""
    every = [(one, request, candidate) for one in said for request, candidate in one.candidates]
    folded = duplicates.fold(
        [duplicates.Asked(c.draft.question, c.draft.answer, c.passed.scores.citation) for _, _, c in every]
    )
    for i in sorted({*folded.stands_for, *folded.contradictions}):
        one, request, candidate = every[i]
        if i in folded.stands_for:
            one.drop(DUPLICATE, candidate, request, every[folded.stands_for[i]][2].draft.question)
        else:
            one.drop(CONTRADICTION, candidate, request)
    rows = []
    for i, weight in zip(folded.kept, folded.weights, strict=True):
        one, _, candidate = every[i]
        one.counts.kept += 1
        rows.append(row_of(candidate, weight, documents))
    return rows
