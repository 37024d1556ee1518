"""Engines that are not the policy, and first samples from which nothing can be learned."""

from __future__ import annotations

import pytest
import torch

from rollouts.engines.transformers import TransformersEngine
from rollouts.records import EngineError, Policy


@pytest.fixture
def other_adapter(build, tmp_path):
    """An adapter that another run might have left: rank 16, with weights that matter."""
    trainer, _ = build(name="other")
    model = trainer.model
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(5)
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.05)
    model.save_pretrained(str(tmp_path / "other"), save_embedding_layers=False)
    return str(tmp_path / "other")


def served_from_files(engine_class):
    """An engine in place of the run's, on weights of its own that it loads from files."""

    def change(parts):
        parts.engine = engine_class(parts.engine.spec)

    return change


class Files(TransformersEngine):
    """Follows the policy by its adapter's folder, as vLLM does."""

    same_numerics = False


class Deaf(Files):
    """Takes every version for the base model: what an engine does whose adapter request is lost."""

    def sync(self, policy, *, publish=True):
        super().sync(Policy(policy.version), publish=publish)


class Late(Files):
    """Says that it is somewhere else."""

    def sync(self, policy, *, publish=True):
        super().sync(policy, publish=publish)
        self.version = policy.version + 1


class Broken(Files):
    def generate(self, *_):
        raise EngineError("broken engine: out of order; mend it")


def test_an_engine_that_follows_by_files(look):
    rows = look(change=served_from_files(Files))
    assert rows["log-probs"].ok
    assert rows["engine"].ok


def test_an_engine_with_another_adapter(look, other_adapter):
    class Other(Files):
        def sync(self, policy, *, publish=True):
            super().sync(Policy(policy.version, adapter_dir=other_adapter), publish=publish)

    row = look(change=served_from_files(Other))["log-probs"]
    assert row.ok is False
    assert "allowed 0.001, and 0.01 at most" in row.looked
    assert "another adapter" in row.mend


def test_an_engine_without_the_adapter(look, other_adapter):
    """Seen where the adapter does something at the start: a run that goes on from one."""
    start = (f"adapter.start_from={other_adapter}",)
    assert look(*start, change=served_from_files(Files))["log-probs"].ok
    row = look(*start, change=served_from_files(Deaf))["log-probs"]
    assert row.ok is False
    assert "the engine does not serve it" in row.mend


def test_an_engine_at_another_version(look):
    row = look(change=served_from_files(Late))["engine"]
    assert row.ok is False
    assert "serves version 1, the trainer is at 0" in row.looked


def test_an_engine_that_does_not_answer(look):
    row = look(change=served_from_files(Broken))["log-probs"]
    assert row.ok is False
    assert row.looked == "broken engine: out of order; mend it"


def test_another_dtype(look):
    """An engine in bfloat16 under a trainer in float32."""
    import dataclasses

    class Coarse(Files):
        def __init__(self, spec):
            super().__init__(dataclasses.replace(spec, dtype="bfloat16"))

    row = look(change=served_from_files(Coarse))["log-probs"]
    assert row.ok is False
    assert "another dtype" in row.mend
    assert look("watch.parity=0.2", change=served_from_files(Coarse))["log-probs"].ok


def test_truncated_sampling_is_compared_on_plain_samples(look):
    """top_k renormalises what the sampler reports; that is no fault of the engine's."""
    words = ("rollouts.sampling.top_k=2", "rollouts.sampling.repetition_penalty=1.2", "rollouts.correction.mode=off")
    row = look(*words, change=served_from_files(Files))["log-probs"]
    assert row.ok, row


def test_the_trainers_log_probs_are_those_of_a_plain_forward_pass(build, alone):
    from posttrain.preflight import probe
    from posttrain.preflight.scene import Scene

    trainer, parts = build("rollouts.sampling.temperature=0.7")
    scene = Scene(trainer, parts, alone, online=True)
    probe.begin(scene)
    one = max(scene.probe.scored, key=lambda s: len(s.rollout.completion_ids))
    r = one.rollout
    with torch.no_grad():
        logits = trainer.model(torch.tensor([[*r.prompt_ids, *r.completion_ids]])).logits[0].float() / 0.7
    expected = logits.log_softmax(-1)[len(r.prompt_ids) - 1 : -1].gather(1, torch.tensor(r.completion_ids)[:, None])[
        :, 0
    ]
    torch.testing.assert_close(torch.tensor(one.ours), expected, atol=1e-5, rtol=1e-5)


def hinted(parts):
    """A scaffold of a few characters in front of every question."""
    from rollouts.strategies.scaffold import Scaffold

    class Terse(Scaffold):
        def text(self, row, shown):
            return "hint " + " ".join(row.columns["rubric"][i]["criterion"] for i in shown)

    rubric = [{"criterion": c * 2, "points": 1} for c in "abcd"]
    parts.strategy = Terse(place="user")
    parts.train = parts.train.add_column("rubric", [rubric] * len(parts.train))


def test_scaffolded_rollouts_are_compared_under_the_prompt_that_was_seen(build, alone):
    from posttrain.preflight import probe
    from posttrain.preflight.scene import Scene

    trainer, parts = build(change=hinted)
    scene = Scene(trainer, parts, alone, online=True)
    probe.begin(scene)
    seen = [one for one in scene.probe.scored if one.rollout.seen_ids is not None]
    assert seen
    for one in seen:
        assert one.rollout.seen_ids != one.rollout.prompt_ids
        torch.testing.assert_close(torch.tensor(one.ours), torch.tensor(one.rollout.logprobs), atol=1e-4, rtol=1e-4)


def test_the_probe_is_what_the_run_will_draw(build, alone):
    """Rows that are in the first batch as well: same seed, same sample."""
    from posttrain.preflight import probe
    from posttrain.preflight.scene import Scene
    from posttrain.rundir import read_lines

    trainer, parts = build("data.train.with={n: 4}", "trainer.args.max_steps=1")
    scene = Scene(trainer, parts, alone, online=True)
    probe.begin(scene)
    drawn = {(r.row_id, r.sample): parts.tokenizer.decode(r.completion_ids, skip_special_tokens=True)
             for _, r in scene.probe.rollouts}  # fmt: skip
    trainer.train()
    parts.stack.close()
    made = {(r["row_id"], r["sample"]): r["completion"] for f in parts.run.rollouts.glob("*") for r in read_lines(f)}
    assert len(drawn) == 8
    assert drawn.items() <= made.items()


def test_no_reward_that_the_policy_ever_gets(look):
    """It asks for a form in which the policy never answers; the reward itself is in order."""
    rows = look("rewards=[{use: 'rewards.format:think_tags'}]")
    assert rows["reward think_tags: spread"].ok
    row = rows["probe: rewards"]
    assert row.ok is False
    assert row.looked.startswith("all 64 rollouts of 8 prompts have reward 0: another value in fewer than 5%")


def test_samples_that_are_all_alike(look, reward):
    """As good as greedy: prompts differ, the samples of one do not."""
    row = look(
        reward("return [float(len(t)) + int(a) for t, a in zip(texts, answer)]"),
        "rollouts.sampling.temperature=0.0001",
    )["probe: rewards"]
    assert row.ok is False
    assert "the samples of a prompt are all alike" in row.looked
    assert "temperature" in row.mend


def test_most_samples_are_cut(look):
    row = look("rollouts.sampling.max_tokens=20")["probe: length"]
    assert row.ok is False
    assert row.looked == "64 of 64 rollouts cut at 20 tokens"
