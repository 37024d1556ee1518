import pytest

from rewards.criteria.item import Verdict
from rewards.judges.votes import decide

VOTES = {"1": Verdict.MET, "0": Verdict.UNMET, "?": Verdict.FAILED}


@pytest.mark.parametrize(
    ("votes", "verdict", "agreement"),
    [
        ("1", "1", None),
        ("?", "?", None),
        ("111", "1", 1),
        ("110", "1", 2 / 3),
        ("100", "0", 2 / 3),
        ("11?", "1", 1),
        ("10?", "?", 1 / 2),
        ("1??", "?", 1),
        ("???", "?", None),
        ("11100", "1", 3 / 5),
        ("1100?", "?", 1 / 2),
        ("10", "?", 1 / 2),
    ],
)
def test_more_than_half_of_all(votes, verdict, agreement):
    assert decide([VOTES[v] for v in votes]) == (VOTES[verdict], agreement)
