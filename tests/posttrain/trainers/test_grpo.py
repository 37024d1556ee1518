"""GRPO on rollouts of our engine is TRL's GRPO on the same rollouts; and what a run leaves behind is true."""

from __future__ import annotations

import json
import math

import pytest
import torch
from trl import GRPOConfig, GRPOTrainer

from posttrain.errors import Alarm
from posttrain.rundir import read_lines
from posttrain.trainers.grpo import GRPO


def lines(run, pattern="*.jsonl"):
    return [json.loads(x) for f in sorted(run.rollouts.glob(pattern)) for x in f.read_text().splitlines()]


def adapter(trainer):
    return {k: v.detach().clone() for k, v in trainer.model.named_parameters() if v.requires_grad}


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"loss_type": "grpo", "beta": 0.1},
        {"loss_type": "dr_grpo", "scale_rewards": "none"},
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4},
        {"num_iterations": 2, "max_steps": 4},
        {"steps_per_generation": 4, "per_device_train_batch_size": 4, "max_steps": 4},
    ],
    ids=lambda a: ",".join(f"{k}={v}" for k, v in a.items()) or "default",
)
def test_it_is_trls_grpo_on_the_same_rollouts(parts, args):
    """TRL's own trainer is fed the token ids that ours sampled: every step must end in the same weights."""
    ours = GRPO.build(parts(args=args))
    made = []

    def spy(prompts, trainer, bridge=ours.rollout_func):
        made.append(bridge(prompts, trainer))
        return made[-1]

    ours.rollout_func = spy
    ours.train()
    theirs_parts = parts(args=args)
    replay = iter(made)
    theirs = GRPOTrainer(
        model=theirs_parts.model,
        reward_funcs=[j.guard.make for j in theirs_parts.judged],
        args=GRPOConfig(**theirs_parts.arguments),
        train_dataset=theirs_parts.train,
        processing_class=theirs_parts.tokenizer,
        peft_config=theirs_parts.peft_config,
        rollout_func=lambda prompts, trainer: next(replay),
    )
    theirs.train()
    assert next(replay, None) is None
    mine, other = adapter(ours), adapter(theirs)
    assert mine.keys() == other.keys()
    assert all(torch.equal(mine[k], other[k]) for k in mine)
    assert any(v.abs().max() > 0 for k, v in mine.items() if "lora_B" in k)


def test_what_a_run_records(parts):
    built = parts(args={"max_steps": 2})
    trainer = GRPO.build(built)
    trainer.train()
    built.stack.close()
    rollouts = lines(built.run)
    assert [r["step"] for r in rollouts] == [0] * 8 + [1] * 8
    assert [r["version"] for r in rollouts] == [0] * 8 + [1] * 8
    assert {(r["row_id"], r["sample"]) for r in rollouts[:8]} == {
        (r["row_id"], s) for r in rollouts[:8] for s in range(4)
    }
    for r in rollouts:
        assert r["reward"] == r["rewards"]["letters"]
        assert r["finish"] == ("length" if r["completion_tokens"] == 12 else r["finish"])
        assert 1 <= r["completion_tokens"] <= 12
    for group in (rollouts[i : i + 4] for i in range(0, 16, 4)):
        values = torch.tensor([r["reward"] for r in group])
        expected = (values - values.mean()) / (values.std() + 1e-4)
        torch.testing.assert_close(torch.tensor([r["advantage"] for r in group]), expected, atol=1e-4, rtol=1e-4)
    train = [m for m in read_lines(built.run.metrics) if m["phase"] == "train"]
    assert [m["step"] for m in train] == [1, 2]
    assert [m["policy_version"] for m in train] == [0, 1]
    for m in train:
        phases = [m[f"time/{p}"] for p in ("generation", "rewards", "logprobs", "training", "sync", "other")]
        assert all(x >= 0 for x in phases)
        assert m["time/generation"] > 0
        assert m["time/training"] > 0
        assert m["reward"] == pytest.approx(
            sum(r["reward"] for r in rollouts if r["step"] == m["step"] - 1) / 8, abs=1e-5
        )
        truncated = sum(r["finish"] == "length" for r in rollouts if r["step"] == m["step"] - 1) / 8
        assert m["completions/truncated"] == pytest.approx(truncated)


