"""Scaffolded rollouts in real short trainings: which prompt the engine sees, which the loss, and what the correction is about."""

from __future__ import annotations

import json

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from posttrain.errors import Mistake
from posttrain.rundir import read_lines
from posttrain.trainers import scaffolds
from posttrain.trainers.grpo import GRPO
from posttrain.trainers.rloo import RLOO
from rollouts.prompts import encode
from rollouts.records import Rollout
from rollouts.strategies.scaffold import Scaffold

RUBRIC = [{"criterion": c, "points": p} for c, p in (("ab", 3), ("cd", 5), ("ef", -4), ("gh", 2), ("ij", 1))]


class Terse(Scaffold):
    """A short text: the tiny model's tokens are characters."""

    def text(self, row, shown):
        return "hint " + " ".join(RUBRIC[i]["criterion"] for i in shown)


ALWAYS = {"inter": "constant", "place": "user"}


def scaffolded(built, **options):
    built.strategy = Terse(**{**ALWAYS, **options})
    built.train = built.train.add_column("rubric", [RUBRIC] * len(built.train))
    return built


def plain_of(built, row):
    return encode(built.tokenizer, row["prompt"])


class Spy:
    """Every prompt that a forward pass of the trainer saw, and what the engine was asked."""

    def __init__(self, trainer, built):
        self.old, self.training, self.reference, self.asked = [], [], [], []
        inner = trainer._get_per_token_logps_and_entropies

        def forward(model, input_ids, attention_mask, keep, *rest, **more):
            prompts = [
                ids[mask.bool()].tolist()
                for ids, mask in zip(input_ids[:, :-keep], attention_mask[:, :-keep], strict=True)
            ]
            # A new adapter's reference is the base model: its layers are switched off for that pass.
            off = any(m.disable_adapters for m in trainer.model.modules() if isinstance(m, BaseTunerLayer))
            where = self.training if torch.is_grad_enabled() else self.reference if off else self.old
            where.append(prompts)
            return inner(model, input_ids, attention_mask, keep, *rest, **more)

        trainer._get_per_token_logps_and_entropies = forward
        generate = built.engine.generate

        def ask(prompt_ids, *rest):
            self.asked.append([list(ids) for ids in prompt_ids])
            return generate(prompt_ids, *rest)

        built.engine.generate = ask


# Two updates a batch, so that old log-probs are stored; and a reference.
BOTH = {"per_device_train_batch_size": 4, "steps_per_generation": 2, "gradient_accumulation_steps": 1, "max_steps": 2, "beta": 0.1}  # fmt: skip


def run(built, kind=GRPO):
    trainer = kind.build(built)
    spy = Spy(trainer, built)
    made = []
    inner = trainer._generate_and_score_completions
    trainer._generate_and_score_completions = lambda rows: (
        made.append((inner(rows), trainer.bridge.made)) or made[-1][0]
    )
    trainer.train()
    built.stack.close()
    return trainer, spy, made


def lines(built):
    return [json.loads(x) for f in sorted(built.run.rollouts.iterdir()) for x in f.read_text().splitlines()]


def train_lines(built):
    return [m for m in read_lines(built.run.metrics) if m["phase"] == "train"]


def prove(built, in_loss, corrected=False):
    """Card, Numbers for tests: old, reference and training forwards see the unscaffolded template output for all i, and the
    engine's ids differ exactly for n_i > 0; `in_loss` is the other way round. A correction adds one forward pass, without
    gradient, of what the engine saw."""
    scaffolded(built, in_loss=in_loss)
    _, spy, ((_, made),) = run(built)
    of_row = {row["row_id"]: plain_of(built, row) for row in built.train}
    plain = [of_row[r.row_id] for r in made]
    asked = spy.asked[-1]  # before it, the invariants have asked it some things
    shown = [bool(r.info["scaffold_shown"]) for r in made]
    assert [r.sample for r in made] == [0, 1, 2, 3] * 2
    assert shown == [True, True, True, False] * 2
    assert [a != p for a, p in zip(asked, plain, strict=True)] == shown
    expected = sorted(asked if in_loss else plain)
    for passes in (spy.old, spy.reference, spy.training):
        assert passes
        more = asked if corrected and passes is spy.old else []
        assert sorted(p for batch in passes for p in batch) == sorted(expected + more), (
            "of all rows of the batch, once"
        )
    assert [r.prompt_ids for r in made] == (asked if in_loss else plain)
    assert [r.asked_ids for r in made] == asked


