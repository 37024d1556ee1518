import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.length import cosine, soft_overlong
from rewards.runtime import Guard


def ids(*lengths):
    return [[1] * n for n in lengths]


def test_soft_overlong_equation():
    assert soft_overlong(ids(0, 80, 81, 90, 100, 101, 1000), max_length=100, cache=20) == [
        0.0,
        0.0,
        -0.05,
        -0.5,
        -1.0,
        -1.0,
        -1.0,
    ]
    assert soft_overlong(ids(100, 101), max_length=100, cache=0) == [0.0, -1.0]


@given(st.integers(1, 200), st.integers(0, 200), st.lists(st.integers(0, 400), max_size=8))
def test_soft_overlong_against_trl(max_length, cache, lengths):
    if cache > max_length:
        with pytest.raises(ValueError, match="cache"):
            soft_overlong(ids(*lengths), max_length=max_length, cache=cache)
        return
    theirs = pytest.importorskip("trl.rewards").get_soft_overlong_punishment(max_length, cache)
    assert soft_overlong(ids(*lengths), max_length=max_length, cache=cache) == pytest.approx(theirs(ids(*lengths)))


TEXTS = [r"$\boxed{\frac{1}{3}}$", r"$\boxed{\frac{1}{2}}$"]
GOLDS = [r"$\frac{1}{3}$"] * 2


@pytest.mark.parametrize("lengths", [(0, 0), (50, 50), (13, 77), (100, 100), (101, 5000)])
def test_cosine_against_trl(lengths):
    theirs = pytest.importorskip("trl.rewards").get_cosine_scaled_reward(100, -2.0, -0.25, 0.1, 1.5)
    ours = cosine(
        TEXTS, ids(*lengths), GOLDS, max_length=100, min_wrong=-2.0, max_wrong=-0.25, min_correct=0.1, max_correct=1.5
    )
    assert ours == pytest.approx(theirs([[{"content": t}] for t in TEXTS], GOLDS, ids(*lengths)))


def test_cosine_closed_form():
    right, wrong = cosine(TEXTS, ids(25, 25), GOLDS, max_length=100)
    assert right == pytest.approx(0.5 + 0.25 * (1 + math.cos(math.pi / 4)))
    assert wrong == pytest.approx(-0.5 - 0.25 * (1 + math.cos(math.pi / 4)))
    assert cosine(TEXTS, ids(0, 100), GOLDS, max_length=100) == pytest.approx([1.0, -0.5])


def test_cosine_beyond_the_limit():
    assert cosine(TEXTS, ids(100, 99), GOLDS, max_length=100, overlong=-10)[0] == -10.0
    assert cosine(TEXTS, ids(99, 100), GOLDS, max_length=100, overlong=-10)[1] == -10.0


def test_cosine_without_a_gold_is_not_judged():
    assert cosine(TEXTS, ids(1, 1), [None, "1/2"], max_length=10)[0] is None
    with pytest.raises(ValueError, match="max_length"):
        cosine(TEXTS, ids(1, 1), GOLDS, max_length=0)


def test_missing_settings_are_named():
    (fault,) = Guard(soft_overlong).score(["p"], ["c"], [[1]], {}).faults
    assert "needs max_length, cache" in fault.text
