"""What the result of an adaptive evaluation holds, and whether one that is there is this one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from posttrain.errors import Mistake
from posttrain.evaluation.adaptive.ability import BOUNDS
from posttrain.evaluation.adaptive.bank import Pool
from posttrain.evaluation.adaptive.heldout import widening
from posttrain.evaluation.adaptive.loop import Rule, Session
from posttrain.evaluation.adaptive.predict import accuracy
from posttrain.evaluation.results import Result
from posttrain.evaluation.statistics.estimates import CONFIDENCE

UNKNOWN = 0.2
"""Share of asked items that no calibration model solved above which a note says that the bank is too weak."""


def doubts(session: Session, known: Pool) -> list[str]:
    """Notes: where the bank's models are too weak or too strong to say much of this one."""
    said = []
    low, high = BOUNDS
    if not low < session.ability.value < high:
        said.append(
            f"the ability is at the end of the scale ({session.ability.value:+.0f}): the bank has no items for it"
        )
    shares = {step.share for step in session.trace}
    if shares in ({0.0}, {1.0}):
        which, side = ("none", "below") if shares == {0.0} else ("all", "above")
        said.append(
            f"{which} of the asked answers were right: the model is {side} what the bank's items can place, and ability and "
            "predicted accuracy are only bounds, drawn towards the bank's middle"
        )
    if not known.bank.held_out:
        said.append(
            "the interval of the predicted accuracy believes the item model and is too narrow: the bank has no models held out"
        )
    never = sum(known.items[step.item].solved == 0 for step in session.trace)
    if never > UNKNOWN * len(session.trace):
        said.append(
            f"{never} of the asked items were solved by no model of the bank, so how hard they are is not known; fit it anew "
            "with stronger models"
        )
    return said


def block(session: Session, known: Pool, rule: Rule, file: Path) -> dict[str, Any]:
    """`Result.adaptive` of a session that has ended; its keys are told at `run.evaluate_adaptive`."""
    widen = widening(known.bank.held_out, len(session.trace))
    value, low, high = accuracy(session.ability, session.trace, known.a, known.b, CONFIDENCE, widen)
    return {
        "ability": session.ability.value,
        "se": session.ability.se,
        "items": len(session.trace),
        "of": len(known.items),
        "predicted": {
            "value": value,
            "low": low,
            "high": high,
            "se": (high - low) / (2 * 1.959964),  # of the half-width, as if it were symmetric
            "method": f"predicted by the item model from {len(session.trace)} of {len(known.items)} items"
            + (f", interval x {widen:.1f}" if widen > 1 else ""),
        },
        "widened": widen,
        "asked_right": sum(step.share for step in session.trace) / len(session.trace),
        "stop": session.stop,
        "rule": {"items": rule.items, "batch": rule.batch, "se": rule.se},
        "bank": {
            "file": str(file),
            "digest": known.bank.digest,
            "models": len(known.bank.models),
            "date": known.bank.fit.get("date"),
        },
        "trace": [
            {
                "item": known.items[step.item].id,
                "score": step.share,
                "samples": step.samples,
                "ability": step.ability,
                "se": step.se,
            }
            for step in session.trace
        ],
    }


def finished(folder: Path, digest: str, known: Pool, rule: Rule, samples: int, of: int) -> Result | None:
    """The result that is there, if it is of this very evaluation and all its samples are there too."""
    try:
        found = Result.read(folder)
        told = found.adaptive or {}
        same = (
            (found.settings, found.k) == (digest, samples)
            and told["bank"]["digest"] == known.bank.digest
            and told["of"] == of
            and told["rule"] == {"items": rule.items, "batch": rule.batch, "se": rule.se}
        )
        have = {
            (line["item_id"], line["sample"]): line["gold"]
            for line in found.samples()
            if line.get("settings") == digest
        }
        golds = {problem.item_id: problem.gold for problem in known.problems}
        whole = all(have[step["item"], j] == golds[step["item"]] for step in told["trace"] for j in range(samples))
    except (Mistake, KeyError, TypeError):
        return None
    return found if same and whole else None
