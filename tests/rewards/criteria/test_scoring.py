"""The score tables of the method card, and the formula against brute force."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.criteria import Criterion, Verdict, aggregate, score
from rewards.criteria.scoring import Undecided

SIGNS = {"1": Verdict.MET, "0": Verdict.UNMET, "?": Verdict.FAILED}


def scored(points, signs, *more):
    return score([Criterion(f"c{p}", float(p)) for p in points], [SIGNS[s] for s in signs], *more)


@pytest.mark.parametrize(
    ("points", "signs", "expected"),
    [
        ((3, 6, -7), "110", 1),
        ((3, 6, -7), "100", 1 / 3),
        ((3, 6, -7), "101", -4 / 9),
        ((3, 6, -7), "111", 2 / 9),
        ((3, 6, -7), "000", 0),
        ((3, 6, -7), "001", -7 / 9),
        ((1.5, 2.5, -1), "101", 0.125),
        ((7, 6, -8, -6, 9, 8, -3, 5, 5, 5), "0101010100", 13 / 45),
        ((7, 6, -8, -6, 9, 8, -3, 5, 5, 5), "1100110111", 1),
    ],
)
def test_the_published_table(points, signs, expected):
    assert scored(points, signs) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("signs", "dropped"), [("1?0", 1), ("11?", 1), ("?10", 1), ("0?1", -7 / 3)])
def test_a_failed_verdict_is_no_verdict(signs, dropped):
    assert scored((3, 6, -7), signs) is None
    assert scored((3, 6, -7), signs, "drop_criterion") == pytest.approx(dropped)
    with pytest.raises(Undecided, match="no verdict on 1 of 3 criteria, first: 'c"):
        scored((3, 6, -7), signs, "raise")


def test_without_a_decided_positive_criterion_there_is_no_score():
    assert scored((3, 6, -7), "??1", "drop_criterion") is None


def test_the_floor_is_an_option():
    assert scored((3, 6, -7), "001", "mask_row", 0.0) == 0
    assert scored((3, 6, -7), "001", "mask_row", -0.5) == -0.5
    assert scored((3, 6, -7), "110", "mask_row", 0.0) == 1


def test_the_mean_is_clipped_and_not_the_rows():
    assert aggregate([1, -7 / 9, 1 / 3]) == pytest.approx(5 / 27)  # clipping each first would give 4/9
    assert aggregate([-0.8, 0.2]) == 0
    assert aggregate([None, 0.25, None]) == 0.25
    assert aggregate([None]) is None


@given(
    st.lists(st.tuples(st.integers(-10, 10).filter(bool), st.sampled_from("10?")), min_size=1, max_size=33).filter(
        lambda r: any(p > 0 for p, _ in r)
    )
)
def test_against_exact_fractions(rubric):
    points, signs = zip(*rubric, strict=True)
    kept = [(p, s) for p, s in rubric if s != "?"]
    possible = sum(p for p, _ in kept if p > 0)
    exact = Fraction(sum(p for p, s in kept if s == "1"), possible) if possible else None
    dropped = scored(points, signs, "drop_criterion")
    assert dropped == (None if exact is None else pytest.approx(float(exact), abs=1e-12))
    assert scored(points, signs) == (None if "?" in signs else dropped)
    if exact is not None:
        assert dropped <= 1


def test_verdicts_are_counted():
    with pytest.raises(ValueError, match="3 criteria have 2 verdicts"):
        scored((3, 6, -7), "11")
