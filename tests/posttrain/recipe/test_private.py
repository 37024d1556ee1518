"""No recipe holds a key, or gives leave to run code from the hub: in no file, comment, override or mapping."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from posttrain import keys
from posttrain.errors import Mistake
from posttrain.recipe import load

VALID = json.loads((Path(__file__).parent / "valid.json").read_text())
SECRET = "hunter2-0123456789"
HUB = "hf_" + "a1B2" * 8


def put(recipe: dict, path: tuple, value: object) -> dict:
    made = copy.deepcopy(recipe)
    here = made
    for key in path[:-1]:
        here = here[key] if isinstance(here, list) else here.setdefault(key, {})
    here[path[-1]] = value
    return made


PLACES = [
    ("model", "template_args", "api_key"),
    ("rewards", 0, "with", "api_key"),
    ("rewards", 0, "with", "judge", "headers", "Authorization"),
    ("data", "train", "with", "password"),
    ("trainer", "args", "hub_token"),
    ("rollouts", "engine", "with", "api_key"),
    ("rollouts", "engine", "with", "token"),
    ("adapter", "access_token"),
]


@pytest.mark.parametrize("path", PLACES, ids=lambda p: ".".join(map(str, p)))
def test_a_key_is_refused_wherever_it_stands_and_never_repeated(path, tmp_path):
    base = put(VALID, ("rollouts", "engine"), {"use": "vllm-server", "with": {"urls": ["http://127.0.0.1:1"]}})
    dotted = ".".join(map(str, path))
    recipe = put(base, path, SECRET)
    file = tmp_path / "r.yaml"
    file.write_text(json.dumps(recipe, indent=1))
    for what in (recipe, file):
        with pytest.raises(Mistake, match="does not belong in a recipe") as refused:
            load(what)
        assert dotted in str(refused.value)
        assert SECRET not in str(refused.value)
    good = tmp_path / "good.yaml"
    good.write_text(json.dumps(base, indent=1))
    for value in (SECRET, f'"{SECRET}'):  # the second is no YAML
        with pytest.raises(Mistake) as refused:
            load(good, [f"{dotted}={value}"])
        assert SECRET not in str(refused.value)
    load(good, [f"{dotted}="]) if path[0] == "model" else None  # nothing is no key


def test_a_key_below_in_an_extended_file_is_found_though_it_is_overridden(tmp_path):
    base = tmp_path / "base.yaml"
    base.write_text(json.dumps(put(VALID, ("rewards", 0, "with", "api_key"), SECRET)))
    top = tmp_path / "top.yaml"
    top.write_text("extends: base.yaml\nrewards: [{use: 'rewards.math:correct'}]\n")
    with pytest.raises(Mistake, match=r"base\.yaml:1: rewards\.0\.with\.api_key: "):
        load(top)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (HUB, "a Hugging Face token"),
        ("sk-proj-" + "x" * 30, "an API key"),
        ("AKIAABCDEFGHIJKLMNOP", "an AWS key"),
        ("https://me:secret@10.0.0.1/v1", "a password in a URL"),
        ("http://10.0.0.1/v1?api_key=abc", "a key in a URL"),
        ("Bearer abcdefghijklmnop1234", "a bearer token"),
    ],
)
def test_values_that_look_like_keys(text, kind, tmp_path):
    assert keys.kind_of(text) == kind
    assert text not in keys.hide(f"before {text} after")
    with pytest.raises(Mistake, match=kind) as refused:
        load(put(VALID, ("rewards", 0, "with", "where"), [text]))
    assert text not in str(refused.value)
    file = tmp_path / "r.yaml"
    file.write_text(f"# {text}\n{json.dumps(VALID)}")
    with pytest.raises(Mistake, match=rf"r\.yaml:1: looks like {kind}"):
        load(file)
    with pytest.raises(Mistake) as refused:
        load(VALID, [f"run.name={text}"])
    assert text not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    ["http://127.0.0.1:8000", "What is {a}? sk- is short", "task-specific-reward-functions", "mailto:a@b.c",
     "https://hub/x?split=train", "the bearer of bad news", "hf_token", "git@github.com:a/b.git"],
)  # fmt: skip
def test_values_that_do_not(text):
    assert keys.kind_of(text) is None
    assert keys.hide(text) == text


def test_names_that_are_no_secrets_pass():
    recipe = put(VALID, ("data", "train", "columns"), {"token": "word", "password": "hint"})
    recipe = put(
        recipe, ("rewards", 0, "with"), {"pad_token": "<pad>", "token": "<think>", "max_tokens": 5, "key": "a"}
    )
    load(recipe)


@pytest.mark.parametrize("given", ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "sk_mine", 5, "", "POSTTRAIN_x"])
def test_a_recipe_cannot_send_any_variable_of_the_user_s_to_its_servers(given):
    engine = {"use": "vllm-server", "with": {"urls": ["http://127.0.0.1:1"], "api_key_env": given}}
    with pytest.raises(Mistake, match=r"rollouts\.engine\.with\.api_key_env: .*begins with POSTTRAIN_"):
        load(put(VALID, ("rollouts", "engine"), engine))
    engine["with"]["api_key_env"] = "POSTTRAIN_OTHER_KEY"
    load(put(VALID, ("rollouts", "engine"), engine))


@pytest.mark.parametrize("value", [True, False, "yes", None])
@pytest.mark.parametrize(
    "path",
    [("model", "trust_remote_code"), ("model", "with", "trust_remote_code"), ("trainer", "args", "trust_remote_code"),
     ("trainer", "args", "model_init_kwargs", "trust-remote-code"), ("data", "train", "with", "trustRemoteCode"),
     ("rollouts", "engine", "with", "trust_remote_code"), ("adapter", "trust_remote_code"),
     ("rewards", 0, "with", "judge", "trust_remote_code")],
    ids=lambda p: ".".join(map(str, p)),
)  # fmt: skip
def test_no_recipe_gives_leave_to_run_code_from_the_hub(path, value):
    base = put(VALID, ("rollouts", "engine"), {"use": "vllm", "with": {}})
    with pytest.raises(Mistake, match="belongs on the command line") as refused:
        load(put(base, path, value))
    assert ".".join(map(str, path)) in str(refused.value)


def test_nor_by_a_word_for_a_server():
    with pytest.raises(Mistake, match="belongs on the command line"):
        load(put(VALID, ("rewards", 0, "with", "words"), ["--trust-remote-code"]))
