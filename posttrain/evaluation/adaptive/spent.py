"""What the chosen items took, and what all items of the bank would have taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from posttrain.evaluation.adaptive.bank import Pool
from posttrain.evaluation.adaptive.loop import Session
from posttrain.evaluation.adaptive.model import chance


def cost_of_chosen(block: Mapping[str, Any], of_full: Mapping[str, Any]) -> dict[str, Any]:
    """The cost block (`cost.block`) of chosen items with `of_full` beside it; without a cost per right answer, since half of
    the chosen items are right whatever the model."""
    return {**block, "per_correct": dict.fromkeys(block["per_correct"]), "of_full": dict(of_full)}


def of_full(session: Session, known: Pool, lines: Sequence[Mapping[str, Any]], samples: int) -> dict[str, Any]:
    """Tokens of an evaluation of all items of the bank, as far as the asked ones say.

    Items that were not asked are expected to take as many output tokens as the asked ones did: those that were right with
    the chance of a right answer, those that were not with the rest (right answers are mostly shorter, and chosen items are
    harder or easier than all). Prompts are taken to be as long as those of the asked items.

    Args:
        lines: all samples of the asked items.

    Returns:
        `items` in the bank, `output` and `total` tokens (total with prompts) expected for all of them, `share` of that total
        which was spent.
    """
    right = [line["completion_tokens"] for line in lines if line["score"] == 1]
    wrong = [line["completion_tokens"] for line in lines if line["score"] != 1]
    if_right, if_wrong = (float(np.mean(tokens or [*right, *wrong])) for tokens in (right, wrong))
    left = np.ones(len(known.items), dtype=bool)
    left[[step.item for step in session.trace]] = False
    p = chance(session.ability.value, known.a[left], known.b[left])
    spent = sum(right) + sum(wrong)
    prompts = sum(line["prompt_tokens"] for line in lines)
    output = spent + samples * float(np.sum(p * if_right + (1 - p) * if_wrong))
    total = output + prompts * len(known.items) / len(session.trace)
    return {
        "items": len(known.items),
        "output": round(output),
        "total": round(total),
        "share": (spent + prompts) / total,
    }
