"""Which sample of which row is asked for, under which seed and version, and what comes back to TRL."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer

from posttrain.rundir import RunDir
from posttrain.trainers.bridge import Bridge
from posttrain.trainers.follow import Follower
from posttrain.trainers.timing import Timer
from rollouts.records import Completion, Rollout, Sampling, StaleRollout
from rollouts.strategies.single import SingleTurn


class Echo:
    """An engine that answers a prompt with its own seed, digit by digit."""

    shared, same_numerics = False, True

    def __init__(self, lag: int = 0):
        self.version, self.lag, self.asked = -1, lag, []

    def sync(self, policy, *, publish=True):
        self.version = policy.version

    def generate(self, prompt_ids, sampling, seeds):
        self.asked += list(zip([tuple(p) for p in prompt_ids], seeds, strict=True))
        return [
            Completion([int(c) for c in str(s)], [-1.0] * len(str(s)), "stop", self.version - self.lag) for s in seeds
        ]

    def close(self): ...


def trainer(rank: int = 0, step: int = 0, group: int = 4):
    accelerator = SimpleNamespace(process_index=rank, is_main_process=rank == 0, wait_for_everyone=lambda: None)
    return SimpleNamespace(
        model=SimpleNamespace(training=True), num_generations=group, num_generations_eval=group,
        state=SimpleNamespace(global_step=step), accelerator=accelerator,
    )  # fmt: skip


def rows(*names: str) -> list[dict]:
    return [{"row_id": n, "prompt": [{"role": "user", "content": n}], "answer": n} for n in names]


@pytest.fixture
def bridge(tiny, tmp_path):
    def make(engine, strategy=None, seed=0):
        timer = Timer()
        run = RunDir(tmp_path)
        tokenizer = AutoTokenizer.from_pretrained(tiny)
        return Bridge(
            engine, strategy or SingleTurn(), Sampling(), tokenizer, seed, Follower(engine, run, timer), timer
        )

    return make


def ask(bridge, given, at):
    bridge.rows = given
    return bridge([r["prompt"] for r in given], at)


def test_a_group_spread_over_processes_draws_every_sample_once(bridge):
    """Two processes, groups of four, six rows each: the second group lies across the border."""
    everything = rows(*["a"] * 4, *["b"] * 4, *["c"] * 4)
    seeds, samples = [], []
    for rank in (0, 1):
        b = bridge(Echo())
        ask(b, everything[6 * rank : 6 * rank + 6], trainer(rank))
        seeds += [s for _, s in b.engine.asked]
        samples += [(r.row_id, r.sample) for r in b.made]
    assert samples == [(r, i) for r in "abc" for i in range(4)]
    assert len(set(seeds)) == 12
    alone = bridge(Echo())
    ask(alone, everything, trainer())
    assert [s for _, s in alone.engine.asked] == seeds, "seeds depend on how many processes there are"


def test_streams_differ_by_run_version_row_and_sample_and_repeat(bridge):
    def seeds(run_seed, step):
        b = bridge(Echo(), seed=run_seed)
        ask(b, rows("a", "a", "b", "b"), trainer(step=step, group=2))
        return [s for _, s in b.engine.asked]

    assert seeds(0, 0) == seeds(0, 0)
    assert len({*seeds(0, 0), *seeds(1, 0), *seeds(0, 1)}) == 12


def test_stale_rollouts_are_refused(bridge):
    with pytest.raises(StaleRollout, match="row a: made by version 2 of the policy, the trainer is at 3"):
        ask(bridge(Echo(lag=1)), rows("a", "a"), trainer(step=3, group=2))


def test_the_prompt_is_the_template_up_to_where_the_answer_starts(bridge):
    b = bridge(Echo())
    out = ask(b, rows("hello", "hello"), trainer(group=2))
    assert b.tokenizer.decode(out["prompt_ids"][0]) == "<|user|>hello<|end|><|assistant|>"
    assert out.keys() == {"prompt_ids", "completion_ids", "logprobs"}


def test_foreign_tokens_are_masked_and_info_reaches_the_rewards(bridge):
    class Tool:
        def run(self, asks, session):
            return [
                Rollout(a.row.row_id, a.sample, session.engine.version, [1], [5, 6, 7], [-1.0, 0.0, -1.0], [1, 0, 1],
                        "stop", info={"calls": 1} if a.sample else {"calls": 2, "prompt_ids": "never"})
                for a in asks
            ]  # fmt: skip

    out = ask(bridge(Echo(), Tool()), rows("a", "a"), trainer(group=2))
    assert out["env_mask"] == [[1, 0, 1], [1, 0, 1]]
    assert out["calls"] == [2, 1]
    assert out["prompt_ids"] == [[1], [1]]


def test_a_strategy_that_loses_a_rollout_is_named(bridge):
    class Forgetful:
        def run(self, asks, session):
            return SingleTurn().run(asks, session)[1:]

    with pytest.raises(ValueError, match="1 rollouts for 2 asks"):
        ask(bridge(Echo(), Forgetful()), rows("a", "a"), trainer(group=2))
