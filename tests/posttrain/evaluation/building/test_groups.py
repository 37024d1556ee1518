"""Groups of chunks: what they are drawn from, and that all are found where all are wanted (brute force)."""

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from posttrain.errors import Mistake
from posttrain.evaluation.building.chunks import Chunk
from posttrain.evaluation.building.documents import Document
from posttrain.evaluation.building.groups import CROSS, MULTI, SINGLE, across, within
from posttrain.evaluation.building.plan import Plan


def chunks_of(*counts):
    return [Chunk(f"d{d}", i, 10 * i, 10 * i + 9, 3, "x") for d, n in enumerate(counts) for i in range(n)]


def brute(chunks, low, high, scope):
    found = set()
    for h in range(low, high + 1):
        for some in combinations(chunks, h):
            documents = {c.document for c in some}
            if len(documents) == (1 if scope == MULTI else h):
                found.add(tuple(c.id for c in some))
    return found


@given(
    st.lists(st.integers(0, 4), max_size=4),
    st.integers(2, 3),
    st.integers(0, 2),
    st.integers(1, 40),
    st.integers(0, 3),
)
@settings(deadline=None, max_examples=80)
def test_groups_are_those_of_brute_force(counts, low, more, most, seed):
    chunks, hops = chunks_of(*counts), (low, low + more)
    for make, scope in ((within, MULTI), (across, CROSS)):
        every = brute(chunks, *hops, scope)
        made = make(chunks, most, seed, hops)
        ids = [tuple(c.id for c in group.chunks) for group in made]
        assert len(set(ids)) == len(ids) <= most
        assert set(ids) <= every
        assert {group.scope for group in made} <= {scope}
        assert bool(made) == bool(every)
        if len(every) <= most:
            assert set(ids) == every
        assert made == make(chunks, most, seed, hops)


def test_sizes_are_equally_likely():
    """Drawn from all groups at once, 5 of 40 chunks would be 86 % of them."""
    made = within(chunks_of(40), 400, 0)
    sizes = Counter(len(group.chunks) for group in made)
    assert chisquare([sizes[h] for h in (2, 3, 4, 5)]).pvalue > 0.001
    assert within(chunks_of(40), 400, 1) != made


def documents(*lengths):
    return [Document(f"d{i}", " ".join(["word"] * n), str(i), "2025-01-01", "file") for i, n in enumerate(lengths)]


def test_a_plan_puts_single_chunks_first_and_says_what_there_is_not():
    plan = Plan(length=10, overlap=0, most=2, multi_hop=3, cross_document=4)
    found = plan.groups(documents(40, 40, 5))
    assert [group.scope for group in found] == [SINGLE] * 2 + [MULTI] * 3 + [CROSS] * 4
    assert found[2].id == " + ".join(chunk.id for chunk in found[2].chunks)
    assert len({group.id for group in found}) == 9
    assert [g.scope for g in Plan(length=10, overlap=0, most=0, multi_hop=1).groups(documents(30))] == [MULTI]
    with pytest.raises(Mistake, match="no document has 2 chunks of 50 tokens"):
        Plan(length=50, overlap=0, multi_hop=1).groups(documents(40, 40))
    with pytest.raises(Mistake, match="takes 2 documents, and there are 1"):
        Plan(length=10, overlap=0, cross_document=1).groups(documents(40))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"most": 0}, "chunks: at least 1"),
        ({"multi_hop": -1}, "multi-hop: at least 0"),
        ({"hops": (1, 3)}, "hops: from 2"),
        ({"hops": (4, 3)}, "hops: from 2"),
        ({"types": ("factual", "trick")}, "types: trick: there are factual, numeric"),
        ({"difficulty": (0, 3)}, "difficulty: from 1 to 10"),
        ({"instructions": "x" * 4001}, "instructions: 4001 characters"),
    ],
)
def test_wishes_that_make_no_sense(changes, told):
    with pytest.raises(Mistake, match=told):
        Plan(**changes)