@pytest.mark.parametrize("in_loss", [False, True])
def test_the_prompt_proof(parts, in_loss):
    prove(parts(args=BOTH), in_loss)


def test_every_pass_over_a_batch_is_without_the_scaffold(parts):
    """Two passes of two updates: the engine is asked once, and the run has one rollout iteration."""
    built = scaffolded(parts(args={**BOTH, "num_iterations": 2, "max_steps": 4}), inter="sigmoid")
    _, spy, ((_, made),) = run(built)
    of_row = {row["row_id"]: plain_of(built, row) for row in built.train}
    plain = sorted(of_row[r.row_id] for r in made)
    assert sorted(p for batch in spy.training for p in batch) == sorted(plain * 2)
    assert sorted(p for batch in spy.old for p in batch) == plain
    assert any(r.seen_ids for r in made)
    assert built.strategy.steps == 1


def test_the_prompt_proof_under_a_correction(parts):
    prove(parts(args=BOTH, **correction("geometric_mask")), in_loss=False, corrected=True)


def proof_and_correction(parts, engine):
    """Both ways on one engine, and a correction: it is of the size of the engines' rounding, not of the scaffold."""
    for mode, in_loss in (("off", False), ("off", True), ("token_truncate", False)):
        built = parts(args=BOTH, **correction(mode))
        built.engine = engine
        prove(built, in_loss, corrected=mode != "off")
    metrics = train_lines(built)
    assert max(m["sampling/sampling_logp_difference/max"] for m in metrics if "sampling/ess" in m) < 1e-3
    gaps = [abs(v) for m in metrics for k, v in m.items() if k.startswith("scaffold/gap/")]
    print(
        f"gaps of the scaffold: {gaps}; correction: {[m.get('sampling/sampling_logp_difference/max') for m in metrics]}"
    )
    assert max(gaps) > 0.1


@pytest.mark.vllm
def test_the_prompt_proof_on_vllm(parts):
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from rollouts.engines.vllm import VLLMEngine

    engine = VLLMEngine(parts().engine.spec)
    try:
        proof_and_correction(parts, engine)
    finally:
        engine.close()


@pytest.mark.vllm
def test_the_prompt_proof_on_a_vllm_server(parts, served, monkeypatch):
    from rollouts.engines.vllm_server import VLLMServerEngine

    monkeypatch.setenv("POSTTRAIN_VLLM_KEY", served.key)
    engine = VLLMServerEngine(parts().engine.spec, urls=[served.url], takeover=True)
    try:
        proof_and_correction(parts, engine)
    finally:
        engine.close()


def test_what_a_run_records_and_measures(parts):
    built = scaffolded(parts(args={"max_steps": 2}))
    run(built)
    records = lines(built)
    for r in records:
        n = [5, 3, 2, 0][r["sample"]]
        assert len(r["info"]["scaffold_shown"]) == n
        assert (r["info"]["scaffold_tokens"] > 0) == (n > 0)
        assert r["info"]["scaffold_ratio"] == pytest.approx(1 - r["sample"] / 3)
    for m in train_lines(built):
        now = [r for r in records if r["step"] == m["step"] - 1]
        assert m["scaffold/shown"] == pytest.approx(0.75)
        assert m["scaffold/ratio"] == pytest.approx(0.5)
        assert m["scaffold/leak"] == sum(r["info"]["scaffold_leak"] for r in now) / 8
        assert m["scaffold/tokens"] == pytest.approx(sum(r["info"]["scaffold_tokens"] for r in now) / 8)
        for i in range(4):
            mean = sum(r["advantage"] for r in now if r["sample"] == i) / 2
            assert m[f"scaffold/advantage/{i + 1}"] == pytest.approx(mean, abs=1e-5)


