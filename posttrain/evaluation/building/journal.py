"""What was asked and answered, on disk as it comes: a build that was cut off goes on without asking twice."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from posttrain.errors import Mistake
from posttrain.evaluation.results import mend_tail
from posttrain.rundir import append_line


@dataclass(frozen=True, slots=True)
class Request:
    """One thing to ask: questions of one kind about one chunk, or one group of chunks."""

    chunk: str
    """Its id (a group's: its chunks' ids, joined)."""
    kind: str
    messages: tuple[Mapping[str, str], ...]

    @property
    def name(self) -> tuple[str, str]:
        """Its own within a build."""
        return self.chunk, self.kind

    def key(self, settings: Mapping[str, Any]) -> str:
        """Digest of the words that are sent and of what shapes the answer to them."""
        text = json.dumps([list(map(dict, self.messages)), dict(settings)], sort_keys=True)
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it came."""

    text: str
    finish: str | None
    """`stop`, `length` (cut at the token limit), ... as the endpoint says."""
    model: str
    """Who answered, by its own word."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Journal:
    """Replies by the key of their request. Failures are not kept: they are asked again next time."""

    def __init__(self, path: Path):
        self.path = path
        self._replies: dict[str, Reply] = {}
        mend_tail(path)
        for number, line in enumerate(_lines(path), start=1):
            try:
                record = json.loads(line)
                fields = {name: record.get(name) for name in Reply.__slots__}
                if not isinstance(fields["text"], str) or not isinstance(fields["model"], str):
                    raise ValueError("no reply")
                self._replies[str(record["key"])] = Reply(**fields)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                raise Mistake(f"{path}, line {number}: not a line of a build's journal; move the file away") from None

    def __len__(self) -> int:
        return len(self._replies)

    def get(self, key: str) -> Reply | None:
        return self._replies.get(key)

    def add(self, key: str, request: Request, reply: Reply) -> None:
        """Keep a reply: on disk first."""
        about = {"key": key, "chunk": request.chunk, "kind": request.kind, "at": round(time.time(), 3)}
        append_line(self.path, about | asdict(reply))
        self._replies[key] = reply


def _lines(path: Path) -> Sequence[str]:
    if not path.exists():
        return []
    try:
        return [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except UnicodeDecodeError:
        raise Mistake(f"{path}: not a build's journal; move the file away") from None
