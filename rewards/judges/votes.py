"""Several verdicts on one criterion, made one."""

from __future__ import annotations

from collections.abc import Sequence

from rewards.criteria.item import Verdict


def decide(votes: Sequence[Verdict]) -> tuple[Verdict, float | None]:
    """The verdict that more than half of all votes have, failed ones included, else FAILED; and the share of the votes that did
    not fail which agree with their majority (None: a single vote, or all failed).
    """
    met, unmet = votes.count(Verdict.MET), votes.count(Verdict.UNMET)
    agreement = max(met, unmet) / (met + unmet) if len(votes) > 1 and met + unmet else None
    for verdict, count in ((Verdict.MET, met), (Verdict.UNMET, unmet)):
        if 2 * count > len(votes):
            return verdict, agreement
    return Verdict.FAILED, agreement
