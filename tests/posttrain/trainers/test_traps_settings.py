"""TRL's traps in settings and batches: bare TRL falls in; ours refuses with a line, or does what was meant."""

from __future__ import annotations

import json

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from posttrain.errors import Mistake
from posttrain.plan.batches import geometry
from posttrain.rundir import read_lines
from posttrain.trainers.grpo import GRPO
from posttrain.trainers.rloo import RLOO
from posttrain.trainers.sft import SFT
from rollouts.records import Sampling


def steps(built):
    return [m for m in read_lines(built.run.metrics) if m["phase"] == "train"]


def refused(parts, match, **args):
    """A recipe with these `trainer.args` is one line."""
    algorithm = args.pop("algorithm", "grpo")
    with pytest.raises(Mistake, match=match) as caught:
        parts(algorithm=algorithm, rewards=[parts.letters] if algorithm == "grpo" else [], args=args)
    assert "\n" not in str(caught.value)


def ids(prompts):
    return [[5 + i, *range(20, 21 + i), 1] for i in range(len(prompts))]


def chosen(completions, **_):
    return [float(i % 4 == 0) for i in range(len(completions))]


# -- batches ------------------------------------------------------------------------------------------------------


def test_too_few_prompts_are_no_steps(bare):
    """TRL: 0 steps, and nothing says so (with `max_steps`; without, a line about a loader's length). Ours: no run."""
    rows = Dataset.from_list([{"prompt": [{"role": "user", "content": "say 1"}]}])
    args = {"num_generations": 4, "per_device_train_batch_size": 8}
    theirs = bare(ids=ids, rows=rows, max_steps=3, **args)
    theirs.train()
    assert theirs.state.global_step == 0
    assert not any("grad_norm" in line for line in theirs.state.log_history)
    for limit in ({"max_steps": 3}, {"num_train_epochs": 2}):
        with pytest.raises(
            Mistake, match=r"data.train: 1 row, but a generation batch asks 2 different prompts .* 0 st"
        ):
            geometry(args | limit, 1, 1, "grpo")


def test_the_tail_of_an_epoch_is_counted(bare):
    """Kept: rows that make no whole generation batch are left out of an epoch. Ours says how many."""
    rows = Dataset.from_list([{"prompt": [{"role": "user", "content": f"say {i}"}]} for i in range(7)])
    args = {"num_generations": 4, "per_device_train_batch_size": 12, "max_steps": -1, "num_train_epochs": 1}
    theirs = bare(ids=ids, rows=rows, **args)
    asked = set(iter(theirs._get_train_sampler()))
    plan = geometry(args, 7, 1, "grpo")
    assert len(asked) == 7 - plan.rows_dropped_per_epoch == 6
    theirs.train()
    assert theirs.state.global_step == plan.total_steps == 2


def test_padding_to_the_longest_of_the_generation_is_kept(parts, bare):
    """Kept: micro-batches are not trimmed to their own longest row, so part of the passes is over padding."""
    args = {
        "steps_per_generation": 4,
        "gradient_accumulation_steps": 4,
        "per_device_train_batch_size": 2,
        "max_steps": 1,
    }
    for trainer in (bare(ids=ids, **args), GRPO.build(built := parts(args=args))):
        if trainer.rollout_func.__class__.__name__ == "Bridge":
            built.sampling = trainer.bridge.sampling = Sampling(max_tokens=16, stop=("a", "e", "1"))
        trainer.train()
        widths = {b["completion_ids"].shape[1] for b in trainer._buffered_inputs}
        longest = [int(b["completion_mask"].sum(1).max()) for b in trainer._buffered_inputs]
        assert widths == {max(longest)}
        assert min(longest) < max(longest)
    built.stack.close()


# -- losses -------------------------------------------------------------------------------------------------------


