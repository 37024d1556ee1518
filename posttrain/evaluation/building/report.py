"""What became of everything: counts that add up, and the files in which they stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from posttrain.errors import Mistake
from posttrain.evaluation.benchmarks.own import FORMAT
from posttrain.evaluation.building.documents import Document
from posttrain.evaluation.building.plan import Plan
from posttrain.evaluation.building.wording import PROMPT


@dataclass
class Counts:
    """Of one writer, or of all. `drafts` = `kept` + all of `dropped`; `requests` = `replies` + all of `failed`."""

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

    def add(self, other: Counts) -> None:
        for name in ("requests", "replies", "from_journal", "cut", "drafts", "kept"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("failed", "unread", "dropped"):
            both = Counter(getattr(self, name)) + Counter(getattr(other, name))
            setattr(self, name, dict(both.most_common()))

    def most(self) -> str:
        """The most frequent reasons, in a few words."""
        counts = Counter(self.dropped) + Counter(self.unread) + Counter(self.failed)
        return "; ".join(f"{reason}: {count}" for reason, count in counts.most_common(3)) or "no replies"


@dataclass
class Report(Counts):
    """Of all writers together, and of each."""

    documents: int = 0
    copies: int = 0
    """Files left out because another has the same text."""
    left_out: list[tuple[str, str]] = field(default_factory=list)
    chunks: int = 0
    """Single chunks and groups that are asked about."""
    scopes: dict[str, int] = field(default_factory=dict)
    """The same by scope (single_hop, multi_hop, cross_document)."""
    writers: dict[str, Counts] = field(default_factory=dict)
    """By the model that was asked."""
    kinds: dict[str, int] = field(default_factory=dict)
    """Of the questions kept: how they are judged (number, choice, words)."""
    kept_scopes: dict[str, int] = field(default_factory=dict)


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


def provenance(
    report: Report, plan: Plan, settings: Sequence[Mapping[str, Any]], documents: Mapping[str, Document]
) -> dict[str, Any]:
    """What `Files.report` holds."""
    return {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "writers": [dict(one) for one in settings],
        "prompt": PROMPT,
        "plan": asdict(plan),
        "report": asdict(report),
        "documents": [
            {"id": d.id, "digest": d.digest, "date": d.date, "date_from": d.date_from, "characters": len(d.text)}
            for d in documents.values()
        ],
    }
