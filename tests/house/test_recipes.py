"""The shelf: every recipe loads and fits what it names, the accelerate files are accelerate's, the index is complete."""

import json
import re
import shutil
from pathlib import Path

import pytest

from posttrain.errors import Mistake
from posttrain.plan import geometry
from posttrain.recipe import copy_recipe, read, recipes, schema_json, shelf
from posttrain.recipe.check import check
from posttrain.recipe.homes import trl_arguments

SHELF = Path(__file__).parents[2] / "recipes"
EXPECTED = [
    "arithmetic_dpo",
    "arithmetic_grpo",
    "arithmetic_grpo_vllm",
    "arithmetic_sft",
    "custom_reward",
    "gsm8k_grpo_qwen",
    "healthbench_ruscarl_qwen",
    "math_grpo_qwen_lora",
    "rubric_grpo",
    "rubric_ruscarl",
]
RECIPES = [p for p in sorted(SHELF.rglob("*.yaml")) if p.parent.name != "accelerate"]


def test_the_shelf_is_found_and_whole():
    assert shelf() == SHELF
    assert recipes() == RECIPES
    assert set(EXPECTED) <= {p.stem for p in RECIPES}
    assert len(RECIPES) >= len(EXPECTED)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_loads_and_fits_what_it_names(path):
    from posttrain.evaluation import BENCHMARKS

    loaded = read(path)
    check(loaded.recipe, loaded=loaded, benchmarks=BENCHMARKS)


PROCESSES = {"healthbench_ruscarl_qwen": 4, "math_grpo_qwen_lora": 6}


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_its_batches_divide_and_trl_takes_its_arguments(path):
    from posttrain.recipe.homes import config_class

    recipe = read(path).recipe
    arguments = trl_arguments(recipe, accelerator=False)
    config = config_class(recipe)(**arguments)
    counts = geometry(arguments, 7000, PROCESSES.get(path.stem, 1), recipe.trainer.algorithm)
    assert counts.total_steps >= 2
    if hasattr(config, "num_generations"):
        assert config.num_generations == counts.group


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_it_begins_with_what_it_is_what_it_needs_and_how_to_run_it(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert re.match(r"# [A-Z].*[.:]$", lines[0])
    assert lines[1].startswith("# Needs: ")
    comment = "\n".join(lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))])
    command = next(line for line in comment.splitlines() if "-m posttrain.train" in line)
    assert command.startswith("# accelerate launch ")
    assert f"recipes/{path.name}" in command
    for file in re.findall(r"recipes/[\w/]+\.yaml", comment):
        assert (SHELF.parent / file).is_file()


def test_with_and_without_a_scaffold_differ_in_the_strategy_alone():
    plain, scaffolded = (read(SHELF / f"rubric_{name}.yaml").recipe.model_dump() for name in ("grpo", "ruscarl"))
    assert plain["rollouts"].pop("strategy") == "single"
    assert scaffolded["rollouts"].pop("strategy")["use"] == "posttrain.miniature.hints:Hints"
    assert plain["run"].pop("name") != scaffolded["run"].pop("name")
    assert plain == scaffolded


def test_the_healthbench_one_has_the_published_geometry():
    """64 prompts of 8 answers an iteration, two updates of 32 prompts, 350 iterations, (125, 0.2) and the rest of the card's table."""
    recipe = read(SHELF / "healthbench_ruscarl_qwen.yaml").recipe
    arguments = trl_arguments(recipe, accelerator=False)
    counts = geometry(arguments, 4500, 4, recipe.trainer.algorithm)
    assert (counts.prompts_per_generation, counts.group, counts.updates_per_generation) == (64, 8, 2.0)
    assert (counts.prompts_per_step, counts.generations) == (32.0, 350)
    strategy = recipe.rollouts.strategy
    assert (strategy.use, strategy.with_["alpha"], strategy.with_["t0"]) == ("scaffold", 125, 0.2)
    wanted = {"beta": 1e-3, "epsilon": 0.2, "delta": 3.0, "use_bias_correction_kl": False, "weight_decay": 0.01}
    assert wanted.items() <= arguments.items()
    sampling = recipe.rollouts.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.max_tokens) == (1.0, 1.0, 0, 4096)
    assert recipe.rewards[0].with_["judge"]["model"] == "Qwen/Qwen3-32B"
    parts = recipe.data.train.with_, recipe.data.eval.with_
    assert [part["part"] for part in parts] == ["train", "held_out"]
    assert len({part["path"] for part in parts}) == 1


