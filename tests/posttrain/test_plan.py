"""Batch arithmetic against TRL's and transformers' own, parameters against real models, memory against what autograd keeps."""

import math
from types import SimpleNamespace

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch.utils.data import BatchSampler, RandomSampler
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Trainer,
)
from trl import GRPOConfig
from trl.trainer.utils import RepeatSampler

from posttrain.errors import Mistake
from posttrain.plan import (
    BYTES,
    DEFAULTS,
    GROUP,
    Shape,
    activations,
    adapter_parameters,
    generation_batch,
    geometry,
    memory,
    memory_of,
    size,
)
from posttrain.recipe import load


class Wide(GRPOConfig):
    """TRL's configuration as it sees itself in a launch of several processes."""

    processes = 1
    world_size = property(lambda self: Wide.processes)


def trl_config(tmp_path, world, **args):
    Wide.processes = world
    return Wide(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", **args)


def trainer_counts(args, batches_per_process):
    """transformers' own count of steps, on a data loader of that length."""
    loader = SimpleNamespace(dataset=range(10))
    bare = SimpleNamespace(
        get_total_train_batch_size=lambda args: 1, get_sp_size=lambda: 1, num_examples=lambda loader: 10
    )

    class Loader:
        dataset = loader.dataset

        def __len__(self):
            return batches_per_process

    _, per_epoch, _, _, _, steps_in_epoch, max_steps = Trainer.set_initial_training_values(bare, args, Loader())
    return per_epoch, max_steps, steps_in_epoch


grid = st.fixed_dictionaries(
    {
        "per_device_train_batch_size": st.integers(1, 12),
        "gradient_accumulation_steps": st.integers(1, 6),
        "num_generations": st.integers(2, 8),
        "num_iterations": st.integers(1, 3),
    },
    optional={
        "steps_per_generation": st.integers(1, 6),
        "generation_batch_size": st.integers(1, 96),
        "max_steps": st.integers(1, 50),
        "num_train_epochs": st.sampled_from([0.3, 1.0, 2.0, 2.5]),
    },
)


@settings(max_examples=400, deadline=None)
@given(args=grid, rows=st.integers(0, 60), world=st.integers(1, 3))
def test_online_counts_are_trls(tmp_path_factory, args, rows, world):
    folder = tmp_path_factory.getbasetemp()
    try:
        config = trl_config(folder, world, **args)
    except ValueError:
        with pytest.raises(Mistake):
            generation_batch(args, world, args["num_generations"])
        return
    assert generation_batch(args, world, config.num_generations) == (
        config.generation_batch_size,
        config.steps_per_generation,
    )
    # As GRPOTrainer builds its sampler and data loader, and accelerate deals the batches out to processes.
    sampler = RepeatSampler(
        range(rows),
        mini_repeat_count=config.num_generations,
        batch_size=config.generation_batch_size // config.num_generations,
        repeat_count=config.num_iterations * config.steps_per_generation,
        seed=0,
    )
    batches = BatchSampler(sampler, config.per_device_train_batch_size * config.steps_per_generation, drop_last=False)
    share = list(BatchSamplerShard(batches, world, 0)) if world > 1 else list(batches)
    if not share:
        with pytest.raises(Mistake, match="0 steps"):
            geometry(args, rows, world, "grpo")
        return
    got = geometry(args, rows, world, "grpo")
    per_epoch, total, _ = trainer_counts(config, len(share))
    assert (got.steps_per_epoch, got.total_steps) == (per_epoch, total)
    assert got.rows_dropped_per_epoch == rows - len(set(sampler))
    assert got.rollouts_per_generation == config.generation_batch_size
    assert got.generations == _generations(len(share), per_epoch, total, config)
    assert got.rollouts == got.generations * config.generation_batch_size
    assert got.completion_tokens_at_most == got.rollouts * 512


def _generations(micro_steps, per_epoch, total, config):
    """Count by walking through the steps as Trainer and `GRPOTrainer._prepare_inputs` do."""
    made = step = micro = 0
    every = config.steps_per_generation * config.num_iterations
    while step < total:
        left_in_epoch = micro_steps
        for _ in range(per_epoch):
            for _ in range(min(config.gradient_accumulation_steps, left_in_epoch)):
                made += micro % every == 0
                micro += 1
                left_in_epoch -= 1
            step += 1
            if step == total:
                break
    return made


@settings(max_examples=300, deadline=None)
@given(
    rows=st.integers(1, 100),
    per_device=st.integers(1, 9),
    world=st.integers(1, 4),
    accumulation=st.integers(1, 4),
    drop=st.booleans(),
    steps=st.sampled_from([-1, -1, 7]),
)
def test_offline_counts_are_those_of_the_data_loader(
    tmp_path_factory, rows, per_device, world, accumulation, drop, steps
):
    batches = BatchSampler(RandomSampler(range(rows)), per_device, drop_last=drop)
    share = len(BatchSamplerShard(batches, world, 0)) if world > 1 else len(batches)
    args = {
        "per_device_train_batch_size": per_device,
        "gradient_accumulation_steps": accumulation,
        "dataloader_drop_last": drop,
        "max_steps": steps,
        "num_train_epochs": 2.0,
    }
    if share == 0:
        with pytest.raises(Mistake, match="0 steps"):
            geometry(args, rows, world, "sft")
        return
    got = geometry(args, rows, world, "dpo")
    assert (got.steps_per_epoch, got.total_steps) == trainer_counts(SimpleNamespace(**args), share)[:2]


def test_a_case_by_hand():
    args = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4, "num_generations": 8, "num_iterations": 2,
            "steps_per_generation": 8, "num_train_epochs": 1, "max_completion_length": 100}  # fmt: skip
    got = geometry(args, 19, 2, "grpo").as_dict()
    # 4 x 2 processes x 8 = 64 rollouts = 8 prompts a batch: 2 whole batches of 19 rows, 3 rows left out. Each batch is
    # 8 micro-steps, twice: 32 micro-steps, 8 optimiser steps of 32 sequences (4 groups).
    assert got == {
        "rows": 19, "processes": 2, "per_device_batch": 4, "gradient_accumulation": 4, "samples_per_step": 32,
        "steps_per_epoch": 8, "total_steps": 8, "epochs": 1.0, "rows_dropped_per_epoch": 3, "group": 8,
        "prompts_per_step": 4.0, "prompts_per_generation": 8, "rollouts_per_generation": 64, "steps_per_generation": 8,
        "iterations": 2, "updates_per_generation": 4.0, "generations": 2, "rollouts": 128, "completion_tokens_at_most": 12800,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("args", "rows", "world", "message"),
    [
        ({"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3}, 100, 1,
         "trainer.args.num_generations: per_device_train_batch_size 4 x 1 process x gradient_accumulation_steps 3 = 12 rollouts are not a "
         "multiple of num_generations 8; nearest that work: gradient_accumulation_steps 2 or 4, or num_generations 6 or 12"),
        ({"per_device_train_batch_size": 4, "steps_per_generation": 1, "num_generations": 16}, 100, 2,
         "trainer.args.num_generations: per_device_train_batch_size 4 x 2 processes x steps_per_generation 1 = 8 rollouts are not a "
         "multiple of num_generations 16; nearest that work: steps_per_generation 2, or num_generations 8"),
        ({"per_device_train_batch_size": 8, "generation_batch_size": 60}, 100, 1,
         "trainer.args.generation_batch_size: 60 is not a multiple of both per_device_train_batch_size 8 x 1 process = 8 and "
         "num_generations 8; nearest that work: 56 or 64"),
        ({"per_device_train_batch_size": 64}, 5, 1,
         "data.train: 5 rows, but a generation batch asks 8 different prompts (64 rollouts / num_generations 8), so there would be 0 "
         "steps; give at least 8 rows, or a smaller batch"),
        ({"num_generations": 1}, 5, 1, "trainer.args.num_generations: a group needs at least 2 completions to compare, got 1"),
        ({"max_steps": 0}, 5, 1, "trainer.args.max_steps: 0 steps; give a number, or leave it out and give num_train_epochs"),
        ({"num_train_epochs": 0}, 5, 1, "trainer.args.num_train_epochs: 0 epochs are 0 steps; give more, or max_steps"),
        ({"per_device_eval_batch_size": 6, "eval_strategy": "steps"}, 5, 1,
         "trainer.args.per_device_eval_batch_size: 6 x 1 process = 6 is not a multiple of the 8 completions a prompt; nearest that work: 8"),
    ],
)  # fmt: skip
def test_numbers_that_do_not_divide(args, rows, world, message):
    with pytest.raises(Mistake) as caught:
        geometry(args, rows, world, "grpo")
    assert str(caught.value) == message


@settings(max_examples=200, deadline=None)
@given(
    per_device=st.integers(1, 40), world=st.integers(1, 8), accumulation=st.integers(1, 40), group=st.integers(2, 40)
)
def test_the_numbers_that_a_fault_proposes_do_work(per_device, world, accumulation, group):
    args = {
        "per_device_train_batch_size": per_device,
        "gradient_accumulation_steps": accumulation,
        "num_generations": group,
    }
    try:
        geometry(args, 10**6, world, "grpo")
    except Mistake as mistake:
        proposed = str(mistake).partition("nearest that work: ")[2].split(", or num_generations ")
        for number in proposed[0].removeprefix("gradient_accumulation_steps ").split(" or "):
            geometry({**args, "gradient_accumulation_steps": int(number)}, 10**6, world, "grpo")
        for number in proposed[1].split(" or ") if len(proposed) > 1 else []:
            geometry({**args, "num_generations": int(number)}, 10**6, world, "grpo")


def test_huge_numbers_end():
    geometry({"per_device_train_batch_size": 10**17, "num_generations": 2}, 10**18, 1, "grpo")
    with pytest.raises(Mistake):
        geometry({"per_device_train_batch_size": 10**17 + 1, "num_generations": 10**16}, 10**18, 1, "grpo")


def test_defaults_are_trls():
    import dataclasses

    from trl import DPOConfig, RLOOConfig, SFTConfig

    for config in (GRPOConfig, RLOOConfig, SFTConfig, DPOConfig):
        fields = {f.name: f.default for f in dataclasses.fields(config)}
        for key, value in DEFAULTS.items():
            if key in fields and not (config is RLOOConfig and key == "max_completion_length"):
                assert fields[key] == value, (config, key)
    assert {"grpo": GRPOConfig.num_generations, "rloo": RLOOConfig.num_generations} == GROUP


FAMILIES = [
    (Qwen2Config, Qwen2ForCausalLM, {}),
    (Qwen2Config, Qwen2ForCausalLM, {"tie_word_embeddings": True, "num_key_value_heads": 2}),
    (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 24, "num_key_value_heads": 4}),
    (LlamaConfig, LlamaForCausalLM, {"num_key_value_heads": 2}),
    (LlamaConfig, LlamaForCausalLM, {"attention_bias": True, "mlp_bias": True}),
    (MistralConfig, MistralForCausalLM, {"num_key_value_heads": 4, "head_dim": 16}),
]
SMALL = {
    "vocab_size": 1000,
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "intermediate_size": 320,
}


