"""Intervals of predicted accuracies hold as often as they say, also where the item model alone is far too sure."""

import numpy as np
import pytest

from posttrain.evaluation.adaptive.bank import HeldOut
from posttrain.evaluation.adaptive.fit import fit
from posttrain.evaluation.adaptive.heldout import BUDGETS, FEWEST, held_out, widening
from posttrain.evaluation.adaptive.loop import Rule, Session, replay
from posttrain.evaluation.adaptive.predict import accuracy


def hits(bank, measured, answers, budget):
    """Of each model: is its accuracy in the item model's interval, in the widened one?"""
    found = []
    for x in answers:
        done = replay(Session(bank.a, bank.b, Rule(budget, 10)), dict(enumerate(x)))
        bounds = [
            accuracy(done.ability, done.trace, bank.a, bank.b, widen=widen)[1:]
            for widen in (1.0, widening(measured, budget))
        ]
        found.append([low <= x.mean() <= high for low, high in bounds])
    return np.mean(found, 0)


def leaning(draw, theta, a, b, strength):
    """Answers of models that are each better at some kind of item than their ability says (2PL with a second dimension)."""
    kind = draw.normal(size=a.size)
    own = strength * draw.normal(size=theta.size)
    p = 1 / (1 + np.exp(-a * (theta[:, None] - b) - own[:, None] * kind))
    return (draw.random(p.shape) < p).astype(float)


def test_coverage_where_the_items_that_look_sharpest_are_chance():
    """Forty models × 600 items that are all equally sharp: choosing by the estimated a picks those it was overestimated for."""
    plain, wide = [], []
    for seed in range(3):
        draw = np.random.default_rng(seed)
        a, b = np.ones(600), draw.normal(0, 2, 600)
        known, others = (
            (draw.random((40, 600)) < 1 / (1 + np.exp(-a * (2 * draw.normal(size=(40, 1)) - b)))).astype(float)
            for _ in range(2)
        )
        found = hits(fit(known), held_out(known, np.ones_like(known)), others, 50)
        plain.append(found[0])
        wide.append(found[1])
    assert np.mean(plain) < 0.85
    assert np.mean(wide) >= 0.92


def test_coverage_of_models_that_one_ability_does_not_describe(simulate):
    plain, wide = [], []
    for seed in range(3):
        draw = np.random.default_rng(10 + seed)
        a, b = simulate.items(draw, 300)
        answers = leaning(draw, draw.normal(size=120), a, b, 1.5)
        known, others = answers[:60], answers[60:]
        found = hits(fit(known), held_out(known, np.ones_like(known)), others, 50)
        plain.append(found[0])
        wide.append(found[1])
    assert np.mean(plain) < 0.9
    assert np.mean(wide) >= 0.92


def test_where_the_item_model_is_right_and_well_known_little_is_added(simulate):
    draw = np.random.default_rng(1)
    a, b = simulate.items(draw, 150)
    answers = simulate.respond(draw, draw.normal(size=200), a, b)
    measured = held_out(answers, np.ones_like(answers))
    assert [one.items for one in measured] == [10, 20, 50, 100]
    assert all(len(one.misses) == 200 and one.misses == sorted(one.misses) for one in measured)
    assert all(1 <= widening(measured, n) < 1.35 for n in (5, 10, 30, 100, 150))


def test_what_a_model_answered_does_not_change_the_bank_that_judges_it(simulate):
    """Turning one model's answers round moves its own miss; of the others it may move only those of other folds."""
    draw = np.random.default_rng(2)
    answers = simulate.respond(draw, draw.normal(size=20), *simulate.items(draw, 60))
    seen = []

    def spy(table):
        seen.clear()
        held_out(table, np.ones_like(table), tick=seen.append)
        return sorted(m for one in held_out(table, np.ones_like(table)) for m in one.misses)

    before = spy(answers)
    assert seen == [1, 2, 3, 4, 5]
    turned = answers.copy()
    first = np.random.default_rng(0).permutation(20)[0]
    turned[first] = 1 - turned[first]
    same = set(before) & set(spy(turned))
    assert len(same) >= 3 * 3  # the three others of its fold, after 10, 20 and 50 items
    assert len(same) < len(before)


def test_missing_answers_and_shares():
    draw = np.random.default_rng(3)
    shares = draw.integers(0, 5, (12, 40)) / 4
    shares[draw.random(shares.shape) < 0.3] = np.nan
    shares[0, 12:] = np.nan  # one model that answered hardly any
    found = held_out(shares, np.full(shares.shape, 4.0))
    assert [one.items for one in found] == [10, 20]
    assert [len(one.misses) for one in found] == [12, 11] or [len(one.misses) for one in found] == [11, 11]


def test_too_little_to_measure():
    assert held_out(np.eye(FEWEST - 1), np.ones((FEWEST - 1, FEWEST - 1))) == []
    alike = np.ones((10, 30))
    assert held_out(alike, np.ones_like(alike)) == []
    assert widening([], 50) == 1.0


def test_the_factor_is_the_conformal_quantile_between_budgets_on_logarithms():
    many = list(np.linspace(0, 2, 39))  # the 38th of 39 holds 95 %
    measured = [HeldOut(items=10, misses=many), HeldOut(items=1000, misses=[3 * m for m in many])]
    assert widening(measured, 10) == pytest.approx(many[37])
    assert widening(measured, 100) == pytest.approx(2 * many[37])
    assert widening(measured, 5000) == pytest.approx(3 * many[37])
    assert widening([HeldOut(items=10, misses=[0.1] * 30)], 50) == 1.0, "never narrower than the item model's"
    assert widening([HeldOut(items=10, misses=[0.1, 0.2, 2.5])], 50) == 2.5, "the largest, of too few"


def test_budgets_are_whole_batches():
    from posttrain.evaluation.adaptive.loop import BATCH

    assert all(budget % BATCH == 0 for budget in BUDGETS)
