"""What a path that is handed to `posttrain compare` holds: evaluations of ours or of others, one or several."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from posttrain.errors import Mistake
from posttrain.evaluation import foreign
from posttrain.evaluation.results import RESULT, Result


@dataclass(frozen=True, slots=True)
class Arm:
    """One side of a comparison: a model, or several training runs of one recipe."""

    name: str
    places: tuple[Path, ...]
    """A folder or file for each training run."""
    benchmarks: dict[str, list[Result]]
    """Benchmark → its evaluation in each of `places`, for benchmarks that all of them have."""
    partial: tuple[str, ...] = ()
    """Benchmarks that only some of them have."""


def read_arm(words: str, metrics: Sequence[str] = ()) -> Arm:
    """`PLACE`, or several training runs of one arm: `PLACE,PLACE,...`, with a name: `NAME=PLACE,PLACE`.

    A path that exists as it is written is one place, whatever marks are in its name. `metrics`: as `foreign.read`.

    Raises:
        Mistake: nothing there, nothing that is an evaluation, or two of one benchmark.
    """
    name, places = _split(words)
    found = [evaluations(place, metrics) for place in places]
    every = [benchmark for benchmark in found[0] if all(benchmark in one for one in found)]
    some = tuple(dict.fromkeys(b for one in found for b in one if b not in every))
    if not every:
        raise Mistake(f"{words}: its {len(places)} runs have no benchmark in common")
    return Arm(name, tuple(places), {b: [one[b] for one in found] for b in every}, some)


def _split(words: str) -> tuple[str, list[Path]]:
    if _exists(words):
        return _short(words), [Path(words)]
    name, mark, rest = words.partition("=")
    if mark and name and "/" not in name:
        listed = [rest] if _exists(rest) else rest.split(",")
    else:
        name, listed = "", words.split(",")
    listed = [one.strip() for one in listed if one.strip()]
    if not listed:
        raise Mistake(f"{words[:80]}: names no folder; give FOLDER, FOLDER,FOLDER or NAME=FOLDER,FOLDER")
    if len({str(Path(one)) for one in listed}) < len(listed):
        raise Mistake(f"{words[:80]}: names one folder twice; a training run counts once")
    return name or ", ".join(map(_short, listed)), [Path(one) for one in listed]


def _exists(words: str) -> bool:
    try:
        return Path(words).exists()
    except (OSError, ValueError):  # no name of a file at all; read below, where that is said
        return False


def _short(words: str) -> str:
    path = Path(words)
    return path.parent.name or path.name if path.name == RESULT else path.name or words


def evaluations(place: Path, metrics: Sequence[str] = ()) -> dict[str, Result]:
    """The evaluations at a place, by benchmark. `metrics`: as `foreign.read`.

    - a folder with `result.json`, or the path of one: that one;
    - the folder of a run: its last evaluation of each benchmark (after it, or the latest step, or else before);
    - a folder of such folders: one of each benchmark;
    - files of lm-evaluation-harness or lighteval, or a folder with them (`posttrain.evaluation.foreign`).

    Raises:
        Mistake: there is nothing of the kind, or two evaluations of one benchmark.
    """
    if foreign.is_file_of_others(place):
        return _by_benchmark(foreign.read(place, metrics), place)
    try:
        folder = place.is_dir() and not (place / RESULT).is_file()
    except (OSError, ValueError):
        folder = False
    if not folder:
        one = Result.read(place)  # says what is wrong if there is none
        return {one.benchmark: one}
    of_run = [Result.read(file) for file in sorted(place.glob(f"evaluation/*/{RESULT}"))]
    if of_run:
        latest: dict[str, Result] = {}
        for one in sorted(of_run, key=_moment):
            latest[one.benchmark] = one
        return latest
    below = [Result.read(file) for file in sorted(place.glob(f"*/{RESULT}"))]
    if below:
        return _by_benchmark(below, place)
    if others := foreign.files_in(place):
        return _by_benchmark([one for file in others for one in foreign.read(file, metrics)], place)
    raise Mistake(
        f"{place}: no {RESULT} here; give the folder of a finished evaluation, of a run, or files of another harness"
    )


def _moment(result: Result) -> tuple[int, int]:
    """Order within a run: none, before, steps, after."""
    when = result.when or ""
    step = re.fullmatch(r"step-(\d{1,12})", when)
    return (3, 0) if when == "after" else (2, int(step[1])) if step else (1, 0) if when == "before" else (0, 0)


def _by_benchmark(found: Sequence[Result], place: Path) -> dict[str, Result]:
    made: dict[str, Result] = {}
    for one in found:
        if one.benchmark in made:
            two = f"{made[one.benchmark].directory} and {one.directory}"
            raise Mistake(f"{place}: two evaluations of {one.benchmark} ({two}); give the one that is meant")
        made[one.benchmark] = one
    return made
