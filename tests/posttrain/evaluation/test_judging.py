"""What a sample's line keeps so that it can be judged again without asking."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.evaluation.judging import _until, cut


@given(st.text(), st.text())
def test_a_part_comes_back_from_how_it_is_noted(answer, part):
    assert _until(answer, cut(answer, part)) == part


@pytest.mark.parametrize("answer", ["", "12 apples", "so \\boxed{7}"])
def test_a_beginning_is_noted_by_its_length(answer):
    for size in range(len(answer) + 1):
        assert cut(answer, answer[:size]) == size


def test_what_is_no_beginning_is_noted_as_it_is():
    """Before a thought ends, all of it counts as the answer, and none of it after."""
    assert cut("7", "<think>7 or 8") == "<think>7 or 8"