@pytest.mark.parametrize(("config", "model", "more"), FAMILIES)
def test_parameters_are_counted_exactly(config, model, more):
    made = config(**{**SMALL, **more})
    with torch.device("meta"):
        real = model(made)
    shape = Shape.of(made)
    assert shape.exact
    assert shape.parameters == real.num_parameters()
    assert Shape.of(made.to_dict()) == shape


def test_parameters_of_published_models():
    """From the models' cards: Qwen2.5-1.5B has 1.54 B parameters, Qwen2.5-7B 7.61 B (model names are rounded)."""
    small = Shape(151936, 1536, 28, 12, 2, 128, 8960, tied=True, qkv_bias=True)
    large = Shape(152064, 3584, 28, 28, 4, 128, 18944, tied=False, qkv_bias=True)
    assert round(small.parameters / 1e9, 2) == 1.54
    assert round(large.parameters / 1e9, 2) == 7.62


@pytest.mark.parametrize(
    "lora",
    [
        {"r": 16, "target_modules": "all-linear"},
        {"r": 4, "target_modules": ["q_proj", "v_proj"]},
        {"r": 8, "target_modules": ["mlp.down_proj"], "use_dora": True},
        {"r": 3, "target_modules": r".*\.layers\.[02]\..*(gate|up)_proj"},
        {"r": 5, "target_modules": ["o_proj"], "layers_to_transform": [1]},
    ],
)
@pytest.mark.parametrize(("config", "model", "more"), FAMILIES[:4])
def test_adapters_are_counted_exactly(config, model, more, lora):
    made = config(**{**SMALL, **more})
    wanted = LoraConfig(**lora, task_type="CAUSAL_LM")
    counted = adapter_parameters(Shape.of(made), LoraConfig(**lora))
    real = get_peft_model(model(made), wanted).get_nb_trainable_parameters()[0]
    assert counted == real


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize(
    ("dtype", "autocast"), [("float32", False), ("float32", True), ("bfloat16", True), ("bfloat16", False)]
)
def test_activations_are_near_what_autograd_keeps(dtype, autocast, adapted):
    config = Qwen2Config(
        **{**SMALL, "hidden_size": 256, "intermediate_size": 768, "num_key_value_heads": 2}, attn_implementation="sdpa"
    )
    model = Qwen2ForCausalLM(config).to(getattr(torch, dtype))
    body = model.model
    if adapted:
        body = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear")).base_model.model.model
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    ids = torch.randint(0, config.vocab_size, (4, 128))
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        body(ids, use_cache=False)
    real = sum(number for number, _ in kept.values())
    guess = activations(
        Shape.of(config), ids.numel(), width=BYTES[dtype], autocast=autocast, adapted=adapted, checkpointing=False
    )
    assert 0.8 < guess / real < 1.25


