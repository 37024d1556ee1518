"""From the first item to the stop: budget, error, replay, and the card's comparison with random items."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from posttrain.evaluation.adaptive.ability import estimate
from posttrain.evaluation.adaptive.loop import Rule, Session, play, replay, rescore
from posttrain.evaluation.adaptive.predict import accuracy


@pytest.fixture(scope="module")
def bank(simulate):
    return simulate.items(np.random.default_rng(0))


def answering(draw, theta, a, b):
    def ask(items):
        p = 1 / (1 + np.exp(-a[items] * (theta - b[items])))
        return (draw.random(len(items)) < p).astype(float), [1] * len(items)

    return ask


def walk(bank, theta, rule, seed=0):
    return play(Session(*bank, rule), answering(np.random.default_rng(seed), theta, *bank))


def test_the_budget_is_kept_and_no_item_asked_twice(bank):
    done = walk(bank, 0.5, Rule(items=25, batch=10))
    asked = [s.item for s in done.trace]
    assert (len(asked), len(set(asked)), done.stop) == (25, 25, "items")
    assert done.ability == estimate([s.share for s in done.trace], bank[0][asked], bank[1][asked])


def test_one_at_a_time_asks_the_best_item_each_time(bank):
    done = walk(bank, 1.0, Rule(items=15, batch=1))
    a, b = bank
    theta, used = 0.0, []
    for step in done.trace:
        s = 1 / (1 + np.exp(-a * (theta - b)))
        value = a * a * s * (1 - s)
        value[used] = -1
        assert step.item == int(np.argmax(value))
        used.append(step.item)
        theta = step.ability


def test_it_stops_at_the_error_and_at_the_end_of_the_bank(bank):
    done = walk(bank, 0.0, Rule(items=400, batch=1, se=0.25))
    assert done.stop == "se"
    assert done.ability.se < 0.25 <= done.trace[-2].se
    small = (bank[0][:7], bank[1][:7])
    assert walk(small, 0.0, Rule(items=50, batch=3)).stop == "bank"


def test_items_to_an_error_of_a_quarter_by_ability(bank):
    """The card: 45 / 15 / 10 / 15 / 36 items at -2.5 / -1 / 0 / 1 / 2.5; more where few items are."""
    counts = [
        np.mean([len(walk(bank, theta, Rule(items=200, batch=1, se=0.25), seed).trace) for seed in range(6)])
        for theta in (-2.5, -1, 0, 1, 2.5)
    ]
    assert counts[2] < counts[1] < counts[0]
    assert counts[2] < counts[3] < counts[4]
    assert counts == pytest.approx([45, 15, 10, 15, 36], rel=0.6)


def test_replay_of_recorded_answers_gives_the_same_trace(bank):
    first = walk(bank, 0.8, Rule(items=40, batch=8, se=0.2), seed=4)
    again = replay(Session(*bank, first.rule), {s.item: s.share for s in first.trace})
    assert again.trace == first.trace
    assert again.stop == first.stop
    with pytest.raises(KeyError):
        replay(Session(*bank, Rule(items=41, batch=8)), {s.item: s.share for s in first.trace[:-1]})


def test_a_trace_is_rescored_under_other_parameters(bank):
    first = walk(bank, 0.8, Rule(items=20, batch=5))
    assert [x.value for x in rescore(first.trace, *bank)] == pytest.approx([s.ability for s in first.trace], abs=1e-8)
    moved = rescore(first.trace, bank[0], bank[1] + 1)
    assert moved[-1].value > first.ability.value + 0.5


def test_samples_weigh(bank):
    ask = answering(np.random.default_rng(0), 0.5, *bank)
    once = play(Session(*bank, Rule(items=10)), ask)
    more = replay(Session(*bank, Rule(items=10)), dict.fromkeys(range(400), 0.5), dict.fromkeys(range(400), 4))
    assert more.ability.se < once.ability.se


def test_batches_cost_little(bank):
    """At 50 items, ten at once is nearly as good as one at a time."""
    thetas = np.linspace(-2, 2, 15)
    error = {
        batch: np.sqrt(
            np.mean([(walk(bank, t, Rule(50, batch), i).ability.value - t) ** 2 for i, t in enumerate(thetas)])
        )
        for batch in (1, 10)
    }
    assert error[10] < 1.3 * error[1]


def test_the_cards_table_against_random_items(bank, simulate):
    """A run of 60 checkpoints from -2.5 to 2.5, four times: total variation, monotonicity, error of the ability."""
    a, b = bank
    thetas = np.linspace(-2.5, 2.5, 60)
    rows = {}
    for budget in (10, 50):
        found = []
        for seed in range(4):
            draw = np.random.default_rng(seed)
            answers = simulate.respond(draw, thetas, a, b)
            fluid, static, shares = [], [], []
            for x in answers:
                record = dict(enumerate(x))
                fluid.append(replay(Session(a, b, Rule(budget, 1)), record).ability.value)
                pick = draw.choice(a.size, budget, replace=False)
                static.append(estimate(x[pick], a[pick], b[pick]).value)
                shares.append(x[pick].mean())
            off = [np.sqrt(np.mean((np.array(v) - thetas) ** 2)) for v in (static, fluid)]
            curves = [shares, static, fluid]
            found.append(
                [*map(simulate.variation, curves), *(abs(spearmanr(thetas, c).statistic) for c in curves), *off]
            )
        rows[budget] = np.mean(found, 0)
    for budget, published in {
        10: (11.4, 11.0, 5.0, 0.911, 0.899, 0.971, 0.657, 0.355),
        50: (5.1, 4.9, 2.9, 0.974, 0.974, 0.991, 0.341, 0.208),
    }.items():
        tv_random, tv_static, tv_fluid, mono_random, _, mono_fluid, off_static, off_fluid = rows[budget]
        assert tv_fluid < tv_random
        assert tv_fluid < tv_static
        assert mono_fluid > mono_random
        assert off_fluid < off_static
        assert rows[budget] == pytest.approx(published, rel=0.35)  # 4 repeats against the card's 20
    assert rows[50][2] < rows[10][2]


def test_the_predicted_accuracy_covers_the_measured_one(bank, simulate):
    draw = np.random.default_rng(9)
    a, b = bank
    hits, widths = [], []
    for theta in draw.normal(size=150):
        x = simulate.respond(draw, [theta], a, b)[0]
        done = replay(Session(a, b, Rule(30, 10)), dict(enumerate(x)))
        value, low, high = accuracy(done.ability, done.trace, a, b)
        assert 0 <= low <= value <= high <= 1
        hits.append(low <= x.mean() <= high)
        widths.append(high - low)
    assert 0.9 <= np.mean(hits) <= 1.0
    assert np.mean(widths) < 0.2
    everything = replay(Session(a, b, Rule(400, 100)), dict(enumerate(x)))
    assert accuracy(everything.ability, everything.trace, a, b) == pytest.approx((x.mean(),) * 3)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"items": 0}, "items: at least 1, not 0"),
        ({"batch": -2}, "batch: at least 1, not -2"),
        ({"se": 0.0}, "se: above 0, not 0"),
        ({"se": float("nan")}, "se: above 0, not nan"),
    ],
)
def test_rules_that_are_none(wrong, said):
    with pytest.raises(ValueError, match=said):
        Rule(**wrong)