def test_cispo_by_default_caps_every_weight_at_a_fifth(parts, bare):
    def norm(**args):
        theirs = bare(chosen, ids=ids, loss_type="cispo", max_steps=1, max_grad_norm=1e9, **args)
        theirs.train()
        return theirs.state.log_history[0]

    default, meant = norm(), norm(epsilon_high=5.0)
    assert default["grad_norm"] == pytest.approx(0.2 * meant["grad_norm"], rel=1e-3)
    assert default["cispo_clip_ratio"] > 0
    refused(parts, "loss_type: cispo needs epsilon_high, the cap of its weights", loss_type="cispo")
    refused(parts, r"epsilon_high: 0.28 is below 1: cispo takes it as the cap", loss_type="cispo", epsilon_high=0.28)
    parts(args={"loss_type": "cispo", "epsilon_high": 5.0})


@pytest.mark.parametrize("loss", ["aot", "aot_unpaired"])
def test_pair_losses_that_cannot_be_accumulated(parts, loss):
    line = rf"gradient_accumulation_steps: {loss} sorts the pairs of a micro-batch, so 4 micro-batches"
    refused(parts, line, algorithm="dpo", loss_type=["sigmoid", loss], gradient_accumulation_steps=4)
    refused(parts, line, algorithm="dpo", loss_type=loss, gradient_accumulation_steps=4)
    parts(algorithm="dpo", rewards=[], args={"loss_type": [loss]})
    refused(
        parts,
        "use_weighting with loss_type sft gives another gradient in 2",
        algorithm="dpo",
        loss_type=["sigmoid", "sft"],
        use_weighting=True,
        gradient_accumulation_steps=2,
    )


def test_a_wrong_word_is_found_before_anything_is_loaded(parts, bare):
    """TRL: a misspelt loss fails after the model is loaded and a whole batch is sampled."""
    from posttrain.recipe.check import check

    sampled = []
    with pytest.raises(ValueError, match="dapoo"):
        bare(ids=lambda prompts: sampled.append(1) or ids(prompts), loss_type="dapoo", max_steps=1).train()
    assert sampled
    with pytest.raises(Mistake, match=r"trainer.args.loss_type: .*dapoo.*dapo"):
        check(parts(args={"loss_type": "dapoo"}).recipe)