@pytest.mark.parametrize("args", [{"max_steps": 1}, {**BOTH, "max_steps": 2, "logging_steps": 2}])
def test_the_gap_is_that_of_two_forward_passes(parts, args):
    """With the transformers engine the sampler is the trainer: the gap is the policy's, under the two prompts."""
    built = scaffolded(parts(args={"learning_rate": 1e-12, **args}))
    trainer, _, ((_, made),) = run(built)
    model = trainer.accelerator.unwrap_model(trainer.model).eval()

    def logps(prompt, completion):
        ids = torch.tensor([[*prompt, *completion]])
        with torch.no_grad():
            values = torch.log_softmax(model(ids).logits[0, len(prompt) - 1 : -1].float(), -1)
        return values.gather(-1, torch.tensor(completion)[:, None])[:, 0]

    (metrics,) = train_lines(built)
    assert "scaffold/gap/4" not in metrics, "the last sample is not scaffolded"
    for i in (1, 2, 3):
        mine = [r for r in made if r.sample == i - 1]
        gaps = [logps(r.seen_ids, r.completion_ids) - logps(r.prompt_ids, r.completion_ids) for r in mine]
        # Two micro-batches of a batch are logged as their mean.
        expected = torch.cat(gaps).mean() if len(args) == 1 else None
        if expected is not None:
            assert metrics[f"scaffold/gap/{i}"] == pytest.approx(expected.item(), abs=1e-4)
        assert abs(metrics[f"scaffold/gap/{i}"]) > 0.01


def correction(mode, **more):
    return {"rollouts": {"sampling": {"max_tokens": 12}, "correction": {"mode": mode, **more}}}


def test_auto_corrects_nothing_where_the_strategy_shows_more(parts):
    built = parts()
    built.engine.same_numerics = False
    assert GRPO.build(built).correction is not None
    for in_loss in (False, True):
        built = scaffolded(parts(), in_loss=in_loss)
        built.engine.same_numerics = False
        assert (GRPO.build(built).correction is None) == (not in_loss)
    built = scaffolded(parts(**correction("token_truncate")))
    assert GRPO.build(built).correction.mode == "token_truncate"


@pytest.mark.parametrize(
    "mode", ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask", "geometric_mask"]
)
def test_a_named_mode_is_about_the_prompt_that_was_seen(parts, mode):
    """Float32 and the trainer's own module as sampler: every weight is 1 within 1e-5, although the log-probs under the plain
    prompt are far from the sampler's."""
    built = scaffolded(parts(args={"max_steps": 1}, **correction(mode)))
    trainer, _, ((output, made),) = run(built)
    mask = output["completion_mask"]
    seen = scaffolds.seen_batch(made, trainer._tokenizer.pad_token_id, "cpu")
    with torch.no_grad():
        trainer.model.train()
        under = trainer._log_probs(output, *seen)
        plain = trainer._log_probs(output, output["prompt_ids"], output["prompt_mask"])
    sampler = output["sampling_per_token_logps"]
    scaffolded_rows = scaffolds.levels(made) > 0
    far = ((plain - sampler).abs() * mask)[scaffolded_rows].max()
    assert far > 0.1, "the two prompts should differ by much"
    raw = torch.tensor([r["advantage"] for r in lines(built)])
    weights = output["advantages"] / raw[:, None]
    live = (mask.bool() if weights.shape[1] > 1 else torch.ones_like(weights).bool()) & (raw != 0)[:, None]
    assert live.any()
    assert (weights[live] - 1).abs().max() < 1e-5
    # The weights were worked out before the step; after it the policy has moved a little.
    assert ((under - sampler).abs() * mask).max() < 0.1 * far
    metrics = train_lines(built)[0]
    assert metrics["sampling/sampling_logp_difference/max"] < 1e-5
    assert metrics["sampling/ess"] == pytest.approx(1, abs=1e-5)
    assert metrics["sampling/dropped"] == 0


@pytest.mark.parametrize("loss_type", ["dapo", "vespo", "grpo"])
@pytest.mark.parametrize("extra", [{}, BOTH], ids=["one update", "two updates"])
def test_with_weights_of_one_the_step_is_that_without_a_correction(parts, loss_type, extra):
    ends = []
    for mode in ("off", "token_truncate"):
        built = scaffolded(parts(args={"max_steps": 1, **extra, "loss_type": loss_type}, **correction(mode)))
        trainer, _, made = run(built)
        if mode != "off" and loss_type == "vespo":
            assert (made[0][0]["importance_sampling_ratio"] - 1).abs().max() < 1e-5
        ends.append({k: v.detach() for k, v in trainer.model.named_parameters() if v.requires_grad})
    assert any(v.abs().max() > 0 for k, v in ends[0].items() if "lora_B" in k)
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, rtol=2e-3, atol=2e-6)