def test_the_same_seed_repeats_and_another_differs(parts):
    def texts(seed):
        built = parts(run={"name": f"seed-{seed}-{len(seen)}", "directory": str(seen_dir), "seed": seed})
        trainer = GRPO.build(built)
        trainer.train()
        built.stack.close()
        seen.append(seed)
        return [(r["row_id"], r["completion"]) for r in lines(built.run)]

    seen, seen_dir = [], parts().run.root.parent
    first = texts(3)
    assert texts(3) == first
    other = texts(4)
    assert {c for _, c in other}.isdisjoint({c for _, c in first} - {""})


def sometimes(completions, **_):
    """Fails on about one answer in four, by what it says; a number for the rest."""
    out = []
    for c in completions:
        text = c[0]["content"]
        if len(text.encode()) % 4 == 1:
            raise KeyError("answer")
        out.append(len(text) / 12)
    return out


def test_a_failing_reward_stops_the_run_in_one_line(parts):
    trainer = GRPO.build(parts(rewards=[sometimes]))
    with pytest.raises(
        Alarm, match=r"rewards.0 \(my.py:sometimes\): exception on row row-\d+ at step 0: KeyError: 'answer'"
    ):
        trainer.train()


def test_a_skipped_row_has_no_gradient_and_leaves_the_baseline(parts):
    built = parts(
        rewards=[sometimes, parts.letters], settings={"sometimes": {"on_error": {"do": "skip_row", "at_most": 1.0}}},
        args={"max_steps": 3},
    )  # fmt: skip
    GRPO.build(built).train()
    built.stack.close()
    rollouts = lines(built.run)
    skipped = [r for r in rollouts if r["reward"] is None]
    assert skipped
    assert len(skipped) < len(rollouts)
    for r in skipped:
        assert r["rewards"]["sometimes"] is None
        assert r["advantage"] == 0
        assert "KeyError" in r["faults"][0]
    for group in (rollouts[i : i + 4] for i in range(0, len(rollouts), 4)):
        kept = [r for r in group if r["reward"] is not None]
        if len(kept) > 1:
            assert sum(r["advantage"] for r in kept) == pytest.approx(0, abs=1e-4)
            values = torch.tensor([r["reward"] for r in kept])
            expected = (values - values.mean()) / (values.std() + 1e-4)
            torch.testing.assert_close(torch.tensor([r["advantage"] for r in kept]), expected, atol=1e-3, rtol=1e-3)
    faults = list(read_lines(built.run.faults))
    assert {f["row_id"] for f in faults} == {r["row_id"] for r in skipped}
    shares = [m["rewards/sometimes/faults"] for m in read_lines(built.run.metrics) if m["phase"] == "train"]
    assert sum(shares) / len(shares) == pytest.approx(len(skipped) / len(rollouts))


def test_too_many_skipped_rows_stop_the_run(parts):
    built = parts(rewards=[sometimes], settings={"sometimes": {"on_error": {"do": "skip_row", "at_most": 0.001}}})
    with pytest.raises(Alarm, match=r"rows could not be judged, at_most 0\.001 allows 1;"):
        GRPO.build(built).train()


def test_correction_on_an_engine_with_other_numerics(parts):
    """A sampler whose log-probs are off by a known amount: ratios, metrics and advantages by hand."""
    built = parts(rollouts={"sampling": {"max_tokens": 12}, "correction": {"mode": "token_truncate", "clip_max": 1.1}},
                  args={"max_steps": 1}, watch={"parity": 1.0})  # fmt: skip
    generate = built.engine.generate

    def off(*args):
        for completion in (made := generate(*args)):
            completion.logprobs[:] = [x - 0.05 if i % 2 else x - 0.5 for i, x in enumerate(completion.logprobs)]
        return made

    built.engine.generate = off
    trainer = GRPO.build(built)
    batches = []
    inner = trainer._generate_and_score_completions
    trainer._generate_and_score_completions = lambda rows: batches.append(inner(rows)) or batches[-1]
    trainer.train()
    batch = batches[0]
    assert batch["advantages"].shape == batch["completion_ids"].shape
    per_row = torch.tensor([r["advantage"] for r in lines_after(built)])
    weights = torch.where(torch.arange(12) % 2 == 0, 1.1, math.exp(0.05))[: batch["advantages"].shape[1]]
    mask = batch["completion_mask"]
    torch.testing.assert_close(
        batch["advantages"] * mask, per_row[:, None] * weights[None] * mask, atol=1e-4, rtol=1e-4
    )
    metrics = next(m for m in read_lines(built.run.metrics) if m["phase"] == "train")
    assert metrics["sampling/sampling_logp_difference/max"] == pytest.approx(0.5, abs=1e-4)
    assert 0.9 < metrics["sampling/ess"] <= 1


def lines_after(built):
    built.stack.close()
    return lines(built.run)