# -- settings that no recipe can reach ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "place"),
    [
        ({"use_transformers_continuous_batching": True}, "rollouts.engine"),
        ({"generation_kwargs": {"logprobs": 3}}, "rollouts.sampling"),
        ({"vllm_importance_sampling_mode": "sequence_mask"}, "rollouts.correction.mode"),
        ({"use_vllm": True}, r"rollouts.engine \(vllm or vllm-server\)"),
        ({"model_init_kwargs": {"dtype": "bfloat16"}}, r"model \(dtype"),
        ({"max_tool_calling_iterations": 3}, "rollouts.strategy.with"),
        ({"resume_from_checkpoint": "x"}, "nowhere|does not belong in a recipe"),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_settings_that_lead_into_a_trap_have_another_home(parts, args, place):
    refused(parts, rf"trainer.args.{next(iter(args))}: .*{place}", **args)


def test_continuous_batching_casts_the_training_weights(bare):
    """TRL: float32 weights are bfloat16 after the first generation, for good."""
    theirs = bare(max_steps=1, bf16=True, use_transformers_continuous_batching=True, adapter=False)
    before = {p.dtype for p in theirs.model.parameters()}
    theirs.train()
    assert (before, {p.dtype for p in theirs.model.parameters()}) == ({torch.float32}, {torch.bfloat16})


def test_evaluation_over_the_table_of_a_step_is_refused(parts):
    refused_with = {"eval_strategy": "steps", "eval_steps": 1, "log_completions": True}
    with pytest.raises(Mistake, match="log_completions: TRL writes the completions of an evaluation over those"):
        parts(args=refused_with, data={"train": {"path": "x.jsonl"}, "eval": {"path": "x.jsonl"}})


# -- models -------------------------------------------------------------------------------------------------------


def test_weights_are_held_in_the_type_that_the_recipe_names(parts, bare, tiny):
    """TRL: `bf16: true` holds float32 weights where a name is given. Ours: `model.dtype`, float32 unless it says else."""
    from posttrain import models

    theirs = bare(ids=ids, model=tiny, bf16=True, adapter=False, max_steps=1)
    assert {p.dtype for p in theirs.model.parameters()} == {torch.float32}
    for name in ("float32", "bfloat16"):
        loaded = models.load_model(parts(model={"name": tiny, "dtype": name}).recipe.model)
        assert {p.dtype for p in loaded.parameters()} == {getattr(torch, name)}
    assert parts().recipe.model.dtype == "float32"


def changed(tiny):
    """The model of the folder with other weights: what a merged adapter or another revision would be."""
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    return model


def test_the_reference_is_the_policy_at_the_start(parts, bare, tiny):
    """TRL loads the reference by name: not the weights that the run began with. Ours has the KL 0 that it must have."""
    args = {"beta": 0.1, "max_steps": 1}
    theirs = bare(ids=ids, model=changed(tiny), adapter=False, **args)
    theirs.train()
    assert theirs.state.log_history[0]["kl"] > 1e-3
    for kind, algorithm in ((GRPO, "grpo"), (RLOO, "rloo")):
        built = parts(algorithm=algorithm, args=args, adapter=None)
        built.model = changed(tiny)
        kind.build(built).train()
        built.stack.close()
        assert abs(steps(built)[0]["kl"]) < 1e-6


# -- beginnings ---------------------------------------------------------------------------------------------------


@pytest.fixture
def with_bos(tiny):
    """A tokenizer that puts a BOS before plain text, and a prompt to which a template was applied already."""
    from tokenizers.processors import TemplateProcessing

    made = AutoTokenizer.from_pretrained(tiny)
    made.bos_token = "<|system|>"
    bos = made.convert_tokens_to_ids("<|system|>")
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|system|> $A", special_tokens=[("<|system|>", bos)]
    )
    return made


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_one_bos(parts, bare, with_bos, algorithm):
    """TRL: text on which a template was applied gets a second BOS."""
    rows = Dataset.from_list([{"row_id": f"r{i}", "prompt": f"<|system|>say {i}"} for i in range(4)])
    bos = with_bos.bos_token_id
    theirs = bare(algorithm=algorithm, rows=rows)
    theirs.processing_class = with_bos
    assert theirs._tokenize_prompts(["<|system|>say 1"])[0][0][:2] == [bos, bos]
    built = parts(algorithm=algorithm, args={"max_steps": 1})
    built.train, built.tokenizer = rows, with_bos
    {"grpo": GRPO, "rloo": RLOO}[algorithm].build(built).train()
    built.stack.close()
    lengths = [
        json.loads(x)["prompt_tokens"] for f in built.run.rollouts.iterdir() for x in f.read_text().splitlines()
    ]
    assert set(lengths) == {len(with_bos("say 1")["input_ids"])}


def test_long_answers_are_not_cut_silently(parts):
    """TRL's sft and dpo cut rows at 1024 tokens. Ours: not at all, unless the recipe gives a length."""
    import trl

    assert trl.SFTConfig(output_dir="x", use_cpu=True, bf16=False).max_length == 1024
    built = parts(rewards=[], algorithm="sft", args={"max_steps": 1, "per_device_train_batch_size": 1})
    built.train = Dataset.from_list(
        [{"row_id": "r", "prompt": [{"role": "user", "content": "say"}],
          "completion": [{"role": "assistant", "content": "1 2 3 " * 400}]}]
    )  # fmt: skip
    trainer = SFT.build(built)
    assert len(trainer.train_dataset[0]["input_ids"]) > 1024
    assert built.arguments["max_length"] is None