def test_the_healthbench_ones_baseline_differs_in_the_strategy_alone():
    """As the comment says that it is begun."""
    path = SHELF / "healthbench_ruscarl_qwen.yaml"
    (line,) = (line for line in path.read_text().splitlines() if line.startswith("# Its baseline"))
    given = re.findall(r"\S+=\S+", line)
    scaffolded, plain = read(path).recipe.model_dump(), read(path, given).recipe.model_dump()
    assert plain["rollouts"].pop("strategy") == "single"
    assert scaffolded["rollouts"].pop("strategy")["use"] == "scaffold"
    assert plain["run"].pop("name") != scaffolded["run"].pop("name")
    assert plain == scaffolded


def test_the_healthbench_ones_reward_can_be_built(monkeypatch, tmp_path):
    from posttrain.imports import Use

    monkeypatch.chdir(tmp_path)  # where the cache of verdicts would be
    monkeypatch.setenv("POSTTRAIN_JUDGE_KEY", "none")
    (reward,) = read(SHELF / "healthbench_ruscarl_qwen.yaml").recipe.rewards
    made = Use(reward.use, dict(reward.with_), "rewards.0").build()
    assert made.judge is not None


def test_the_custom_one_is_short():
    path = SHELF / "custom_reward.yaml"
    assert len(path.read_text().splitlines()) < 30
    loaded = read(path)
    assert [r.use.rpartition("/")[2] for r in loaded.recipe.rewards] == [
        "rewards.math:correct",
        "my_rewards.py:brevity",
    ]


def test_brevity_is_what_it_says():
    from posttrain.imports import Use

    brevity = Use(f"{SHELF}/my_rewards.py:brevity", {"target": 10}).build()
    assert brevity(completion_ids=[[], [1] * 5, [1] * 10, [1] * 99], answer=["1"] * 4) == [1.0, 0.5, 0.0, 0.0]


ACCELERATE = sorted((SHELF / "accelerate").glob("*.yaml"))


def test_the_accelerate_files_are_there():
    assert [p.stem for p in ACCELERATE] == ["cpu", "ddp", "fsdp2", "zero3"]


@pytest.mark.parametrize("path", ACCELERATE, ids=lambda p: p.stem)
def test_accelerate_reads_its_files(path):
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.utils import DistributedType

    config = load_config_from_file(str(path))
    kind = {"cpu": "MULTI_GPU", "ddp": "MULTI_GPU", "fsdp2": "FSDP", "zero3": "DEEPSPEED"}[path.stem]
    assert config.distributed_type == DistributedType(kind)
    assert config.use_cpu is (path.stem == "cpu")
    if path.stem == "fsdp2":
        assert config.fsdp_config["fsdp_version"] == 2


@pytest.mark.parametrize("path", ACCELERATE, ids=lambda p: p.stem)
def test_accelerate_launch_takes_its_files(path):
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    args = launch_command_parser().parse_args(["--config_file", str(path), "-m", "posttrain.train", "x.yaml"])
    args, _, _ = _validate_launch_command(args)
    assert (args.use_fsdp, args.use_deepspeed) == (path.stem == "fsdp2", path.stem == "zero3")
    assert args.training_script == "posttrain.train"


