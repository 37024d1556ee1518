"""Several models against a baseline, on every benchmark that both have: one verdict each, and one error rate for all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from posttrain.errors import Mistake
from posttrain.evaluation.compare import Comparison, compare
from posttrain.evaluation.foreign import Foreign
from posttrain.evaluation.places import Arm, read_arm
from posttrain.evaluation.statistics.paired import UNCLEAR, verdict
from posttrain.evaluation.statistics.power import holm, smallest_difference
from posttrain.rundir import write_json

FILE = "comparison.json"


@dataclass(frozen=True, slots=True)
class Comparisons:
    """What `posttrain compare` finds."""

    arms: list[Arm]
    """The baseline and the others."""
    found: list[tuple[Arm, Comparison]]
    """Each other arm with its comparison with the baseline, benchmark by benchmark."""
    notes: list[str]
    """Benchmarks that were left out, and why."""
    file: Path | None = None
    """Where it was written."""

    def to_json(self) -> dict[str, Any]:
        return {
            "baseline": self.arms[0].name,
            "arms": [{"name": arm.name, "places": list(map(str, arm.places))} for arm in self.arms],
            "correction": f"Holm over {self.tests} comparisons" if self.tests > 1 else None,
            "comparisons": [{"arm": arm.name} | one.to_json() for arm, one in self.found],
            "notes": self.notes,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    @property
    def tests(self) -> int:
        return sum(one.p is not None for _, one in self.found)


def compare_all(
    words: Sequence[str | os.PathLike[str]], *, anyway: bool = False, metrics: Sequence[str] = ()
) -> Comparisons:
    """Compare each of the places but the first with the first.

    Args:
        words: two or more of what `places.read_arm` reads; the first is the baseline.
        anyway: as `compare.compare`.
        metrics: which score of files of other harnesses is taken, as `foreign.read`.

    Raises:
        Mistake: fewer than two places, one that holds no evaluation, no benchmark in common, evaluations that are not
            comparable, or metrics for places without files of others.
    """
    if len(words) < 2:
        raise Mistake("compare: needs two evaluations at least, the baseline first")
    arms = _told_apart([read_arm(os.fspath(one), metrics) for one in words])
    results = [one for arm in arms for runs in arm.benchmarks.values() for one in runs]
    if metrics and not any(isinstance(one, Foreign) for one in results):
        raise Mistake(
            "--metric chooses a score of lm-evaluation-harness's or lighteval's files, and there are none; leave it out"
        )
    baseline, *others = arms
    notes = [
        f"{benchmark}: left out, only some of the runs of {arm.name} have it"
        for arm in arms
        for benchmark in arm.partial
    ]
    found = []
    for arm in others:
        shared = [b for b in baseline.benchmarks if b in arm.benchmarks]
        if not shared:
            mine, theirs = (", ".join(one.benchmarks) for one in (baseline, arm))
            raise Mistake(
                f"{_places(baseline)} and {_places(arm)}: two benchmarks ({mine}; {theirs}) cannot be compared, none is in both"
            )
        for one, other in ((baseline, arm), (arm, baseline)):
            notes += [f"{b}: left out, {other.name} has none" for b in one.benchmarks if b not in other.benchmarks]
        found += [(arm, compare(baseline.benchmarks[b], arm.benchmarks[b], anyway=anyway)) for b in shared]
    corrected = together([one for _, one in found])
    return Comparisons(
        arms, [(arm, one) for (arm, _), one in zip(found, corrected, strict=True)], list(dict.fromkeys(notes))
    )


def together(found: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons with p, verdict and least visible difference corrected for their number (Holm). One stays as it is."""
    p = holm([one.p for one in found])
    tests = sum(value is not None for value in p)
    if tests < 2:
        return list(found)
    made = []
    for one, value in zip(found, p, strict=True):
        said = verdict(value, one.low, one.high)
        notes = list(one.notes)
        if said != one.verdict:
            notes.append(
                f"alone it would be {one.verdict} (p = {one.p:.2g}); among {tests} comparisons it is not ({value:.2g})"
            )
        least = one.smallest
        if one.se is not None and one.smallest is not None:
            least = smallest_difference(one.se, one.n, one.k, tests, one.df)
        made.append(replace(one, p_holm=value, tests=tests, verdict=said, smallest=least, notes=notes))
    return made


def in_words(one: Comparison) -> str:
    """The verdict; where there is none, how large a difference would have been found."""
    if one.verdict != UNCLEAR:
        return one.verdict
    if one.smallest is None:
        return f"{UNCLEAR}: too few problems"
    return f"{UNCLEAR}: could have told {one.smallest * 100:.1f} points"


def write(found: Comparisons, out: str | os.PathLike[str] | None = None) -> Comparisons:
    """Write `comparison.json`, into the last place (beside it, if it is a file) or to `out` (a folder or a .json file).

    Raises:
        Mistake: it cannot be written there.
    """
    if out is None:
        last = found.arms[-1].places[0]
        file = (last if last.is_dir() else last.parent) / FILE
    else:
        file = Path(out) if Path(out).suffix == ".json" else Path(out) / FILE
    try:
        write_json(file, found.to_json())
    except OSError as error:
        raise Mistake(
            f"{file}: cannot be written ({error.strerror or error}); give another place with --out"
        ) from error
    return replace(found, file=file)


def _places(arm: Arm) -> str:
    return ", ".join(map(str, arm.places))


def _told_apart(arms: Sequence[Arm]) -> list[Arm]:
    """Arms of one name (`a/eval` and `b/eval`) are called by their paths."""
    names = [arm.name for arm in arms]
    return [replace(arm, name=_places(arm)) if names.count(arm.name) > 1 else arm for arm in arms]