class TestMemory:
    shape = Shape(1000, 128, 3, 8, 4, 16, 320, tied=True)

    def of(self, **changes):
        given = {
            "adapter": None,
            "dtype": "float32",
            "autocast": False,
            "sequences": 4,
            "tokens": 50,
            "checkpointing": False,
        }
        return memory(self.shape, **{**given, **changes})

    def test_full_fine_tuning_is_sixteen_bytes_a_parameter_before_activations(self):
        """ZeRO's count for Adam in float32: weight, gradient and two moments of 4 bytes each."""
        made = self.of()
        assert made.weights + made.gradients + made.optimiser == 16 * self.shape.parameters

    def test_weights_are_what_a_real_model_holds(self):
        config = LlamaConfig(**SMALL, num_key_value_heads=4, tie_word_embeddings=True)
        model = LlamaForCausalLM(config).to(torch.bfloat16)
        real = sum(p.numel() * p.element_size() for p in model.parameters())
        assert (
            memory(
                Shape.of(config),
                adapter=None,
                dtype="bfloat16",
                autocast=False,
                sequences=1,
                tokens=8,
                checkpointing=False,
            ).weights
            == real
        )

    def test_optimiser_is_what_adamw_holds(self):
        model = LlamaForCausalLM(LlamaConfig(**SMALL, num_key_value_heads=4, tie_word_embeddings=True))
        optimiser = torch.optim.AdamW(model.parameters())
        model(torch.zeros(1, 4, dtype=torch.long)).logits.sum().backward()
        optimiser.step()
        real = sum(
            v.numel() * v.element_size() for state in optimiser.state.values() for k, v in state.items() if k != "step"
        )
        assert self.of().optimiser == real

    def test_cache_is_what_the_model_keeps(self):
        config = LlamaConfig(**SMALL, num_key_value_heads=4, head_dim=16)
        cache = LlamaForCausalLM(config)(torch.zeros(6, 50, dtype=torch.long), use_cache=True).past_key_values
        real = sum(t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values))
        assert self.of(sampled_at_once=6).cache == real

    def test_adapter_shards_and_checkpointing_save_memory(self):
        full = self.of()
        lora = self.of(adapter=1000)
        assert lora.optimiser == 8000
        assert lora.gradients == 4000
        assert self.of(shards=4).weights == full.weights // 4
        assert self.of(checkpointing=True).activations < full.activations
        assert self.of(optim="adamw_8bit").optimiser * 4 == full.optimiser
        assert full.total == full.weights + full.optimiser + full.gradients + full.activations + full.head
        assert full.readable()["total"] == size(full.total)

    def test_of_a_recipe(self):
        recipe = load(
            {
                "model": {"name": "x"},
                "adapter": {"r": 4, "target_modules": ["q_proj"]},
                "data": {"train": {"path": "a.csv"}},
                "rewards": [{"use": "m:f"}],
                "rollouts": {"sampling": {"max_tokens": 30}},
                "trainer": {"args": {"per_device_train_batch_size": 8}},
                "run": {"name": "r"},
            }
        )
        arguments = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "num_generations": 8,
                     "max_completion_length": 30, "bf16": False, "gradient_checkpointing": False}  # fmt: skip
        made = memory_of(recipe, Qwen2Config(**SMALL), arguments, 1, prompt_tokens=20)
        shape = Shape.of(Qwen2Config(**SMALL))
        assert made == memory(shape, adapter=3 * 4 * (128 + 128), dtype="float32", autocast=False, sequences=8, tokens=50,
                              checkpointing=False, sampled_at_once=16)  # fmt: skip


def test_sizes_are_readable():
    assert [size(n) for n in (0, 1023, 1536, 3 * 2**20, 5 * 2**30, 2**41)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "3.0 MiB",
        "5.0 GiB",
        "2048.0 GiB",
    ]
    assert math.isclose(float(size(123456789).split()[0]), 117.7, abs_tol=0.05)
