"""Is one model better than another? Two evaluations of the same problems, read and paired.

The test itself is in `statistics.paired`; here stands what makes two evaluations comparable.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from posttrain.errors import Mistake
from posttrain.evaluation.results import Result, by_item
from posttrain.evaluation.statistics.paired import UNCLEAR, paired, verdict
from posttrain.evaluation.statistics.power import smallest_difference
from posttrain.evaluation.statistics.seeds import arms

MUCH = 0.03
"""Share of truncated samples above which it is said."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """B against A. Differences are B - A, as shares."""

    a: str
    b: str
    benchmark: str
    n: int
    """Problems that both were asked."""
    value_a: float
    value_b: float
    difference: float
    se: float | None
    """Standard error of the difference over problems (clusters); None for a single one."""
    low: float | None
    high: float | None
    p: float | None
    test: str
    method: str
    """How the interval was made."""
    better: int
    """Problems on which B's mean is higher, ..."""
    worse: int
    """... and lower."""
    smallest: float | None
    """The true difference that such a comparison would find in 80 % of cases; None = it could find none."""
    verdict: str
    """`better`, `worse` or `not distinguishable`."""
    notes: list[str] = field(default_factory=list)
    k: int = 1
    """Samples a problem, on the side that has more."""
    runs_a: int = 1
    """Training runs on each side, ..."""
    runs_b: int = 1
    df: float | None = None
    """... and the degrees of freedom that several of them leave."""
    p_holm: float | None = None
    """p corrected for all comparisons of one call, and ..."""
    tests: int = 1
    """... how many there were. `verdict` and `smallest` go by them."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


Place = Result | str | os.PathLike[str]


def compare(a: Place | Sequence[Place], b: Place | Sequence[Place], *, anyway: bool = False) -> Comparison:
    """The paired comparison of two evaluations (folders or results), or of two arms of several training runs each.

    With several runs on a side the difference is that of the arms' means, and its error holds the spread of training seeds
    too (`statistics.seeds.arms`).

    Args:
        anyway: compare on the shared problems, and in spite of another prompt or grader; `notes` then say so.

    Raises:
        Mistake: different benchmarks; different problems, prompts or graders without `anyway`; samples missing.
    """
    left, right = _runs(a), _runs(b)
    first = left[0]
    others = [*left[1:], *right]
    samples = [_samples(one) for one in (*left, *right)]
    shared = set.intersection(*(set(found) for found in samples))
    refusals: list[str] = []
    notes: list[str] = []
    for other, found in zip(others, samples[1:], strict=True):
        where = f"{first.directory} and {other.directory}"
        if first.benchmark != other.benchmark:
            raise Mistake(f"{where}: two benchmarks ({first.benchmark}, {other.benchmark}) cannot be compared")
        if not shared:
            raise Mistake(f"{where}: they share no problem")
        wrong = _refusals(first, samples[0], other, found)
        if wrong and not anyway:
            raise Mistake(f"{where}: {'; '.join(wrong)}; compare anyway with --anyway, on the shared problems")
        refusals += wrong
        notes += [f"{name}: {x} against {y}" for name, x, y in _differences(first, other)]
        if max(first.truncated, other.truncated) > MUCH:
            cut = f"{first.truncated:.1%} against {other.truncated:.1%} of the samples"
            notes.append(f"{cut} ended at the token limit: the scores measure the limit too")
        golds = sum(samples[0][i][0]["gold"] != found[i][0]["gold"] for i in shared)
        if golds:
            notes.append(f"{golds} problems have another gold answer on each side")
    clusters = {i: samples[0][i][0].get("cluster", i) for i in shared}
    scores = [{i: [s["score"] for s in found[i]] for i in shared} for found in samples]
    titles = {"a": _arm_title(left), "b": _arm_title(right), "benchmark": first.benchmark}
    notes = list(dict.fromkeys([*refusals, *notes]))
    if len(samples) == 2:
        return Comparison(**titles, notes=notes, **paired(scores[0], scores[1], clusters))
    numbers = of_arms(scores[: len(left)], scores[len(left) :], clusters)
    return Comparison(**titles, runs_a=len(left), runs_b=len(right), notes=notes, **numbers)


def of_arms(
    a: Sequence[Mapping[str, Sequence[float]]],
    b: Sequence[Mapping[str, Sequence[float]]],
    clusters: Mapping[str, Hashable],
) -> dict[str, Any]:
    """The numbers of a `Comparison` for arms of several runs: scores by item for each run, the same items everywhere."""
    items = sorted(a[0])
    tables = [np.array([[np.mean(run[i]) for i in items] for run in side]) for side in (a, b)]
    d = tables[1].mean(axis=0) - tables[0].mean(axis=0)
    names = [clusters[i] for i in items]
    if len(set(map(str, names))) < 2:
        found, test = None, "none: one problem"
    else:
        found, test = arms(*tables, names), "none: nothing varies"
    numbers: dict[str, Any] = {
        "n": len(items),
        "value_a": float(tables[0].mean()),
        "value_b": float(tables[1].mean()),
        "difference": float(d.mean()),
        "better": int(np.sum(d > 1e-12)),
        "worse": int(np.sum(d < -1e-12)),
    }
    if found is None:
        missing = dict.fromkeys(("se", "low", "high", "p", "smallest"))
        return numbers | missing | {"test": test, "method": test, "verdict": UNCLEAR}
    k = max(len(s) for run in (*a, *b) for s in run.values())
    return numbers | {
        "se": found.se,
        "low": found.low,
        "high": found.high,
        "p": found.p,
        "test": f"t over training runs and problems, {found.df:.3g} degrees of freedom",
        "method": f"t, {len(a)} and {len(b)} training runs",
        "smallest": smallest_difference(found.se, len(items), k * max(len(a), len(b)), df=found.df),
        "k": k * max(len(a), len(b)),
        "df": found.df,
        "verdict": verdict(found.p, found.low, found.high),
    }


def _runs(side: Place | Sequence[Place]) -> list[Result]:
    places = side if isinstance(side, Sequence) and not isinstance(side, str) else [side]
    if not places:
        raise ValueError("an arm needs at least one evaluation")
    return [one if isinstance(one, Result) else Result.read(one) for one in places]


def _samples(result: Result) -> dict[str, list[dict[str, Any]]]:
    return {i: found[: result.k] for i, found in by_item(result.samples()).items()}


def _refusals(a: Result, left: Mapping[str, Any], b: Result, right: Mapping[str, Any]) -> list[str]:
    """Why the two would compare other things than their models."""
    found = []
    if left.keys() != right.keys():
        shared = len(left.keys() & right.keys())
        found.append(
            f"not the same problems ({shared} shared, {len(left) - shared} only in the first, "
            f"{len(right) - shared} only in the second)"
        )
    if a.adaptive or b.adaptive:
        found.append("problems that were chosen by the answers so far (adaptive): compare abilities")
    if a.prompt_hash != b.prompt_hash:
        found.append(f"not the same prompt ({a.prompt_style} {a.prompt_hash}, {b.prompt_style} {b.prompt_hash})")
    if a.grader != b.grader:
        where = ", ".join(name for name in sorted({*a.grader, *b.grader}) if a.grader.get(name) != b.grader.get(name))
        found.append(
            f"not the same grader ({_named(a.grader)} against {_named(b.grader)}; they differ in {where}; posttrain evaluate "
            "--regrade FOLDER judges the samples of an evaluation again)"
        )
    return found


def _differences(a: Result, b: Result) -> list[tuple[str, Any, Any]]:
    """Settings in which two evaluations differ, beside the model: the difference may be theirs."""
    pairs = [
        (f"sampling.{key}", a.sampling.get(key), b.sampling.get(key)) for key in sorted({*a.sampling, *b.sampling})
    ]
    pairs += [("samples", a.k, b.k), ("engine", a.engine, b.engine)]
    if a.dtype is not None and b.dtype is not None:
        pairs.append(("dtype", a.dtype, b.dtype))
    return [(name, x, y) for name, x, y in pairs if x != y]


def _named(grader: Mapping[str, Any]) -> str:
    """Without the packages that its version goes on to name."""
    return f"{grader.get('name')} {str(grader.get('version')).partition(',')[0]} {grader.get('code', '')}".rstrip()


def _title(result: Result) -> str:
    parts = [
        result.model,
        *([f"+ {result.adapter}"] if result.adapter else []),
        *([f"({result.when})"] if result.when else []),
    ]
    return " ".join(parts)


def _arm_title(runs: Sequence[Result]) -> str:
    names = list(dict.fromkeys(map(_title, runs)))
    return names[0] if len(runs) == 1 else f"{len(runs)} runs: {', '.join(names)}"
