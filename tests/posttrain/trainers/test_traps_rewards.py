"""TRL's traps at the reward's border: bare TRL falls in, ours does not. `bare` is TRL's own trainer on the same model."""

from __future__ import annotations

import json
import math

import pytest
import torch
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posttrain.errors import Alarm
from posttrain.rundir import read_lines
from posttrain.trainers import groups
from posttrain.trainers.grpo import GRPO
from posttrain.trainers.rloo import RLOO
from rollouts.records import Rollout, Sampling
from rollouts.strategies.single import SingleTurn


def trained(built, kind=GRPO):
    trainer = kind.build(built)
    trainer.train()
    built.stack.close()
    return trainer


def records(built):
    return [json.loads(x) for f in sorted(built.run.rollouts.iterdir()) for x in f.read_text().splitlines()]


def steps(built):
    return [m for m in read_lines(built.run.metrics) if m["phase"] == "train"]


def moved(trainer):
    return max(v.abs().max().item() for k, v in trainer.model.named_parameters() if "lora_B" in k)


def words(prompts):
    """Eight answers of different lengths that end with the EOS (id 1)."""
    return [[5 + i, *range(20, 21 + i), 1] for i in range(len(prompts))]


def in_turn(*values):
    """A reward that gives these numbers to the rows of a batch, whatever they say."""

    def given_numbers(completions, **_):
        assert len(completions) == len(values)
        return list(values)

    return given_numbers


def batch_of(trainer):
    """The advantages of the first batch that a trainer makes."""
    made = []
    inner = trainer._generate_and_score_completions
    trainer._generate_and_score_completions = lambda rows: made.append(inner(rows)) or made[-1]
    trainer.train()
    return made[0]


# -- infinite rewards, and those that raise -----------------------------------------------------------------------

INFINITE = (math.inf, 1.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0)


def test_an_infinite_reward(parts, bare):
    """TRL: its whole group learns nothing, and nothing is said. Ours: the row is named, or alone left out."""
    theirs = bare(in_turn(*INFINITE), ids=words, max_steps=1)
    theirs.train()
    first = theirs.state.log_history[0]
    assert first["loss"] == 0
    assert first["grad_norm"] == 0
    with pytest.raises(Alarm, match=r"given_numbers\): not_finite on row row-\d+ at step 0"):
        trained(parts(rewards=[in_turn(*INFINITE)]))
    skip = {"given_numbers": {"on_error": {"do": "skip_row", "at_most": 1.0}}}
    built = parts(rewards=[in_turn(*INFINITE)], settings=skip, args={"max_steps": 1})
    assert moved(trained(built)) > 0
    assert [r["reward"] for r in records(built)][:4] == [None, 1.0, 0.0, 0.5]
    wanted = torch.tensor([1.0, 0.0, 0.5])
    wanted = (wanted - wanted.mean()) / (wanted.std() + 1e-4)
    assert [r["advantage"] for r in records(built)][1:4] == pytest.approx(wanted.tolist(), abs=1e-4)


def test_a_reward_that_raises(parts, bare):
    """TRL: the exception, without the row. Ours: one line with it; or the row is left out."""

    def fragile(completions, **_):
        if len(completions) > 1:
            raise KeyError("gold")
        return [float(len(completions[0][0]["content"]))]

    with pytest.raises(KeyError, match="gold"):
        bare(fragile, ids=words, max_steps=1).train()
    built = parts(rewards=[fragile], args={"max_steps": 1})  # asked row by row, every row can be judged
    trained(built)
    assert all(r["reward"] is not None for r in records(built))


# -- flat groups --------------------------------------------------------------------------------------------------


def test_a_flat_group_is_noise_of_order_one(parts, bare):
    """Six equal rewards whose mean float32 cannot hold: TRL learns from the rounding, and counts no flat group."""
    args = {"num_generations": 6, "per_device_train_batch_size": 6, "max_steps": 1}
    same = in_turn(*[12345.678] * 6)
    theirs = bare(same, ids=words, **args)
    assert batch_of(theirs)["advantages"].abs().max() > 0.5
    assert theirs.state.log_history[0]["frac_reward_zero_std"] == 0
    assert theirs.state.log_history[0]["grad_norm"] > 0
    built = parts(rewards=[same], args=args)
    assert moved(trained(built)) == 0
    assert {r["advantage"] for r in records(built)} == {0.0}
    assert steps(built)[0]["frac_reward_zero_std"] == 1


