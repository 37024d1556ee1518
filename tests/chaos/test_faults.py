"""Faults of the world, given to real runs: the short form. `scripts/chaos` is the long one, with bare TRL beside ours."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from chaos.faults import FAULTS, Fault
from chaos.kinds import Rank, Reward, Servers, Skip
from chaos.world import World

pytestmark = pytest.mark.slow
SHORT = [fault for fault in FAULTS if fault.short]
TOGETHER = [f.kind for f in SHORT if isinstance(f.kind, Reward) and f.code is None]
"""Rewards that one run has all at once; each is guarded by itself."""


def case(fault: Fault) -> object:
    marks = {Servers: [pytest.mark.vllm], Rank: [pytest.mark.processes]}.get(type(fault.kind), [])
    return pytest.param(fault, marks=marks, id=fault.name.replace(" ", "-"))


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("chaos"))
    yield made
    made.close()


@pytest.mark.parametrize("fault", [case(fault) for fault in SHORT])
def test_what_comes_of_it(fault: Fault, world: World):
    if isinstance(fault.kind, Servers):
        pytest.importorskip("vllm", reason="vLLM is not installed")
    try:
        result = fault.kind.ours(world, TOGETHER) if fault.kind in TOGETHER else fault.kind.ours(world)
    except Skip as skip:
        pytest.skip(str(skip))
    assert [*result.wrong, *fault.check(result)] == []


def test_names_are_unique_and_a_result_that_is_otherwise_is_found():
    from chaos.kinds import Result

    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    ends = next(f for f in FAULTS if f.name == "disk full")
    assert ends.check(Result(3, 1.0, "posttrain: stopped: the disk is full", 1)) == []
    assert ends.check(Result(1, 1.0, "posttrain: stopped: the disk is full", 1))
    assert ends.check(Result(3, None, "posttrain: stopped: the disk is full", 1))
    assert ends.check(Result(3, 1.0, "OSError", 1))
    assert ends.check(Result(3, 1.0, "posttrain: stopped: the disk is full", ends.lost + 1))
