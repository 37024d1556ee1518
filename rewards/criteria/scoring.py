"""What the verdicts on a rubric come to.

score = earned points / sum of the positive points, over the whole rubric (RuscaRL, arXiv 2508.16949, Algorithm; HealthBench's
rule). It is at most 1, has no lower bound, and is left as it is in training: clipping each answer at 0 would make bad and worse
equal. Only the mean over rows is clipped, and only where it is reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import fsum
from typing import Literal

from rewards.criteria.item import Criterion, Verdict

OnError = Literal["mask_row", "drop_criterion", "raise"]


class Undecided(ValueError):
    """A criterion has no verdict and `on_error` is `raise`; one line."""


def score(
    criteria: Sequence[Criterion],
    verdicts: Sequence[Verdict],
    on_error: OnError = "mask_row",
    floor: float | None = None,
) -> float | None:
    """The score of one answer; None = not judged.

    Args:
        criteria: n criteria.
        verdicts: one a criterion, in order.
        on_error: what a FAILED verdict does (ours; the release counts it as not met): `mask_row` gives None for the answer,
            `drop_criterion` leaves the criterion out of both sums (None if no positive one is left), `raise` raises.
        floor: the least score; None = none, as in the paper. A later state of the released code has 0 as an option.

    Raises:
        Undecided: a verdict FAILED and `on_error` is `raise`.
        ValueError: not one verdict a criterion.
    """
    if len(criteria) != len(verdicts):
        raise ValueError(f"{len(criteria)} criteria have {len(verdicts)} verdicts; each needs one")
    pairs = list(zip(criteria, verdicts, strict=True))
    failed = [c for c, v in pairs if v is Verdict.FAILED]
    if failed:
        if on_error == "raise":
            raise Undecided(f"no verdict on {len(failed)} of {len(pairs)} criteria, first: {failed[0].text[:80]!r}")
        if on_error == "mask_row":
            return None
        pairs = [(c, v) for c, v in pairs if v is not Verdict.FAILED]
    possible = fsum(c.points for c, _ in pairs if c.points > 0)
    if possible <= 0:
        return None
    found = fsum(c.points for c, v in pairs if v is Verdict.MET) / possible
    return found if floor is None else max(floor, found)


def aggregate(scores: Iterable[float | None]) -> float | None:
    """Mean of the rows that were judged, then clipped to [0, 1] (HealthBench's order of the two); None without any."""
    judged = [s for s in scores if s is not None]
    return min(1.0, max(0.0, fsum(judged) / len(judged))) if judged else None
