"""What a folder holds already: samples that count, samples that are only judged again, samples of other settings.

What shapes a text (model, sampling, seed, prompt) and what shapes its verdict (grader, gold) are told apart: where only the
second has changed, nothing is asked again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posttrain import terminal
from posttrain.evaluation.benchmarks.base import Benchmark, Problem
from posttrain.evaluation.judging import Line, judge_again
from posttrain.evaluation.progress import bar
from posttrain.evaluation.provenance import digest_of
from posttrain.evaluation.results import RESULT, SAMPLES, load_samples, mend_tail
from posttrain.rundir import write_atomic, write_json

SETTINGS = "settings.json"
"""In the folder of an evaluation: `settings` (all that shapes samples and verdicts), and `benchmark`, `data`, `limit` as given."""
JUDGING = ("grader", "data")
"""Settings that shape verdicts but no text. (The digest of a benchmark's own file: other questions have other item ids.)"""
AT_ONCE = 256
MOST_SHOWN = 3


def generation_of(settings: Mapping[str, Any]) -> str:
    """Digest of what shapes the texts: equal digests, same requests."""
    return digest_of({name: value for name, value in settings.items() if name not in JUDGING})


def marks(settings: Mapping[str, Any]) -> dict[str, str]:
    """What every line says of the settings that it was made with."""
    return {"settings": digest_of(settings), "generation": generation_of(settings)}


@dataclass
class Found:
    """What is there. Nothing in the folder has changed before `settle`."""

    folder: Path
    settings: dict[str, Any]
    lines: list[Line] = field(default_factory=list)
    """All that go on, in the order they were made."""
    again: int = 0
    """So many of them were judged again ..."""
    changed: int = 0
    """... and so many have another verdict now."""
    others: list[Line] = field(default_factory=list)
    """Of other settings; they are kept aside."""

    def settle(self, *, source: Mapping[str, Any]) -> list[str]:
        """Make the folder hold what was found, keep what it held before aside, and say so on stderr in one line.

        Args:
            source: `benchmark`, `data`, `limit`, for `settings.json`.

        Returns:
            Notes for the result.
        """
        notes, file, result = [], self.folder / SAMPLES, self.folder / RESULT
        if self.again or self.others:
            aside = _free(self.folder, (self.others or self.lines)[0].get("settings"), self.settings)
            text = file.read_text(encoding="utf-8")
            if self.lines:
                write_atomic(aside, text)  # first, for the disk may be full
                result.unlink(missing_ok=True)
                made = (terminal.in_json(json.dumps(line, ensure_ascii=False, allow_nan=False)) for line in self.lines)
                write_atomic(file, "".join(f"{line}\n" for line in made))
            else:
                file.replace(aside)
            if self.again:
                notes.append(
                    f"{self.again} samples were judged again (grader or right answers are other ones) and none was asked again: "
                    f"{self.changed} verdicts changed; the old ones are in {aside.name}"
                )
                _say(f"{self.folder}: {notes[0]}")
            if self.others:
                why = self._differs()
                _say(
                    f"{self.folder}: {len(self.others)} samples of other settings{f' ({why})' if why else ''} do not count; they "
                    f"are kept in {aside.name}"
                )
        # Until this evaluation is done, no result stands beside its samples.
        result.unlink(missing_ok=True)
        write_json(self.folder / SETTINGS, {"settings": self.settings, **source})
        return notes

    def _differs(self) -> str:
        """Which settings are other ones, as far as the folder says."""
        old = (read_settings(self.folder) or {}).get("settings")
        if not isinstance(old, dict) or digest_of(old) != self.others[0].get("settings"):
            return ""
        pairs = list(_pairs(old, self.settings))
        shown = [terminal.line(f"{name}: {a} → {b}", 80) for name, a, b in pairs[:MOST_SHOWN]]
        return "; ".join(shown) + ("; ..." if len(pairs) > MOST_SHOWN else "")


def find(
    folder: Path,
    settings: dict[str, Any],
    benchmark: Benchmark,
    problems: Sequence[Problem],
    *,
    all_again: bool = False,
    progress: bool | None = None,
) -> Found:
    """The samples in a folder, judged again where the grader or a gold is not the one they were judged by.

    Args:
        problems: those that are asked; samples of further ones stay as they are.
        all_again: judge every sample again, whether or not anything that is known to matter has changed.

    Raises:
        Mistake: the samples cannot be read.
    """
    file = folder / SAMPLES
    found = Found(folder, settings)
    if not file.exists():
        return found
    mend_tail(file)
    digest, generation = digest_of(settings), generation_of(settings)
    known = {p.item_id: p for p in problems}
    stale: list[int] = []
    for line in load_samples(file):
        problem = known.get(line["item_id"])
        same = line.get("settings") == digest and (problem is None or line["gold"] == problem.gold)
        ours = line.get("generation") == generation and _can_be_judged(line)
        if ours and problem is not None and (all_again or not same):
            stale.append(len(found.lines))
            found.lines.append(line)
        elif same or ours:
            found.lines.append(line)
        else:
            found.others.append(line)
    with bar(f"judging {benchmark.name} again", len(stale), progress if stale else False) as update:
        done: list[Line] = []
        for start in range(0, len(stale), AT_ONCE):
            places = stale[start : start + AT_ONCE]
            old = [found.lines[i] for i in places]
            made = judge_again(benchmark, [known[line["item_id"]] for line in old], old)
            for i, before, line in zip(places, old, made, strict=True):
                found.lines[i] = line | {"settings": digest}
                found.changed += before.get("verdict") != line["verdict"]
            done += made
            update(done)
    found.again = len(stale)
    return found


def _can_be_judged(line: Mapping[str, Any]) -> bool:
    """True if a line holds all the texts that were judged."""
    cuts = line.get("cut_at")
    return (
        isinstance(line.get("completion"), str)
        and isinstance(line.get("answer", 0), str | None)
        and isinstance(cuts, dict)
        and all(type(cut) in (int, str) for cut in cuts.values())
    )


def read_settings(folder: Path) -> dict[str, Any] | None:
    """What `settings.json` says; None if there is none that can be read."""
    try:
        record = json.loads((folder / SETTINGS).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _pairs(old: Any, new: Any, name: str = "") -> Any:
    """(name, old value, new value) of whatever differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _pairs(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))
    elif json.dumps(old, default=str) != json.dumps(new, default=str):
        yield name, old, new


def _free(folder: Path, old: Any, settings: Mapping[str, Any]) -> Path:
    """A name for samples that are kept aside: nothing that was kept before is written over."""
    name = f"samples-{old if old != digest_of(settings) else 'before'}"
    aside, serial = folder / f"{name}.jsonl", 1
    while aside.exists():
        serial += 1
        aside = folder / f"{name}-{serial}.jsonl"
    return aside


def _say(text: str) -> None:
    print(terminal.line(text), file=sys.stderr, flush=True)