def test_flat_groups_under_normalize_then_sum(parts, bare):
    """TRL looks at the spread of the whole batch, so a dead group never shows."""
    args = {"multi_objective_aggregation": "normalize_then_sum", "max_steps": 1}
    half = in_turn(1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0)
    theirs = bare(half, ids=words, **args)
    theirs.train()
    assert theirs.state.log_history[0]["frac_reward_zero_std"] == 0
    built = parts(rewards=[half], args=args)
    trained(built)
    assert steps(built)[0]["frac_reward_zero_std"] == 0.5
    assert [r["advantage"] for r in records(built)][:4] == [0.0] * 4


def test_flat_groups_under_batch_scale(parts, bare):
    args = {"scale_rewards": "batch", "max_steps": 1}
    half = in_turn(1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0)
    theirs = bare(half, ids=words, **args)
    theirs.train()
    assert theirs.state.log_history[0]["frac_reward_zero_std"] == 0
    built = parts(rewards=[half], args=args)
    trained(built)
    assert steps(built)[0]["frac_reward_zero_std"] == 0.5


@given(
    st.integers(2, 8).flatmap(
        lambda n: st.lists(
            st.lists(st.one_of(st.none(), st.sampled_from([0.0, 0.1, 0.35, 1.0, 12345.678])), min_size=n, max_size=n),
            min_size=1,
            max_size=4,
        )
    )
)
@settings(max_examples=200, deadline=None)
def test_flat_means_that_judged_rewards_are_equal(table):
    size = len(table[0])
    rewards = torch.tensor([[math.nan if x is None else x] for group in table for x in group])
    wanted = [len({x for x in group if x is not None}) <= 1 for group in table]
    assert groups.flat(rewards, torch.ones(1), size).tolist() == wanted


def test_sums_that_differ_by_the_order_of_addition_are_equal():
    rewards = torch.tensor([[1.1, 2.2, 0.0], [0.0, 0.0, 3.3], [3.3, 0.0, 0.0]])
    assert rewards.sum(1).unique().numel() > 1
    assert groups.flat(rewards, torch.ones(3), 3).tolist() == [True]
    assert groups.flat(rewards, torch.ones(3), 3, apart=True).tolist() == [False]
    assert groups.flat(torch.tensor([[5.0], [9.0]]), torch.ones(1), 2, clip=(0.0, 4.0)).tolist() == [True]