def test_a_sampler_that_is_off_is_weighed_by_how_far_it_is_off_and_so_is_the_gradient(parts):
    """The engine reports log-probs that are 0.3 too low: every token's weight is e^0.3, and so the gradient's, to the digit."""
    grads = []
    for lower in (0.0, 0.3):
        built = scaffolded(
            parts(args={"max_steps": 1, "loss_type": "dapo", "max_grad_norm": 0.0}, watch={"parity": 1.0},
                  **correction("token_truncate", clip_max=5.0))
        )  # fmt: skip
        generate = built.engine.generate

        def off(*given, generate=generate, lower=lower):
            for completion in (made := generate(*given)):
                completion.logprobs[:] = [x - lower for x in completion.logprobs]
            return made

        built.engine.generate = off
        trainer = GRPO.build(built)
        kept = {}
        trainer.add_callback(Gradients(trainer, kept))
        trainer.train()
        built.stack.close()
        grads.append(kept)
    factor = torch.tensor(0.3).exp()
    assert any(g.abs().max() > 1e-4 for g in grads[0].values())
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad * factor, rtol=1e-3, atol=1e-7)


class Gradients:
    def __new__(cls, trainer, kept):
        from transformers import TrainerCallback

        class Callback(TrainerCallback):
            def on_pre_optimizer_step(self, *_, **__):
                kept.update({k: p.grad.clone() for k, p in trainer.model.named_parameters() if p.grad is not None})

        return Callback()


def test_dropped_negatives_have_no_gradient_and_the_others_keep_theirs(parts):
    kept, dropped = [], []
    for option, into in (("keep", kept), ("drop", dropped)):
        built = scaffolded(parts(args={"max_steps": 1}), scaffold_negative=option)
        run(built)
        into += lines(built)
    assert any(r["advantage"] < 0 and r["info"]["scaffold_shown"] for r in kept)
    for before, after in zip(kept, dropped, strict=True):
        assert before["completion"] == after["completion"]
        gone = before["info"]["scaffold_shown"] and before["advantage"] < 0
        assert after["advantage"] == (0 if gone else before["advantage"])


def test_only_scaffolded_ones_are_dropped():
    def rollout(sample, seen):
        return Rollout("a", sample, 0, [1], [2], [-1.0], [1], "stop", seen_ids=seen)

    advantages = torch.tensor([-1.0, 1.0, -0.5, -2.0])
    scaffolds.drop_negative(advantages, [rollout(0, [3, 1]), rollout(1, [3, 1]), rollout(2, None), rollout(3, [4, 1])])
    assert advantages.tolist() == [0.0, 1.0, -0.5, 0.0]


def test_rloo_works_with_a_scaffold_but_not_with_one_in_the_loss(parts):
    built = scaffolded(parts(algorithm="rloo", args={"max_steps": 2, "beta": 0.1}))
    _, spy, made = run(built, RLOO)
    of_row = {row["row_id"]: plain_of(built, row) for row in built.train}
    expected = sorted(of_row[r.row_id] for _, batch in made for r in batch)
    for passes in (spy.old, spy.reference, spy.training):
        assert sorted(p for batch in passes for p in batch) == expected
    assert train_lines(built)[0]["scaffold/shown"] == pytest.approx(0.75)
    with pytest.raises(Mistake, match="rloo needs one that asks the row's own prompt"):
        run(scaffolded(parts(algorithm="rloo"), in_loss=True), RLOO)


def test_whatever_was_shown_all_of_the_rubric_scores(parts):
    """Else the samples of a group could not be compared."""
    from functools import partial

    from rewards.rubric import Rubric

    scored = [
        {"criterion": c, "points": p, "check": {"contains": c}}
        for c, p in (("a", 3), ("e", 5), ("o", -4), ("%", 2), ("7", 1))
    ]
    make = partial(Rubric)
    make.__name__ = "rubric"
    built = parts(rewards=[make], args={"max_steps": 2})
    built.strategy = Terse(**ALWAYS)
    built.train = built.train.add_column("rubric", [scored] * len(built.train))
    run(built)
    records = lines(built)
    assert {len(r["info"]["scaffold_shown"]) for r in records} == {5, 3, 2, 0}
    for r in records:
        met = [item["criterion"] in r["completion"] for item in scored]
        assert [c["verdict"] == "met" for c in r["extras"]["rubric"]["criteria"]] == met
        assert r["reward"] == pytest.approx(sum(m * item["points"] for m, item in zip(met, scored, strict=True)) / 11)


