"""Which sample of which row is asked for, under which seed and version, and what comes back to TRL."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from posttrain.errors import Mistake
from posttrain.rundir import RunDir
from posttrain.trainers.bridge import Bridge, progress
from posttrain.trainers.follow import Follower
from posttrain.trainers.timing import Timer
from rollouts.records import Completion, Rollout, Sampling, StaleRollout
from rollouts.strategies.scaffold import Scaffold
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


def trainer(rank=0, step=0, group=4, *, max_steps=10, per=1, accumulation=1, iterations=1, micro=0, training=True):
    accelerator = SimpleNamespace(process_index=rank, is_main_process=rank == 0, wait_for_everyone=lambda: None)
    return SimpleNamespace(
        model=SimpleNamespace(training=training), num_generations=group, num_generations_eval=group,
        state=SimpleNamespace(global_step=step, max_steps=max_steps), accelerator=accelerator, num_iterations=iterations,
        args=SimpleNamespace(steps_per_generation=per, gradient_accumulation_steps=accumulation), _step=micro,
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


class Notebook:
    """A strategy that keeps the sessions it is given."""

    def __init__(self):
        self.sessions = []

    def run(self, asks, session):
        self.sessions.append(session)
        return SingleTurn().run(asks, session)


@pytest.mark.parametrize(
    ("settings", "at"),
    [
        # one update a batch
        ({"per": 4, "accumulation": 4, "max_steps": 350}, {0: (1, 350), 1: (2, 350), 349: (350, 350)}),
        # two updates a batch, and an odd number of steps: the last batch is used once
        ({"per": 8, "accumulation": 4, "max_steps": 7}, {0: (1, 4), 2: (2, 4), 4: (3, 4), 6: (4, 4)}),
        # one batch, three passes over it, of two updates each
        ({"per": 2, "iterations": 3, "max_steps": 12}, {0: (1, 2), 6: (2, 2)}),
    ],
)
def test_progress_is_counted_in_generation_batches(bridge, settings, at):
    book = Notebook()
    b = bridge(Echo(), book)
    for step in at:
        ask(b, rows("a", "a"), trainer(step=step, group=2, **settings))
    assert [(s.progress.step, s.progress.steps) for s in book.sessions] == list(at.values())
    assert all(s.training and s.group == 2 for s in book.sessions)


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(1, 12))
def test_progress_is_the_number_of_the_batch_however_a_run_is_cut(per, iterations, accumulation, max_steps):
    """By counting: a batch every per x iterations micro-steps, an optimiser step every `accumulation`; the last is S."""
    told = []
    for micro in range(max_steps * accumulation):
        if micro % (per * iterations) == 0:
            at = trainer(step=micro // accumulation, max_steps=max_steps, per=per, accumulation=accumulation,
                         iterations=iterations, micro=micro)  # fmt: skip
            told.append(progress(at))
    assert [one.step for one in told] == list(range(1, len(told) + 1))
    assert {one.steps for one in told} == {len(told)}


def test_several_generation_batches_in_one_step_are_told_apart(bridge):
    book = Notebook()
    b = bridge(Echo(), book)
    for micro in range(4):
        at = trainer(step=micro // 2, per=1, accumulation=2, max_steps=2, micro=micro, group=2)
        ask(b, rows("a", "a"), at)
    assert [s.progress.step for s in book.sessions] == [1, 2, 3, 4]
    assert {s.progress.steps for s in book.sessions} == {4}


def test_a_strategy_does_not_overwrite_a_column_for_the_rewards(bridge):
    rubric = [{"criterion": "x", "points": 1}]
    given = [{**row, "scaffold_ratio": 1, "rubric": rubric} for row in rows("a", "a")]
    with pytest.raises(Mistake, match=r"^rollouts\.strategy: tells scaffold_ratio of its rollouts, which is a column"):
        ask(bridge(Echo(), Scaffold()), given, trainer(group=2))


def test_there_is_no_progress_where_nothing_is_trained(bridge):
    book = Notebook()
    b = bridge(Echo(), book)
    ask(b, rows("a", "a"), trainer(group=2, training=False))
    assert (book.sessions[0].progress, book.sessions[0].training) == (None, False)


def test_a_group_spread_over_processes_is_shown_what_one_process_would_show(bridge):
    rubric = [{"criterion": f"point {i}", "points": 1} for i in range(9)]
    everything = [{**row, "rubric": rubric} for row in rows(*["a"] * 8, *["b"] * 8, *["c"] * 8)]

    def shown(processes):
        found, size = [], 24 // processes
        for rank in range(processes):
            b = bridge(Echo(), Scaffold())
            # s = 71 of 350, where the ratio is about one half
            ask(b, everything[size * rank : size * (rank + 1)], trainer(rank, step=70, group=8, max_steps=350))
            found += [(r.row_id, r.sample, tuple(r.info["scaffold_shown"])) for r in b.made]
        return found

    alone = shown(1)
    assert shown(2) == shown(3) == alone
    assert [len(s) for _, _, s in alone[:8]] == [4, 4, 3, 2, 2, 1, 1, 0]
