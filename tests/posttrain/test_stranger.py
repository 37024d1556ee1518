"""`plan --no-code` on a recipe that attacks: everything it names writes a file when it is imported, and none appears."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posttrain.cli import main

ROOT = Path(__file__).resolve().parents[2]
MARK = "import pathlib\npathlib.Path({folder!r}, 'ran-' + {name!r}).touch()\n"
BODIES = {
    "reward": "def f(completions, **_): return [0.0] * len(completions)\n",
    "rows": "def f(**_): return [{'prompt': 'p', 'answer': 'a'}]\n",
    "engine": "class E:\n    def __init__(self, spec): pass\n    def generate(self): pass\n    sync = close = generate\n",
    "strategy": "class S:\n    def run(self, asks, session): pass\n",
    "trainer": "from posttrain.trainers.grpo import GRPO\nclass T(GRPO): pass\n",
    "bench": "B = None\n",
    "model": "def f(): return '.'\n",
}
SHADOWS = (
    "yaml",
    "pydantic",
    "rich",
    "torch",
    "trl",
    "peft",
    "transformers",
    "datasets",
    "rewards",
    "rollouts",
    "jinja2",
    "httpx",
)


@pytest.fixture
def hostile(tmp_path) -> Path:
    """A folder with a recipe, the code that it names, a package of that name beside it, and shadows of what we import."""
    folder = tmp_path / "stranger"
    (folder / "package").mkdir(parents=True)
    for name, body in BODIES.items():
        (folder / f"{name}.py").write_text(MARK.format(folder=str(folder), name=name) + body)
    for name in ("__init__", "reward"):
        (folder / "package" / f"{name}.py").write_text(
            MARK.format(folder=str(folder), name=f"package-{name}") + BODIES["reward"]
        )
    recipe = {
        "model": {"name": "model.py:f"},
        "data": {"train": {"use": "rows.py:f", "with": {"then": "package.reward:f"}}},
        "rewards": [{"use": "reward.py:f"}, {"use": "package.reward:f", "with": {"x": "reward.py:g"}}, {"use": "rewards.math:correct"}],
        "rollouts": {"engine": {"use": "engine.py:E", "with": {"worker_cls": "package.reward.Worker", "urls": ["http://example.com:80"]}},
                     "strategy": "strategy.py:S"},
        "trainer": {"algorithm": "trainer.py:T", "args": {"push_to_hub": True, "hub_model_id": "them/theirs"}},
        "evaluation": [{"benchmark": "bench.py:B"}, {"benchmark": "gsm8k"}, {"benchmark": "own.jsonl"}],
        "run": {"name": "r", "directory": "../elsewhere", "report_to": ["wandb"]},
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(json.dumps(recipe, indent=1))
    (folder / "own.jsonl").write_text("{}")
    return folder


def shadow(folder: Path) -> None:
    for name in SHADOWS:
        (folder / f"{name}.py").write_text(MARK.format(folder=str(folder), name=f"shadow-{name}"))


def run(folder: Path, *words: str, way: str = "module") -> subprocess.CompletedProcess[str]:
    start = (
        ["-m", "posttrain.cli"]
        if way == "module"
        else ["-c", "import sys; from posttrain.cli import main; sys.exit(main())"]
    )
    return subprocess.run([sys.executable, *start, *words], cwd=folder, capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"})  # fmt: skip


def ran(folder: Path) -> set[str]:
    return {p.name for p in folder.glob("ran-*")}


@pytest.mark.parametrize("way", ["module", "script"])
def test_nothing_of_it_is_imported_and_all_of_it_is_listed(hostile, way):
    shadow(hostile)
    ended = run(hostile, "plan", "--no-code", "recipe.yaml", way=way)
    assert ended.returncode == 0, ended.stderr
    assert ran(hostile) == set()
    assert {p.name for p in hostile.iterdir() if p.is_dir()} <= {"package", "__pycache__"}
    lines = ended.stdout.splitlines()
    for name in BODIES:
        if name != "bench":
            assert any(f" imports {hostile / name}.py:" in line and "sha256" in line for line in lines), name
    assert any("rewards.1.use imports package.reward:f" in line and str(hostile / "package") in line for line in lines)
    assert any("rewards.2.use imports rewards.math:correct  (a part of posttrain)" in line for line in lines)
    assert any("data.train.with.then may import package.reward:f" in line for line in lines)
    assert any("rewards.1.with.x may import reward.py:g" in line for line in lines)
    assert any("rollouts.engine.with.worker_cls may import package.reward.Worker" in line for line in lines)
    assert any("asks http://example.com:80" in line and "POSTTRAIN_VLLM_KEY" in line for line in lines)
    assert any("sends the model to the hub (them/theirs)" in line for line in lines)
    assert any("sends metrics to wandb" in line for line in lines)
    assert any("fetches gsm8k from the hub" in line for line in lines)
    assert any("reads own.jsonl" in line for line in lines)
    assert not any("own.jsonl from the hub" in line for line in lines)
    assert any("writes ../elsewhere/r  (outside the working directory)" in line for line in lines)


def test_without_the_flag_it_runs(hostile):
    """So that the test above shows something."""
    assert run(hostile, "plan", "recipe.yaml").returncode == 2  # the engine takes no such options
    assert {"ran-reward", "ran-engine", "ran-strategy", "ran-trainer", "ran-package-__init__"} <= ran(hostile)


def test_what_is_wrong_without_code_is_found(hostile):
    recipe = json.loads((hostile / "recipe.yaml").read_text())
    recipe["rewards"] = [{"use": "rewards.length:soft_overlong", "with": {"no_such": 1}}]
    recipe["trainer"] = {"algorithm": "grpo", "args": {"los_type": "x"}}
    recipe["evaluation"] = [{"benchmark": "gsm8"}]
    (hostile / "recipe.yaml").write_text(json.dumps(recipe))
    ended = run(hostile, "plan", "--no-code", "recipe.yaml")
    assert ended.returncode == 2
    for told in ("rewards.0.with.no_such", "trainer.args.los_type", 'did you mean "gsm8k"'):
        assert told in ended.stderr
    assert ran(hostile) == set()


def test_ours_that_is_no_part_for_recipes_is_pointed_out(hostile):
    recipe = json.loads((hostile / "recipe.yaml").read_text())
    recipe["data"]["train"] = {"use": "posttrain.rundir:write_atomic", "with": {"path": "/tmp/x", "text": "y"}}
    (hostile / "recipe.yaml").write_text(json.dumps(recipe))
    ended = run(hostile, "plan", "--no-code", "recipe.yaml")
    assert "posttrain.rundir:write_atomic  (reached through posttrain, but no part for recipes" in ended.stdout


def test_a_local_model_with_code_or_pickles(hostile, tiny, tmp_path):
    import shutil

    import torch

    recipe = json.loads((hostile / "recipe.yaml").read_text())
    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    recipe["model"] = {"name": str(folder)}
    (hostile / "recipe.yaml").write_text(json.dumps(recipe))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoConfig": "evil.Config"}}))
    told = run(hostile, "plan", "--no-code", "recipe.yaml").stdout
    assert "config.json: evil.Config  (refused without --trust-remote-code)" in told
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    ended = run(hostile, "plan", "--no-code", "recipe.yaml")
    assert ended.returncode == 2
    assert "pickled (pytorch_model.bin)" in ended.stderr


def test_the_two_flags_contradict(hostile):
    ended = run(hostile, "plan", "--no-code", "--trust-remote-code", "recipe.yaml")
    assert ended.returncode == 2
    assert "give one of them" in ended.stderr


VALID = json.loads((ROOT / "tests" / "posttrain" / "recipe" / "valid.json").read_text())
texts = st.text(max_size=6) | st.sampled_from(
    ["a:b", "a.py:b", ":", "x" * 5000, "\x1b[2J", "~", "~/a:b", "../..", "a.b:c", "rewards.math:correct", "os:system", "posttrain:x",
     "rewards.:y", "rewards..a:y", "rewards.math:correct.x", "http://[::1", "/dev/null", "/proc/self/mem", "posttrain.no:x",
     "~nouser/x", "~nouser/x.py:f", "x" * 5000 + ".py:f", "/dev/zero.py:f", "a\0b", "a\0b.py:f"]
)  # fmt: skip
free = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda x: st.lists(x, max_size=2) | st.dictionaries(st.text(max_size=3) | st.sampled_from(["use", "urls", "api_key_env"]), x, max_size=2),
    max_leaves=4,
)  # fmt: skip
TEXT_AT = [("model", "name"), ("model", "chat_template"), ("data", "train", "path"), ("rewards", 0, "use"), ("rollouts", "engine"),
           ("rollouts", "strategy"), ("trainer", "algorithm"), ("run", "directory"), ("adapter", "start_from"), ("evaluation", 0, "path"),
           ("evaluation", 0, "benchmark")]  # fmt: skip
FREE_AT = [("model", "with"), ("data", "train"), ("rewards",), ("rewards", 0, "with"), ("rollouts", "engine"), ("trainer", "args"), ("evaluation",),
           ("run", "report_to"), ("adapter",)]  # fmt: skip
change = st.tuples(st.sampled_from(TEXT_AT), texts) | st.tuples(st.sampled_from(FREE_AT), free)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(change, min_size=1, max_size=3))
def test_any_recipe_gives_a_plan_or_a_few_lines(tmp_path_factory, changes):
    recipe = json.loads(json.dumps(VALID))
    for path, value in changes:
        here = recipe
        with contextlib.suppress(TypeError, KeyError, IndexError):  # an earlier change took the place away
            for key in path[:-1]:
                here = here[key]
            here[path[-1]] = value
    file = tmp_path_factory.mktemp("odd") / "r.yaml"
    file.write_text(json.dumps(recipe))
    assert main(["plan", "--no-code", str(file)]) in (0, 2)


def test_whom_a_rubrics_judge_would_be(tmp_path):
    """A stranger's recipe chooses the address and the name of the variable whose content is sent there."""
    (tmp_path / "judge.yaml").write_text(
        "{model: m, url: 'http://example.net:1/v1', api_key_env: POSTTRAIN_OTHER, cache: ../kept.sqlite}"
    )
    inner = {
        "criteria": "rubric.yaml",
        "judge": {"model": "m", "url": "http://example.org/v1", "api_key_env": "POSTTRAIN_VLLM_KEY"},
    }
    uses = [
        {"use": "rewards.rubric:Rubric", "with": given, "timeout": 600}
        for given in (inner, {"judge": "judge.yaml"}, {"judge": {"model": "m"}})
    ]
    recipe = {"model": {"name": "miniature/arithmetic"}, "data": {"train": {"path": "x.jsonl"}}, "rewards": uses,
              "trainer": {"algorithm": "grpo"}, "run": {"name": "r"}}  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    ended = run(tmp_path, "plan", "--no-code", "recipe.yaml")
    assert ended.returncode == 0, ended.stderr
    for line in (
        "rewards.0.with.judge.url asks http://example.org/v1  (sends it the key in POSTTRAIN_VLLM_KEY ",
        "rewards.0.with.criteria reads rubric.yaml  (not there)",
        "rewards.1.with.judge reads judge.yaml",
        "rewards.1.with.judge.url asks http://example.net:1/v1  (sends it the key in POSTTRAIN_OTHER ",
        "rewards.1.with.judge.cache writes ../kept.sqlite",
        "rewards.2.with.judge.url asks https://api.openai.com/v1  (sends it the key in POSTTRAIN_JUDGE_KEY ",
    ):
        assert line in ended.stdout
