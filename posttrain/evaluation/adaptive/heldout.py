"""How far predicted accuracies are off for models that a bank has not seen, measured on its own models.

The item model's interval knows the error of the ability and the luck of the answers not given. It does not know that the
items' parameters were estimated (choosing the largest of estimated discriminations favours the overestimated ones), nor that
a model may have strengths of its own. So the bank's models are divided into folds; each is judged by a bank fitted to the
other folds, and where its accuracy lay is noted in half-widths of the interval that it was given. The (1 + m) · 0.95 smallest of
these misses is what later intervals are multiplied by: split conformal prediction over models (Lei et al., arXiv 1604.04173;
folds: Barber et al., arXiv 1905.02928), right for a model that is exchangeable with the bank's. Nothing of it is in
arXiv 2509.11106, which takes item parameters as known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from posttrain.evaluation.adaptive.ability import Ability
from posttrain.evaluation.adaptive.bank import HeldOut
from posttrain.evaluation.adaptive.fit import Settings, fit
from posttrain.evaluation.adaptive.loop import BATCH, Rule, Session, replay
from posttrain.evaluation.adaptive.model import Floats
from posttrain.evaluation.adaptive.predict import sides
from posttrain.evaluation.statistics.conformal import conformal_quantile
from posttrain.evaluation.statistics.estimates import CONFIDENCE

BUDGETS = (10, 20, 50, 100, 200)
"""Chosen items after which a miss is noted: multiples of the batch, so that one session holds the shorter ones."""
FOLDS = 5
FEWEST = 5
"""Of fewer models none is held out."""
ENOUGH = 19
"""Fewer misses than this hold no 95 % for certain, whatever the interval."""


def held_out(
    shares: Floats,
    samples: Floats,
    settings: Settings | None = None,
    tick: Callable[[int], None] = lambda done: None,
) -> list[HeldOut]:
    """Misses of the models of a table, each judged by a bank that has not seen it; a list for each budget that some can spend.

    Args:
        shares: share of right answers, (m, n); nan = not asked.
        samples: samples behind each share, (m, n).
        tick: called with how many of the `FOLDS` fits are done.

    Returns:
        Nothing for fewer than `FEWEST` models, or where a fold's other models cannot be fitted.
    """
    m = len(shares)
    if m < FEWEST:
        return []
    order = np.random.default_rng(0).permutation(m)
    found: dict[int, list[float]] = {budget: [] for budget in BUDGETS}
    for fold in range(FOLDS):
        judged = order[fold::FOLDS]
        others = np.delete(shares, judged, axis=0)
        known = np.flatnonzero(~np.isnan(others).all(axis=0))
        try:
            bank = fit(others[:, known], np.delete(samples, judged, axis=0)[:, known], settings)
        except ValueError:  # models that answered alike, or none that answered anything
            return []
        tick(fold + 1)
        for i in judged:
            here = np.flatnonzero(~np.isnan(shares[i, known]))
            for budget, miss in _misses(bank.a[here], bank.b[here], shares[i, known[here]], samples[i, known[here]]):
                found[budget].append(miss)
    return [HeldOut(items=budget, misses=sorted(values)) for budget, values in found.items() if len(values) >= FEWEST]


def _misses(a: Floats, b: Floats, shares: Floats, samples: Floats) -> Iterator[tuple[int, float]]:
    """One model's: budget, and |accuracy - predicted| in half-widths of the item model's interval on that side."""
    budgets = [budget for budget in BUDGETS if budget < a.size]
    if not budgets:
        return
    answers, counts = dict(enumerate(shares.tolist())), dict(enumerate(samples.astype(int).tolist()))
    trace = replay(Session(a, b, Rule(max(budgets), BATCH)), answers, counts).trace
    for budget in budgets:
        last = trace[budget - 1]
        value, below, above = sides(Ability(last.ability, last.se), trace[:budget], a, b, CONFIDENCE)
        off = float(shares.mean()) - value
        if (side := above if off > 0 else below) > 0:
            yield budget, abs(off) / side


def widening(measured: Sequence[HeldOut], items: int) -> float:
    """What the half-widths of an interval after `items` chosen items are multiplied by, at least 1.

    Between two budgets it is interpolated over the logarithm of the number of items. With fewer than 19 models no multiple is
    known to hold 95 %; then it is the largest miss that was seen.
    """
    if not measured:
        return 1.0
    ordered = sorted(measured, key=lambda one: one.items)
    factors = [_factor(one.misses) for one in ordered]
    return float(np.interp(math.log(items), [math.log(one.items) for one in ordered], factors))


def _factor(misses: Sequence[float]) -> float:
    wanted = conformal_quantile(misses, CONFIDENCE)
    return max(1.0, wanted if math.isfinite(wanted) else max(misses))
