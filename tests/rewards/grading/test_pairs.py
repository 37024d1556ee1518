"""No two different golds of one benchmark grade as equal, unless they are: all pairs of each, in both directions."""

import signal
from itertools import chain, combinations, product

import pytest

from rewards.grading import gold_text
from rewards.grading.equal import equal
from rewards.grading.extract import extract_gold
from rewards.grading.normalise import normal, plain_number

pytestmark = pytest.mark.slow

ALIKE = {
    "aime24": set(),
    "amc23": set(),
    "math500": {
        ("(-2,1)", "-2,1"), ("-2,1", "1,-2"), ("10,\\!080", "10080"), ("120", "120^\\circ"), ("15", "15\\mbox{ cm}^2"), ("180^\\circ", "\\pi"),
        ("2 \\sqrt{5}", "2\\sqrt{5}"), ("30", "30^\\circ"), ("36", "36^\\circ"), ("36", "\\$36"), ("5", "x=5"),
        ("90", "90^\\circ"), ("\\frac14", "\\frac{1}{4}"),
    },
    "minerva_math": {("+2", "2")},
    "olympiadbench": {
        ("1", "f(x)=1"), ("1", "k=1"), ("1/3", "\\frac{1}{3}"), ("2 n", "2n"), ("2,3,4", "2,4,3"), ("3", "k=3"),
        ("8", "8 \\%"), ("4", "4^{\\circ}"), ("45", "45^{\\circ}"), ("44", "44^{\\circ}"),
    },
}  # fmt: skip
"""The pairs that do, looked at one by one: another way to write the same, a unit or a name left out."""


class _Late(BaseException):
    pass


def _late(*_):
    raise _Late


@pytest.mark.parametrize("name", ALIKE)
def test_different_golds_are_different(benchmark_rows, name):
    golds = [gold for row in benchmark_rows(name) if (gold := _gold(row)) is not None]
    golds = list(dict.fromkeys(golds))
    plain = [g for g in golds if plain_number(normal(g))]
    rest = [g for g in golds if not plain_number(normal(g))]
    found = set()
    before = signal.signal(signal.SIGALRM, _late)
    try:
        for one, other in chain(combinations(plain, 2), combinations(rest, 2), product(rest, plain)):
            signal.setitimer(signal.ITIMER_REAL, 5)
            try:
                same = equal(one, other)[0] or equal(other, one)[0]
            except _Late:
                continue  # no verdict RIGHT comes of a comparison that is stopped
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            if same:
                found.add(tuple(sorted((one, other))))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert found == ALIKE[name]


def _gold(row):
    if "final_answer" in row:
        return ", ".join(answer.replace("$", "").strip().removesuffix(".") for answer in row["final_answer"])
    return gold_text(row["answer"]) if "answer" in row else extract_gold(row["solution"])
