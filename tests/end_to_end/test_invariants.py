"""A broken invariant in real launches: every process ends, one line says what, where and what to do, exit code 3."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.processes, pytest.mark.slow]

STRATEGY = '''
import os

from rollouts.strategies.single import SingleTurn


class Tampers(SingleTurn):
    """On process 1, from the second step on, one id of one rollout is not the one that was sampled."""

    def run(self, asks, session):
        rollouts = super().run(asks, session)
        if os.environ.get("RANK", "0") == "1" and session.engine.version == 1:
            rollouts[2].completion_ids = [rollouts[2].completion_ids[0] ^ 1, *rollouts[2].completion_ids[1:]]
        return rollouts
'''


def test_what_one_of_two_processes_finds_ends_both(launch, recipes, tmp_path):
    (tmp_path / "mine.py").write_text(STRATEGY)
    ended = launch(
        recipes / "arithmetic_grpo.yaml", "rollouts.strategy=mine.py:Tampers", "rollouts.sampling.max_tokens=16",
        "trainer.args.per_device_train_batch_size=8", "trainer.args.max_steps=4", "evaluation=[]", "preflight=off",
        processes=2, timeout=300,
    )  # fmt: skip
    told = "posttrain: stopped: invariant tokens broken on process 1 at step 1: row "
    assert told in ended.err, ended.err[-3000:]
    assert f"[process 1] {told}" in ended.err
    assert "the engine did not sample it there; let the strategy mark (mask 1) only tokens" in ended.err
    assert ended.json("status.json")["steps"] == 1
    assert ended.code in (1, 3)  # `accelerate launch` makes a 1 of everything
