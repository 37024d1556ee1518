"""Answer classes against exact arithmetic, and votes among few samples against every subset of them."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.evaluation.statistics.curves import maj_at
from posttrain.evaluation.statistics.estimates import majority
from posttrain.evaluation.votes import RIGHT, Vote, classes
from rewards.grading import grade

VALUES = {
    "1/2": Fraction(1, 2), "0.5": Fraction(1, 2), "\\frac{1}{2}": Fraction(1, 2), "\\frac{2}{4}": Fraction(1, 2),
    "3": Fraction(3), "3.0": Fraction(3), "\\frac{6}{2}": Fraction(3), "7": Fraction(7), " 7 ": Fraction(7),
    "1/3": Fraction(1, 3), None: None,
}  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=7), min_size=1, max_size=3))
def test_a_vote_among_any_number_of_samples_is_that_of_exact_classes(problems):
    for gold in (Fraction(1, 2), Fraction(9)):
        ballots = [[Vote(a, VALUES[a] == gold and a is not None) for a in answers] for answers in problems]
        for answers, votes, named in zip(problems, ballots, classes(ballots), strict=True):
            scores = [float(v.right) for v in votes]
            exact = [VALUES[a] for a in answers]
            assert [n is None for n in named] == [a is None for a in answers]
            assert [n == RIGHT for n in named] == [v.right for v in votes]
            if any(scores):  # the very partition, not only its largest class
                for i, j in itertools.combinations(range(len(named)), 2):
                    assert (named[i] == named[j]) == (exact[i] == exact[j])
            for n in range(1, len(named) + 1):
                every = [
                    majority([scores[i] for i in s], [exact[i] for i in s])
                    for s in itertools.combinations(range(len(named)), n)
                ]
                assert maj_at(named, scores, n) == pytest.approx(np.mean(every), abs=1e-12)


def test_what_matters_among_few_is_sorted_where_it_does_not_matter_among_all():
    """Six right of nine: nothing can outvote them, but among three samples 1/2 and 0.5 together can."""
    answers = ["4"] * 6 + ["1/2", "0.5", "\\frac12"]
    named = classes([[Vote(a, a == "4") for a in answers]])[0]
    assert len(set(named)) == 2
    right = [1.0] * 6 + [0.0] * 3
    # two or three right of three: (C(6,2) C(3,1) + C(6,3)) / C(9,3)
    assert maj_at(named, right, 3) == pytest.approx((45 + 20) / 84)
    # the three as answers of their own would tie with the one right of three, and share the point
    assert maj_at(answers, right, 3) == pytest.approx((45 + 20 + 6 * 3 / 3) / 84)


def test_answers_that_equal_a_third_are_one_class_in_any_order():
    """The grader takes 10 cm for 10, and 10 for 10 m, but not 10 cm for 10 m."""
    units = ["10 \\text{ cm}", "10", "10 \\text{ m}"]
    assert not grade(units[0], f"\\boxed{{{units[2]}}}").right
    assert grade(units[0], f"\\boxed{{{units[1]}}}").right
    for order in itertools.permutations(units):
        (named,) = classes([[Vote("4", True), *(Vote(text, False) for text in order)]])
        assert len(set(named[1:])) == 1


def test_either_direction_counts():
    """As gold, 5 is given by x = 5; an answer of 5 where x = 5 is the gold may be judged otherwise."""
    for order in (["x=5", "5"], ["5", "x=5"]):
        (named,) = classes([[Vote("4", True), *(Vote(text, False) for text in order)]])
        assert named[1] == named[2]


def test_a_problem_without_a_right_answer_asks_nothing(monkeypatch):
    asked = []
    monkeypatch.setattr("posttrain.evaluation.votes.grade_many", lambda pairs: asked.extend(pairs) or [])
    (named,) = classes([[Vote("1/2", False), Vote("0.5", False), Vote(None, False)]])
    assert not asked
    assert named[2] is None
    assert all(maj_at(named, [0.0] * 3, n) == 0 for n in (1, 2, 3))


def test_texts_on_which_the_grader_ends_in_no_time_are_left_alone(monkeypatch):
    """A bomb beside eleven others costs its two strikes, not a deadline for each of them."""
    from posttrain.evaluation import votes
    from rewards.grading import Judgement, Verdict, grade_many

    late = []

    def graded(pairs):
        pairs = list(pairs)
        plain = [p for p in pairs if "bomb" not in p[0] + p[1]]
        late.extend(p for p in pairs if p not in plain)
        known = iter(grade_many(plain))
        return [next(known) if p in plain else Verdict(Judgement.TIMEOUT) for p in pairs]

    monkeypatch.setattr(votes, "grade_many", graded)
    others = [f"\\sqrt{{{n}}}" for n in (2, 3, 5, 7, 8, 11)]
    answers = [*others[:3], "bomb", *others[3:], "2\\sqrt2"]
    (named,) = classes([[Vote("4", True), *(Vote(text, False) for text in answers)]])
    assert len(late) == 2
    assert named[1 + answers.index("2\\sqrt2")] == named[1 + answers.index("\\sqrt{8}")]
    assert len(set(named)) == len(answers)


def test_a_wrong_answer_that_reads_right_is_no_right_one():
    (named,) = classes([[Vote("right", False), Vote("1", True), Vote("right", False)]])
    assert named[0] == named[2] != named[1]
