"""Recovery of what made the answers."""

import numpy as np
import pytest

from posttrain.evaluation.adaptive.fit import Settings, fit, objective


def worlds(simulate, seed, models=100):
    draw = np.random.default_rng(seed)
    theta, (a, b) = draw.normal(size=models), simulate.items(draw)
    return theta, a, b, simulate.respond(draw, theta, a, b), draw


def agreement(found, theta, a, b):
    return [np.corrcoef(x, y)[0, 1] for x, y in ((theta, found.ability), (b, found.b), (np.log(a), np.log(found.a)))]


def test_the_cards_recovery(simulate):
    """0.992, 0.946 and 0.828 for one simulated set of 100 models × 400 items; here the mean of six such sets."""
    agreements = []
    for seed in range(6):
        theta, a, b, answers, _ = worlds(simulate, seed)
        found = fit(answers)
        assert found.converged
        assert found.ability.mean() == pytest.approx(0, abs=1e-9)
        assert found.ability.std() == pytest.approx(1)
        assert np.all(found.a > 0)
        agreements.append(agreement(found, theta, a, b))
    assert np.mean(agreements, 0) == pytest.approx([0.992, 0.946, 0.828], abs=0.02)
    assert np.all(np.std(agreements, 0) < [0.003, 0.01, 0.04])


def test_missing_answers_cost_a_little_and_no_more(simulate):
    theta, a, b, answers, draw = worlds(simulate, 11)
    holes = np.where(draw.random(answers.shape) < 0.4, np.nan, answers)
    whole, holed = agreement(fit(answers), theta, a, b), agreement(fit(holes), theta, a, b)
    assert holed[0] > 0.97
    assert np.all(np.array(holed) > np.array(whole) - 0.15)
    assert np.all(np.array(holed[1:]) < np.array(whole[1:]))


def test_an_answer_of_k_samples_is_k_answers():
    """The binomial likelihood of shares has its optimum where that of the single answers has."""
    draw = np.random.default_rng(2)
    single = (draw.random((6, 9, 4)) < 0.5).astype(float)
    shares = single.mean(2)
    x = draw.normal(size=6 + 18)
    loose = Settings(1e6, 1e6, 1e6)
    one = objective(x, shares, np.full(shares.shape, 4.0), loose)
    flat = [objective(x, single[:, :, j], np.ones(shares.shape), loose) for j in range(4)]
    assert one[0] == pytest.approx(np.mean([f[0] for f in flat]))
    assert one[1] == pytest.approx(np.mean([f[1] for f in flat], 0))


def test_more_samples_a_share_tell_more(simulate):
    draw = np.random.default_rng(5)
    theta, (a, b) = draw.normal(size=60), simulate.items(draw, 200)
    once = simulate.respond(draw, theta, a, b)
    often = np.mean([simulate.respond(draw, theta, a, b) for _ in range(8)], 0)
    few, many = agreement(fit(once), theta, a, b), agreement(fit(often, 8), theta, a, b)
    assert many[1] > few[1]
    assert many[2] > few[2] + 0.05


def test_items_nobody_or_everybody_solved_stay_finite(simulate):
    *_, answers, _ = worlds(simulate, 3, models=30)
    answers[:, 0], answers[:, 1] = 0, 1
    found = fit(answers)
    assert found.converged
    assert found.b[0] > found.b[2:].max() - 2
    assert found.b[1] < found.b[2:].min() + 2
    assert np.all(np.isfinite([found.a, found.b]))


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([[1, 0]], "at least 2 models"),
        ([[1, 2], [0, 1]], "between 0 and 1"),
        ([[1, np.nan], [0, np.nan]], "every model and every item"),
        ([[1, 0], [1, 0], [1, 0]], "same ability"),
    ],
)
def test_responses_that_cannot_be_fitted(answers, said):
    with pytest.raises(ValueError, match=said):
        fit(answers)
