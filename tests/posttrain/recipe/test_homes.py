"""The translation of a recipe's homes into TRL's arguments, against TRL's own configuration classes."""

import dataclasses

import pytest
from trl import DPOConfig, GRPOConfig, RLOOConfig, SFTConfig

from posttrain.errors import Mistake
from posttrain.recipe import load
from posttrain.recipe.homes import ADAPTER_HOMES, CONFIGS, DEFAULTS, HOMES, config_class, home, trl_arguments
from posttrain.recipe.rules import ALGORITHMS, ONLINE
from posttrain.rundir import RunDir

ALL = {"grpo": GRPOConfig, "rloo": RLOOConfig, "sft": SFTConfig, "dpo": DPOConfig}


def recipe(valid, algorithm="grpo", **args):
    rewards = valid["rewards"] if algorithm in ONLINE else []
    return load({**valid, "rewards": rewards, "trainer": {"algorithm": algorithm, "args": args}})


def test_short_names_are_those_of_the_trainers():
    from posttrain import trainers

    assert set(ALGORITHMS) == set(trainers.TRAINERS) == set(CONFIGS)
    assert set(ONLINE) == set(trainers.ONLINE)
    assert {name: config_class(load_of(name)) for name in ALGORITHMS} == ALL


def load_of(name):
    class Bare:
        class trainer:  # noqa: N801
            algorithm = name

    return Bare


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("adapted", [True, False])
def test_trl_takes_every_argument_and_means_the_same(valid, tmp_path, algorithm, adapted):
    if not adapted:
        del valid["adapter"]
    valid["rollouts"]["sampling"] = {
        "temperature": 0.8,
        "top_p": 0.9,
        "top_k": 5,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "max_tokens": 33,
    }
    run = RunDir(tmp_path / "run")
    valid["checkpoints"] = {"every": 7, "keep": 1}
    made = recipe(valid, algorithm, per_device_train_batch_size=16)
    arguments = trl_arguments(made, run, accelerator=False)
    config = ALL[algorithm](**arguments)
    assert config.output_dir == str(run.checkpoints)
    assert (config.seed, config.data_seed, config.run_name) == (7, 7, "demo")
    assert config.report_to == ["tensorboard"]
    assert config.use_cpu
    assert (config.bf16, config.fp16, config.gradient_checkpointing) == (False, False, False)
    assert (config.logging_steps, config.per_device_train_batch_size) == (1, 16)
    assert (str(config.save_strategy), config.save_steps) == ("SaveStrategy.STEPS", 7)
    assert config.save_total_limit is None  # the keep rule is ours: only whole checkpoints count
    assert config.learning_rate == ALL[algorithm].learning_rate * (10 if adapted else 1)
    if algorithm in ONLINE:
        assert (config.temperature, config.top_p, config.top_k, config.min_p) == (0.8, 0.9, 5, 0.1)
        assert (config.repetition_penalty, config.max_completion_length) == (1.1, 33)
        assert config.reward_weights == [1.0, 0.5]
        assert not config.use_vllm
    else:
        assert config.max_length is None


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_on_an_accelerator_trls_precision_and_checkpointing_stand(valid, algorithm):
    arguments = trl_arguments(recipe(valid, algorithm), accelerator=True)
    assert not {"bf16", "gradient_checkpointing", "dataloader_pin_memory"} & set(arguments)
    assert arguments["use_cpu"] is False
    assert trl_arguments(recipe(valid, algorithm, fp16=True), accelerator=True)["bf16"] is False


def test_what_is_given_wins_over_our_defaults(valid):
    given = {
        "logging_steps": 5,
        "learning_rate": 1e-4,
        "bf16": True,
        "gradient_checkpointing": True,
        "disable_tqdm": False,
    }
    arguments = trl_arguments(recipe(valid, **given), accelerator=False)
    assert {k: arguments[k] for k in given} == given


def test_a_model_with_a_bound_cuts_there(valid):
    valid["model"]["max_length"] = 300
    assert trl_arguments(recipe(valid, "sft"), accelerator=False)["max_length"] == 300
    assert trl_arguments(recipe(valid, "sft", max_length=200), accelerator=False)["max_length"] == 200


def test_no_checkpoints_on_schedule(valid):
    valid["checkpoints"] = {"every": 0}
    assert str(GRPOConfig(**trl_arguments(recipe(valid), accelerator=False)).save_strategy) == "SaveStrategy.NO"


def test_no_trackers_means_none(valid):
    """TRL reads an empty list as it is, but an absent one as every tracker that is installed in older transformers."""
    valid["run"]["report_to"] = []
    assert GRPOConfig(**trl_arguments(recipe(valid), accelerator=False)).report_to == []


def test_the_run_folder_is_the_recipes_own_unless_given(valid):
    assert trl_arguments(recipe(valid), accelerator=False)["output_dir"] == "runs/demo/checkpoints"


def test_defaults_that_differ_from_trls_are_all_documented(valid):
    """Whatever we set without being told differs from TRL, and is in the table; the table holds nothing else."""
    set_by_us = set()
    for algorithm in ALGORITHMS:
        for accelerator in (True, False):
            arguments = trl_arguments(recipe(valid, algorithm, fp16=accelerator), accelerator=accelerator)
            set_by_us |= {k for k in arguments if home(k) is None and k != "fp16"}
    assert set_by_us == set(DEFAULTS)


def test_every_vllm_and_every_managed_field_has_a_home():
    for config in ALL.values():
        for field in dataclasses.fields(config):
            if field.name.startswith("vllm_") or field.name in (
                "output_dir",
                "seed",
                "report_to",
                "use_vllm",
                "use_cpu",
            ):
                assert home(field.name), field.name
    assert home("learning_rate") is None
    assert home("beta") is None


@pytest.mark.parametrize("key", sorted(HOMES))
def test_nothing_is_taken_away_from_home(valid, key):
    with pytest.raises(
        Mistake, match=rf"^recipe: trainer\.args\.{key}: (belongs (in|on)|does not belong in a recipe) ?"
    ):
        recipe(valid, **{key: 1})


@pytest.mark.parametrize("key", sorted(ADAPTER_HOMES))
def test_nor_from_the_adapter(valid, key):
    valid["adapter"][key] = "x"
    with pytest.raises(Mistake, match=rf"^recipe: adapter\.{key}: "):
        load(valid)


def test_homes_exist_in_the_schema():
    """Every place that a message sends a user to is a key of the schema."""
    from posttrain.recipe.faults import keys_of, model_at

    for place in [*HOMES.values(), *ADAPTER_HOMES.values()]:
        if place.startswith(("nowhere", "the accelerate", "the command line", "trainer.args")):
            continue
        for dotted in place.partition(" (")[0].split(" and "):
            path = tuple(dotted.replace("[i]", ".0").split("."))
            path = tuple(int(p) if p.isdigit() else p for p in path)
            while path and path[-1] == "urls":
                path = path[:-1]
            model = model_at(path[:-1])
            assert model is not None, dotted
            assert path[-1] in keys_of(model), dotted


def test_a_trainer_of_ones_own_names_its_config(valid, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from trl import RLOOConfig\nclass T:\n    Config = RLOOConfig\nclass U: pass\n")
    assert config_class(recipe(valid, f"{file}:T")) is RLOOConfig
    with pytest.raises(Mistake, match="has no `Config`"):
        config_class(recipe(valid, f"{file}:U"))