def test_advantages_have_a_bound(parts):
    """However close the rewards of a group are: at most sqrt(n), so that no cap is needed."""
    built = parts()
    values = []
    built.judged[0].guard = type(built.judged[0].guard)(lambda completions, **_: list(values), name="v")
    trainer = GRPO.build(built)
    trainer.model.train()

    @given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=8, max_size=8))
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    def bounded(numbers):
        values[:] = numbers
        made = trainer._generate_and_score_completions([dict(built.train[i // 4]) for i in range(8)])
        assert made["advantages"].abs().max() <= math.sqrt(4)

    trainer.invariants = None  # its books count training batches, and these are none
    bounded()
    built.stack.close()


# -- truncated rows -----------------------------------------------------------------------------------------------


def halves(completions, **_):
    """High for what ends with the token limit of 12 (12 tokens are more than 12 characters here), low for the rest."""
    return [float(len(c[0]["content"]) % 5) for c in completions]


def test_truncated_rows_leave_the_baseline(parts, bare):
    """TRL: a masked row's reward still moves the baseline of its group. Ours: it leaves that too."""
    rewards = (10.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0)

    def first_is_cut(prompts):
        return [[5, 6, 7] if i == 0 else [5 + i, 6, 1] for i in range(len(prompts))]

    theirs = bare(in_turn(*rewards), ids=first_is_cut, mask_truncated_completions=True, max_steps=1)
    made = batch_of(theirs)
    assert made["completion_mask"][0].sum() == 0
    assert (made["advantages"][1:4] < 0).all()  # of the rows 0, 1, 0, even the right one is pushed away from

    class FirstIsCut(SingleTurn):
        def run(self, asks, session):
            rollouts = super().run(asks, session)
            for rollout, ids in zip(rollouts, first_is_cut(asks), strict=True):
                size = min(3, len(rollout.completion_ids))
                for name in ("completion_ids", "logprobs", "mask"):
                    setattr(rollout, name, getattr(rollout, name)[:size])
                rollout.finish = "length" if ids[-1] != 1 else "stop"
            return rollouts

    built = parts(rewards=[in_turn(*rewards)], args={"mask_truncated_completions": True, "max_steps": 1})
    built.strategy = FirstIsCut()
    ours = GRPO.build(built)
    made = batch_of(ours)
    built.stack.close()
    assert made["num_items_in_batch"] == made["completion_mask"].sum()
    first = records(built)[0]
    assert (first["finish"], first["reward"], first["advantage"]) == ("length", 10.0, 0.0)
    wanted = torch.tensor([0.0, 1.0, 0.0])
    wanted = (wanted - wanted.mean()) / (wanted.std() + 1e-4)
    assert [r["advantage"] for r in records(built)][1:4] == pytest.approx(wanted.tolist(), abs=1e-4)
    assert steps(built)[0]["completions/truncated"] == 1 / 8


@pytest.mark.parametrize(("kind", "algorithm"), [(GRPO, "grpo"), (RLOO, "rloo")])
def test_truncation_is_what_the_engine_says(parts, bare, algorithm, kind):
    """An ending by a stop string has no EOS: TRL masks such rows away, all of them; ours trains on them."""

    def no_eos(prompts):
        return [[5 + i, 6, 7] for i in range(len(prompts))]

    if algorithm == "grpo":
        theirs = bare(in_turn(*range(8)), ids=no_eos, mask_truncated_completions=True, max_steps=1)
        theirs.train()
        assert theirs.state.log_history[0]["grad_norm"] == 0
        assert theirs.state.log_history[0]["completions/clipped_ratio"] == 1
    built = parts(
        rewards=[in_turn(*range(8))],
        algorithm=algorithm,
        args={"mask_truncated_completions": True, "max_steps": 1, "beta": 0.05},
        rollouts={"sampling": {"max_tokens": 16, "stop": ["a", "e", "1"]}},
    )
    built.sampling = Sampling(max_tokens=16, stop=("a", "e", "1"))
    trainer = kind.build(built)
    made = batch_of(trainer)
    built.stack.close()
    finishes = [r["finish"] for r in records(built)]
    assert {"stop", "length"} == set(finishes)
    shuffled_back = sorted(made["completion_mask"].any(dim=1).tolist())
    assert shuffled_back == sorted(f == "stop" for f in finishes)
    assert moved(trainer) > 0
    assert all(math.isfinite(m["loss"]) for m in steps(built))
    for r in records(built):
        assert (r["advantage"] == 0) or r["finish"] == "stop"


def test_a_run_cut_by_its_budget_is_truncated_whatever_its_last_token(parts, bare):
    """TRL looks at the last token: an EOS there, in a rollout that was stopped from outside, counts as an end."""
    theirs = bare(ids=words, max_steps=1)
    theirs.train()
    assert theirs.state.log_history[0]["completions/clipped_ratio"] == 0

    class OutOfBudget(SingleTurn):
        """Asks, then says more itself, then has no budget left: the last token is an EOS, of the environment."""

        def run(self, asks, session):
            rollouts = super().run(asks, session)
            for rollout in rollouts:
                rollout.completion_ids = [*rollout.completion_ids, 1]
                rollout.logprobs, rollout.mask = [*rollout.logprobs, 0.0], [*rollout.mask, 0]
                rollout.finish = "length"
            return rollouts

    built = parts(args={"max_steps": 1})
    built.strategy = OutOfBudget()
    trained(built)
    assert steps(built)[0]["completions/truncated"] == 1
    assert steps(built)[0]["completions/clipped_ratio"] == 0


# -- empty completions --------------------------------------------------------------------------------------------


class SomeEmpty(SingleTurn):
    """Gives up on the first row of each batch before a token is drawn."""

    def run(self, asks, session):
        first, *rest = asks
        made = super().run(rest, session)
        row, version = first.row.row_id, session.engine.version
        prompt = session.encode(first.row.prompt)
        return [Rollout(row, first.sample, version, prompt, [], [], [], "abort"), *made]


def test_an_empty_completion(parts, bare):
    """TRL: IndexError. Ours: it has its reward and its place in the baseline, and no token in the loss."""
    with pytest.raises(IndexError):
        bare(ids=lambda prompts: [[], *words(prompts)[1:]], max_steps=1).train()
    built = parts(rewards=[in_turn(*range(8))], args={"max_steps": 2})
    built.strategy = SomeEmpty()
    trainer = GRPO.build(built)
    made = batch_of(trainer)
    built.stack.close()
    assert sorted((made["completion_mask"] * made["tool_mask"]).sum(1).tolist())[0] == 0
    first = records(built)[0]
    assert (first["completion"], first["completion_tokens"], first["reward"]) == ("", 0, 0.0)
    assert first["advantage"] < -1
    assert steps(built)[0]["completions/min_length"] == 0
    assert moved(trainer) > 0


def test_an_empty_completion_under_rloo_is_one_line(parts):
    built = parts(algorithm="rloo")
    built.strategy = SomeEmpty()
    with pytest.raises(Alarm, match=r"row row-\d+, sample 0: the completion is empty, and rloo cannot leave"):
        trained(built, RLOO)


# -- names and tables ---------------------------------------------------------------------------------------------


def test_two_rewards_of_one_name(parts, bare, tmp_path, monkeypatch):
    """TRL: one metric for both, their mean. Ours: numbered."""
    from posttrain import assemble

    theirs = bare(lambda completions, **_: [1.0] * 8, lambda completions, **_: [3.0] * 8, ids=words, max_steps=1)
    theirs.train()
    names = [k for k in theirs.state.log_history[0] if k.startswith("rewards/") and k.endswith("/mean")]
    assert names == ["rewards/<lambda>/mean"]
    assert theirs.state.log_history[0][names[0]] == 2.0
    (tmp_path / "one.py").write_text("def score(completions, **_):\n    return [1.0] * len(completions)\n")
    (tmp_path / "two.py").write_text("def score(completions, **_):\n    return [3.0] * len(completions)\n")
    uses = [{"use": f"{tmp_path}/{name}.py:score"} for name in ("one", "two")]
    built = parts(rewards=(len, len), args={"max_steps": 1})
    recipe = built.recipe.model_copy(update={"rewards": [built.recipe.rewards[0].model_validate(u) for u in uses]})
    built.judged = assemble.judged(recipe)
    trained(built)
    assert steps(built)[0]["rewards/score/mean"] == 1.0
    assert steps(built)[0]["rewards/score_2/mean"] == 3.0


def test_evaluation_writes_over_the_table_of_the_training_step(parts, bare):
    """TRL: the parquet of a step holds the evaluation's completions. Ours: refused, and rollouts/ hold both."""
    import pandas

    folder = parts.folder / "theirs"
    theirs = bare(
        ids=words, max_steps=1, log_completions=True, eval_strategy="steps", eval_steps=1, output_dir=str(folder),
        num_completions_to_print=0, per_device_eval_batch_size=8, num_generations_eval=2,
    )  # fmt: skip
    asked = []
    inner = theirs._generate
    theirs._generate = lambda prompts: asked.append([p[0]["content"] for p in prompts]) or inner(prompts)
    theirs.train()
    table = pandas.read_parquet(folder / "completions" / "completions_00001.parquet")
    told = [p[0]["content"] for p in table["prompt"]]
    assert told == asked[-1] != asked[0]
    built = parts(
        args={"max_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 8,
              "num_generations_eval": 2},
        data={"train": {"path": "unused.jsonl"}, "eval": {"path": "unused.jsonl"}},
    )  # fmt: skip
    built.eval = Dataset.from_list([dict(built.train[i]) for i in range(4)])
    trained(built)
    phases = [r["phase"] for r in records(built)]
    assert (phases.count("train"), phases.count("eval")) == (8, 8)
    logged = [(m["step"], m["phase"]) for m in read_lines(built.run.metrics)]
    assert (1, "train") in logged
    assert (1, "eval") in logged


def test_a_grader_that_reads_text_and_the_last_turn(parts):
    """TRL's accuracy_reward: a crash on plain text, and the first turn of a dialogue. Ours reads both rightly."""
    from trl.rewards import accuracy_reward

    from rewards.math import correct

    with pytest.raises(TypeError):
        accuracy_reward(["\\boxed{4}"], solution=["$4$"])
    dialogue = [
        {"role": "assistant", "content": "I shall ask the tool for \\boxed{5}"},
        {"role": "tool", "content": "4"},
        {"role": "assistant", "content": "It is \\boxed{4}."},
    ]
    assert accuracy_reward([dialogue], solution=["$4$"]) == [0.0]
    assert correct(["\\boxed{4}", dialogue], answer=["4", "4"]) == [1.0, 1.0]