class Own(Scaffold):
    """A short text, of what stands in the row."""

    def text(self, row, shown):
        return "hint " + " ".join(row.columns["rubric"][i]["criterion"] for i in shown)


@pytest.mark.parametrize(("kind", "algorithm"), [(GRPO, "grpo"), (RLOO, "rloo")])
def test_each_row_is_shown_its_own_rubric_and_rewards_get_the_question_and_all_of_it(parts, kind, algorithm):
    """Card, pitfalls 4 and 5. What was shown reaches them beside it, under names of its own."""
    heard = []

    def asking(prompts, completions, rubric, answer, scaffold_shown, scaffold_leak, **columns):
        heard.extend(zip(prompts, rubric, answer, scaffold_shown, scaffold_leak, strict=True))
        return parts.letters(completions)

    built = parts(algorithm=algorithm, rewards=[asking], args={"max_steps": 1, "beta": 0.0})
    built.strategy = Own(**ALWAYS)
    own = [[{"criterion": f"{c}{i}{c}", "points": 1} for c in "abcde"] for i in range(16)]
    built.train = built.train.add_column("rubric", own)
    _, spy, ((_, rollouts),) = run(built, kind)
    asked = spy.asked[-1]  # before it, the invariants have asked it some things
    assert len(heard) == len(rollouts) == 8
    for (prompt, rubric, answer, shown, leak), rollout, ids in zip(heard, rollouts, asked, strict=True):
        number = int(rollout.row_id.removeprefix("row-"))
        assert prompt == [{"role": "user", "content": f"say {number}"}]
        assert (answer, [item["criterion"] for item in rubric]) == (str(number), [x["criterion"] for x in own[number]])
        assert (shown, leak) == (rollout.info["scaffold_shown"], rollout.info["scaffold_leak"])
        text = built.tokenizer.decode(ids)
        told = [
            c for row in own for c in (item["criterion"] for item in row) if f" {c} " in f" {text} ".replace("\n", " ")
        ]
        assert sorted(told) == sorted(own[number][i]["criterion"] for i in shown)
    assert len({r.row_id for r in rollouts}) == 2


def test_scaffolds_in_the_loss_are_measured_too(parts):
    built = scaffolded(parts(args={"max_steps": 1}), in_loss=True)
    run(built)
    (m,) = train_lines(built)
    assert (m["scaffold/shown"], m["scaffold/ratio"]) == pytest.approx((0.75, 0.5))
    assert {"scaffold/tokens", "scaffold/leak", "scaffold/advantage/1"} <= m.keys()
    assert not any(k.startswith("scaffold/gap") for k in m), "the prompts are one"


def test_held_out_rows_are_never_scaffolded(parts):
    held = {"train": {"path": "unused.jsonl"}, "eval": {"path": "unused.jsonl"}}
    built = scaffolded(parts(args={"max_steps": 1, "eval_strategy": "steps", "eval_steps": 1}, data=held))
    built.eval = built.train.select(range(8))
    run(built)
    held_out = [r for r in lines(built) if r["phase"] == "eval"]
    assert held_out
    assert all("info" not in r for r in held_out)
    trained = [r for r in lines(built) if r["phase"] == "train"]
    assert any(r["info"]["scaffold_shown"] for r in trained)


def test_the_adaptive_schedule_hears_what_groups_got_and_its_state_is_in_the_checkpoint(parts):
    built = scaffolded(parts(args={"max_steps": 2}), inter="adaptive", passes=0.5)
    trainer, _, _ = run(built)
    records = lines(built)
    for row_id, rate in built.strategy.rates.items():
        got = [r["reward"] for r in records if r["row_id"] == row_id]
        assert rate == sum(x >= 0.5 for x in got) / 4
    assert set(built.strategy.rates) == {r["row_id"] for r in records}
    assert trainer.boundary.plain["stateful"]["strategy"]["rates"] == built.strategy.rates


def test_the_length_of_the_run_is_in_the_checkpoint(parts):
    built = scaffolded(parts(args={"max_steps": 3}), inter="sigmoid")
    trainer, _, _ = run(built)
    assert trainer.boundary.plain["stateful"]["strategy"] == {"steps": 3, "rates": {}}