def test_the_index_names_every_recipe_and_nothing_else():
    text = (SHELF / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[`([\w/.]+\.yaml)`\]\(([\w/.]+)\) \|", text, flags=re.M)
    assert all(name == link for name, link in rows)
    assert [name for name, _ in rows] == [p.relative_to(SHELF).as_posix() for p in [*RECIPES, *ACCELERATE]]
    for path in RECIPES:
        first = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ").rstrip(".")
        assert first in text, f"the index does not say of {path.name} what it says itself"


def test_the_index_has_our_defaults():
    from posttrain.recipe.homes import DEFAULTS

    text = (SHELF / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \| (.*) \|$", text, flags=re.M) == list(DEFAULTS.items())


class TestCopies:
    def test_a_recipe_comes_with_what_it_needs(self, tmp_path):
        made = copy_recipe("custom_reward", tmp_path)
        assert sorted(p.name for p in made) == ["arithmetic_grpo.yaml", "custom_reward.yaml", "my_rewards.py"]
        copied = read(tmp_path / "custom_reward.yaml").recipe
        assert copied.rewards[1].use == f"{tmp_path}/my_rewards.py:brevity"
        assert copy_recipe("custom_reward.yaml", tmp_path) == []

    def test_nothing_of_the_users_is_overwritten(self, tmp_path):
        (tmp_path / "my_rewards.py").write_text("mine")
        with pytest.raises(Mistake, match="is there already, with other content"):
            copy_recipe("custom_reward", tmp_path)
        assert (tmp_path / "my_rewards.py").read_text() == "mine"

    def test_accelerate_files_too(self, tmp_path):
        assert copy_recipe("accelerate/cpu.yaml", tmp_path) == [tmp_path / "accelerate" / "cpu.yaml"]

    @pytest.mark.parametrize("name", ["arithmetic_grop", "../pyproject.toml", "/etc/passwd", "", "..", "my\0"])
    def test_what_is_not_on_the_shelf(self, tmp_path, name):
        with pytest.raises(Mistake, match="no such recipe"):
            copy_recipe(name, tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_the_wheels_shelf_is_found(self, tmp_path):
        """An installation has the recipes inside the package."""
        import subprocess
        import sys

        import posttrain

        package = Path(posttrain.__file__).parent
        shutil.copytree(package, tmp_path / "posttrain", ignore=shutil.ignore_patterns("__pycache__", "_recipes"))
        shutil.copytree(
            package.parent / "rollouts", tmp_path / "rollouts", ignore=shutil.ignore_patterns("__pycache__")
        )
        shutil.copytree(SHELF, tmp_path / "posttrain" / "_recipes")
        code = "from posttrain.recipe import shelf, recipes; print(shelf(), len(recipes()))"
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONPATH": str(tmp_path)},
        )
        assert done.stdout.split() == [str(tmp_path / "posttrain" / "_recipes"), str(len(RECIPES))]


class TestSchema:
    def test_it_describes_every_key(self):
        schema = schema_json()
        assert schema["properties"]["extends"]["description"]
        for name, definition in schema["$defs"].items():
            for key, value in definition["properties"].items():
                assert value.get("description"), f"{name}.{key} has no docstring"
        assert "with" in schema["$defs"]["Reward"]["properties"]
        assert "with_" not in json.dumps(schema)

    def test_an_independent_validator_agrees(self):
        """Every recipe is valid under it, and what `load` refuses for its shape is not."""
        jsonschema = pytest.importorskip("jsonschema")
        from posttrain.recipe.text import parse

        validator = jsonschema.Draft202012Validator(schema_json())
        validator.check_schema(schema_json())
        for path in RECIPES:
            values, _ = parse(path.read_text(encoding="utf-8"), path.name)
            assert list(validator.iter_errors(values)) == [], path.name
        whole = read(SHELF / "arithmetic_grpo.yaml").values
        for wrong in (
            {**whole, "modle": 1},
            {**whole, "model": {}},
            {k: v for k, v in whole.items() if k != "run"},
            {**whole, "adapter": {"r": 0}},
            {**whole, "rewards": {"use": "a:b"}},
            {"extends": 5},
        ):
            assert list(validator.iter_errors(wrong)), wrong
        assert not list(validator.iter_errors({"extends": "a.yaml", "run": {"seed": 3}}))
