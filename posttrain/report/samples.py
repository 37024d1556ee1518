"""The samples of one evaluation, read once and kept short: numbers of all of them, texts of a few.

A file may hold millions of characters a problem; what stays in memory is a line of numbers a sample (`MAX_KEPT` of them)
and the `PICKED` samples of each kind that a reader is shown.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_KEPT = 200_000
"""Samples whose numbers are kept; a longer file is read to here."""
PICKED = 3
"""Samples of each kind that are shown."""
MAX_SHORT = 500
"""Characters of a gold or an extracted answer that are kept for the comparison."""
VERDICTS = ("RIGHT", "WRONG", "NONE", "TIMEOUT")
KINDS = ("right", "wrong", "no answer", "truncated")
"""What a reader looks for, each sample in one of them: see `kind_of`."""


@dataclass
class Samples:
    """What `samples.jsonl` of one evaluation says."""

    kept: list[dict[str, Any]] = field(default_factory=list)
    """Of each sample item_id, sample, score, verdict, strict, tokens, finish, cluster, gold, extracted."""
    count: Counter[str] = field(default_factory=Counter)
    """Samples of each kind."""
    picked: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Of each kind a few whole lines, of different problems."""
    cut: bool = False
    """There were more than `MAX_KEPT`."""
    odd: int = 0
    """Lines that are no sample."""

    def lengths(self) -> list[int]:
        """Completion tokens of every sample that has them."""
        return [s["tokens"] for s in self.kept if s["tokens"] is not None]


def kind_of(sample: Mapping[str, Any]) -> str:
    """One of `KINDS`: right; else truncated if it ended at the token limit; else no answer or wrong.

    A sample whose grading ran out of time has an answer that was not shown to be right: it is among the wrong ones.
    """
    if sample.get("verdict") == "RIGHT":
        return "right"
    if sample.get("finish") == "length":
        return "truncated"
    return "no answer" if sample.get("verdict") == "NONE" else "wrong"


def gather(records: Iterator[dict[str, Any]], result: Mapping[str, Any]) -> Samples:
    """Read the sample lines of a result. Those numbered k and above, or of other settings, belong to another one.

    Which samples are picked depends on item ids and numbers alone, so that two evaluations of the same problems show the
    same ones where these are of the same kind.
    """
    k, settings = result.get("k"), result.get("settings")
    k = k if type(k) is int and k > 0 else None
    settings = settings if isinstance(settings, str) else None
    found = Samples()
    heaps: dict[str, list[tuple[int, str, int, dict[str, Any]]]] = {kind: [] for kind in KINDS}
    for record in records:
        short = _short(record)
        if short is None:
            found.odd += 1
            continue
        if (k is not None and short["sample"] >= k) or (settings and record.get("settings", settings) != settings):
            continue
        if len(found.kept) >= MAX_KEPT:
            found.cut = True
            break
        found.kept.append(short)
        kind = kind_of(short)
        found.count[kind] += 1
        _offer(heaps[kind], short, record)
    found.picked = {kind: [r for *_, r in sorted(heap, key=lambda e: -e[0])] for kind, heap in heaps.items()}
    return found


def _offer(heap: list[tuple[int, str, int, dict[str, Any]]], short: dict[str, Any], record: dict[str, Any]) -> None:
    """Keep the `PICKED` samples with the smallest digests, one a problem."""
    name = short["item_id"]
    order = int.from_bytes(hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=6).digest(), "big")
    entry = (-order, name, short["sample"], record)
    same = next((i for i, (_, item, *_) in enumerate(heap) if item == name), None)
    if same is not None:
        if short["sample"] < heap[same][2]:
            heap[same] = entry
    elif len(heap) < PICKED:
        heapq.heappush(heap, entry)
    elif entry[0] > heap[0][0]:
        heapq.heapreplace(heap, entry)


def _short(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The numbers of a sample, of the types that a comparison counts on; None for what is no sample."""
    item, sample, score, verdict = (record.get(key) for key in ("item_id", "sample", "score", "verdict"))
    if not isinstance(item, str) or type(sample) is not int or not 0 <= sample < 10**9:
        return None
    if type(score) not in (int, float) or not 0 <= score <= 1:
        return None
    tokens, cluster = record.get("completion_tokens"), record.get("cluster")
    strict, finish = record.get("strict"), record.get("finish")
    return {
        "item_id": item[:MAX_SHORT],
        "sample": sample,
        "score": float(score),
        "verdict": verdict if verdict in VERDICTS else "WRONG",
        "strict": strict if strict in VERDICTS else None,
        "tokens": tokens if type(tokens) is int and 0 <= tokens < 10**12 else None,
        "finish": finish[:20] if isinstance(finish, str) else "",
        "cluster": cluster[:MAX_SHORT] if isinstance(cluster, str) else item[:MAX_SHORT],
        "gold": _clip(record.get("gold")),
        "extracted": _clip(record.get("extracted")) if record.get("extracted") is not None else None,
    }


def _clip(value: Any) -> str:
    return str(value)[:MAX_SHORT] if isinstance(value, str | int | float) else ""
