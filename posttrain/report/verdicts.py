"""The paired comparison of a run's first and last evaluation of a benchmark, in words."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from posttrain.errors import Mistake
from posttrain.report.run import Evaluation
from posttrain.report.samples import Samples


@dataclass
class Words:
    """What can be said about two evaluations of a benchmark."""

    short: str
    """One line, for the head of the page; empty if nothing paired can be said."""
    long: list[str]
    """Sentences."""
    tone: str
    """`good`, `bad` or `plain`."""
    notes: list[str] = field(default_factory=list)
    """Settings in which the two differ, beside the weights."""


def compare(root: Path, before: Evaluation, after: Evaluation, samples: dict[str, Samples]) -> Words:
    """The paired test (`posttrain.evaluation.compare`) on what is kept of the samples; or why there is none."""
    from posttrain.evaluation.compare import compare as test

    try:
        sides = [_light(root / e.folder, samples.get(e.folder, Samples())) for e in (before, after)]
        found = test(*sides)
    except Mistake as error:
        why = str(error).replace(f"{root}/", "").partition("; compare anyway")[0]
        return Words("", [f"No paired comparison: {why}."], "plain")
    except (
        ValueError,
        TypeError,
        KeyError,
        OverflowError,
        ArithmeticError,
    ) as error:  # a result that no evaluation wrote
        return Words("", [f"No paired comparison: {type(error).__name__} in the results."], "plain")
    return words(found)


def _light(folder: Path, samples: Samples) -> Any:
    """A `Result` whose samples are those in memory, without their texts."""
    from posttrain.evaluation.results import Result

    class Light(Result):
        def samples(self) -> list[dict[str, Any]]:
            return samples.kept

    if not samples.kept:
        raise Mistake(f"{folder.name} has no samples")
    if samples.cut:
        raise Mistake(f"{folder.name} has more samples than the page reads; posttrain compare reads them all")
    read = Result.read(folder)
    return Light(**{f.name: getattr(read, f.name) for f in fields(Result)})


def words(found: Any) -> Words:
    """Sentences for a `Comparison`."""
    span = "" if found.low is None or found.high is None else f" [{_points(found.low)}, {_points(found.high)}]"
    size = f"{found.n:,} problem{'s' if found.n > 1 else ''}"
    equal = found.n - found.better - found.worse
    apart = (
        f"The difference over the same {size} is {_points(found.difference)} points{span and f', 95 % interval{span}'}. "
        f"{found.better:,} problem{'s' if found.better != 1 else ''} better, {found.worse:,} worse, {equal:,} equal"
        + (f"; p {_p(found.p)} ({found.test})." if found.p is not None else f"; no test: {found.test}.")
    )
    least = found.smallest
    if least is None:
        seen = "So few problems could not have shown any difference."
    else:
        seen = (
            f"The smallest true difference that such a comparison finds in 80 % of cases is {100 * least:.1f} points"
            + (": smaller ones it cannot see." if found.verdict.startswith("not") else ".")
        )
    change = f"{100 * abs(found.difference):.1f} points"
    if found.verdict in ("better", "worse"):
        head = f"{found.verdict} by {change}{span}, paired over {size}"
        return Words(
            head,
            [f"{found.verdict.capitalize()}.", apart, seen],
            "good" if found.verdict == "better" else "bad",
            found.notes,
        )
    way = "no change" if found.difference == 0 else f"{'up' if found.difference > 0 else 'down'} by {change}"
    could = f"; it could have seen {100 * least:.1f} points" if least is not None else ""
    return Words(
        f"not distinguishable: {way}{span}, paired over {size}{could}",
        ["Not distinguishable.", apart, seen],
        "plain",
        found.notes,
    )


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")


def _p(p: float) -> str:
    return f"= {p:.2g}" if p >= 1e-4 else "< 0.0001"
