"""Answer classes against exact arithmetic: merging only where it matters changes no majority."""

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.evaluation.statistics.estimates import majority
from posttrain.evaluation.votes import RIGHT, Vote, classes

VALUES = {
    "1/2": Fraction(1, 2), "0.5": Fraction(1, 2), "\\frac{1}{2}": Fraction(1, 2), "\\frac{2}{4}": Fraction(1, 2),
    "3": Fraction(3), "3.0": Fraction(3), "\\frac{6}{2}": Fraction(3), "7": Fraction(7), " 7 ": Fraction(7),
    "1/3": Fraction(1, 3), None: None,
}  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=9), min_size=1, max_size=4))
def test_majorities_are_those_of_exact_classes(problems):
    for gold in (Fraction(1, 2), Fraction(9)):
        ballots = [[Vote(a, VALUES[a] == gold and a is not None) for a in answers] for answers in problems]
        for answers, votes, named in zip(problems, ballots, classes(ballots), strict=True):
            scores = [float(v.right) for v in votes]
            exact = [VALUES[a] for a in answers]
            assert majority(scores, named) == majority(scores, exact)
            assert [n is None for n in named] == [a is None for a in answers]
            assert [n == RIGHT for n in named] == [v.right for v in votes]


def test_a_wrong_answer_that_reads_right_is_no_right_one():
    (named,) = classes([[Vote("right", False), Vote("1", True), Vote("right", False)]])
    assert named[0] == named[2] != named[1]
