"""What the runs add up to: arms → seeds → metrics, and the verdict of each comparison, computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reproductions.arms import BY_NAME, CENTRAL, METHOD, PLAIN, SETTINGS

from posttrain.evaluation.statistics.estimates import CONFIDENCE
from posttrain.evaluation.statistics.paired import UNCLEAR, verdict
from posttrain.evaluation.statistics.seeds import arms as difference_of_arms

Measured = Mapping[str, Any]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean ± t standard errors over seeds; unknown for one."""
    import numpy as np
    from scipy import stats

    if len(values) < 2:
        return None, None
    half = (
        float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1)) * float(np.std(values, ddof=1)) / len(values) ** 0.5
    )
    return mean(values) - half, mean(values) + half


def picked(tuning: Sequence[Measured]) -> dict[str, float]:
    """For each arm the rate with the highest mean held-out score; of equals the lowest. A run that was stopped speaks for none.

    Raises:
        ValueError: all runs of an arm were.
    """
    best: dict[str, tuple[float, float]] = {}
    for one in tuning:
        if one.get("stopped"):
            continue
        arm, rate, score = one["spec"]["arm"], one["spec"]["rate"], mean(one["score"])
        best[arm] = max(best.get(arm, (float("-inf"), 0.0)), (score, -rate))
    if lost := {one["spec"]["arm"] for one in tuning} - best.keys():
        raise ValueError(f"no rate: each run of {', '.join(sorted(lost))} was stopped by an alarm")
    return {arm: -rate for arm, (_, rate) in best.items()}


def summarised(one: Measured) -> dict[str, Any]:
    """A run in a few numbers. `untimely`: share of the samples that did not end by themselves. `gap`: mean over the steps that had
    scaffolds of how much likelier they made their samples, nats a token."""
    gaps = [value for _, value in one.get("gap", [])]
    found = {
        "score": mean(one["score"]),
        "full_marks": one["full_marks"],
        "categories": one["categories"],
        "length": one["length"],
        "untimely": one["unended"],
        "score_when_shown": one["hinted"],
        "gap": mean(gaps) if gaps else None,
        "grad_norm_max": one.get("grad_norm_max"),
        "rate": one["spec"]["rate"],
        "curve": one.get("curve", []),
        "seconds": one["seconds"],
        "cpu_seconds": one["cpu_seconds"],
    }
    return found | {name: mean(one[name]) for name in ("best_8", "best_64") if name in one}


def compared(other: Sequence[Measured], method: Sequence[Measured]) -> dict[str, Any]:
    """RuscaRL less another arm, in mean held-out score, over seeds and questions (`statistics.seeds.arms`), and the same of the best
    of 64 where it was measured."""
    found = _difference([one["score"] for one in other], [one["score"] for one in method])
    if all("best_64" in one for one in (*other, *method)):
        found["best_64"] = _difference([one["best_64"] for one in other], [one["best_64"] for one in method])
    return found


def _difference(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> dict[str, Any]:
    found = difference_of_arms(a, b) if len(a) > 1 or len(b) > 1 else None
    value = mean([mean(one) for one in b]) - mean([mean(one) for one in a])
    if found is None:
        return {"difference": value, "low": None, "high": None, "p": None, "verdict": UNCLEAR}
    told = verdict(found.p, found.low, found.high)
    return {"difference": value, "low": found.low, "high": found.high, "p": found.p, "verdict": told}


def collected(runs: Sequence[Measured], bases: Sequence[Measured]) -> dict[str, Any]:
    """The record without versions and command: `arms` (setting → arm → seed → numbers), `bases`, `comparisons` (setting → arm →
    RuscaRL less that arm), `verdict` (RuscaRL against plain GRPO at the central setting)."""
    table: dict[str, dict[str, list[Measured]]] = {}
    for one in runs:
        table.setdefault(one["spec"]["setting"], {}).setdefault(one["spec"]["arm"], []).append(one)
    order = [s.name for s in SETTINGS if s.name in table]
    arms = {
        setting: {
            arm: {str(one["spec"]["seed"]): summarised(one) for one in table[setting][arm]}
            for arm in BY_NAME
            if arm in table[setting]
        }
        for setting in order
    }
    comparisons = {
        setting: {
            arm: compared(table[setting][arm], table[setting][METHOD])
            for arm in BY_NAME
            if arm != METHOD and arm in table[setting]
        }
        for setting in order
        if METHOD in table[setting]
    }
    central = comparisons.get(CENTRAL, {}).get(PLAIN)
    return {
        "arms": arms,
        "bases": {one["spec"]["setting"] + f"/{one['spec']['seed']}": summarised(one) for one in bases},
        "comparisons": comparisons,
        "verdict": UNCLEAR if central is None else central["verdict"],
    }
