"""Whatever is done to a recipe, the answer is a recipe or a few lines: never a traceback."""

import copy
import json
import math
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trl import GRPOConfig

from posttrain.errors import Mistake
from posttrain.recipe import Recipe, load
from posttrain.recipe.check import _trainer_args

VALID = json.loads((Path(__file__).parent / "valid.json").read_text())

NASTY = [
    None, True, False, 0, -1, 1.5, 10**17, 10**18, 10**30, -(10**4000), math.inf, -math.inf, math.nan, 1e308, "", " ", "\n", "a\nb", "\0",
    "no", "1e-6", "☃", "\u202e", "\u2028", "\ud800", "x" * 10_000, "../../etc/passwd", "os:system", ":", "a:b:c", "x.py:", ".py:f", "~:x",
    "miniature/arithmetic", [], [[]], {}, {"": ""}, {"use": None}, {"use": "vllm"}, [{"use": "m:f"}], {"with": {"with": {}}}, b"bytes", (1, 2),
    {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {}}}}}}}}}}}, object(), {1: 2}, float,
]  # fmt: skip
WORDS = [
    "model", "name", "with", "adapter", "data", "train", "eval", "use", "hub", "path", "rewards", "weight", "rollouts", "engine", "sampling", "stop",
    "trainer", "args", "algorithm", "evaluation", "run", "seed", "extends", "correction", "mode", "learning_rate", "temperature", "str", "Use",
    "list[str]", "0", "__class__", "model_config", "with_", "", "☃", "a.b", "a\nb", "api_key", "api_key_env", "trust_remote_code", "columns",
]  # fmt: skip

leaves = st.sampled_from(NASTY) | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(tree, path=()):
    """Every (container, key) in a tree."""
    items = list(tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else [])
    for key, inner in items:
        yield tree, key
        yield from places(inner, (*path, key))


@st.composite
def mutated(draw):
    """A valid recipe with one to four changes: a value replaced, dropped, doubled, renamed, or something added."""
    recipe = copy.deepcopy(VALID)
    for _ in range(draw(st.integers(1, 4))):
        found = list(places(recipe))
        if not found:
            break
        holder, key = found[draw(st.integers(0, len(found) - 1))]
        kind = draw(st.sampled_from(["replace", "drop", "rename", "add", "move"]))
        if kind == "replace":
            holder[key] = copy.deepcopy(draw(values))
        elif kind == "drop":
            del holder[key]
        elif kind == "rename" and isinstance(holder, dict):
            holder[draw(st.sampled_from(WORDS) | st.text(max_size=6))] = holder.pop(key)
        elif kind == "add" and isinstance(holder, dict):
            holder[draw(st.sampled_from(WORDS) | st.text(max_size=6))] = copy.deepcopy(draw(values))
        elif kind == "move":
            other, there = found[draw(st.integers(0, len(found) - 1))]
            other[there] = copy.deepcopy(holder[key])
    return recipe


def outcome(recipe, overrides=()):
    try:
        loaded = load(recipe, list(overrides))
    except Mistake as mistake:
        lines = str(mistake).split("\n")
        assert 1 <= len(lines) <= 5
        for line in lines:
            assert len(line.splitlines()) == 1, line
            assert line.isprintable(), line
            assert len(line) < 1500, len(line)
        return None
    assert isinstance(loaded, Recipe)
    json.dumps(loaded.model_dump(mode="json", by_alias=True), allow_nan=False).encode()
    return loaded


def test_the_recipe_that_is_changed_is_valid():
    assert outcome(VALID) is not None


@settings(max_examples=1500, deadline=None)
@given(mutated())
def test_mappings(recipe):
    outcome(recipe)


def yaml_text(value, indent=0):
    """A writer of one's own, careless on purpose: block style, nothing quoted that need not be."""
    if isinstance(value, dict) and value:
        return "".join(f"\n{' ' * indent}{k}: {yaml_text(v, indent + 2)}" for k, v in value.items())
    if isinstance(value, list) and value:
        return "".join(f"\n{' ' * indent}- {yaml_text(v, indent + 2).lstrip()}" for v in value)
    if value == "\n\n":
        return json.dumps(value)
    return str(value)[:6000] if not isinstance(value, int) or abs(value) < 10**3999 else "9" * 5000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mutations")


@settings(max_examples=500, deadline=None)
@given(recipe=mutated())
def test_files(folder, recipe):
    path = folder / "recipe.yaml"
    path.write_text(yaml_text(recipe), encoding="utf-8", errors="replace")
    outcome(path)


@settings(max_examples=500, deadline=None)
@given(data=st.data())
@example(data=None)
def test_damaged_files(folder, data):
    """Bytes of a valid file cut out, doubled or replaced."""
    text = bytearray(yaml_text(VALID).lstrip().encode())
    path = folder / "damaged.yaml"
    if data is None:
        path.write_bytes(bytes(text))
        assert outcome(path) is not None
        return
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 30)))
        text[start:end] = data.draw(
            st.binary(max_size=8)
            | st.sampled_from([b"&a ", b"*a", b"!!int ", b"{", b"[" * 900, b"<<: ", b"\t", b": ", b"- ", b"|\n", b"? ", b"%YAML 1.99999999999999999999\n---\n", b'"\\UFFFFFFFF"'])
            | st.just(bytes(text[start:end]) * 2)
        )  # fmt: skip
    path.write_bytes(bytes(text))
    outcome(path)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_bytes(folder, junk):
    path = folder / "junk.yaml"
    path.write_bytes(junk)
    assert outcome(path) is None


@settings(max_examples=500, deadline=None)
@given(st.lists(
    st.text(max_size=20)
    | st.builds(
        "{}={}".format,
        st.lists(st.sampled_from([*WORDS, "0", "1", "99", "-1"]), min_size=1, max_size=5).map(".".join),
        st.sampled_from(["1", "[]", "{}", "null", "x", "[1,", "&a 1", "9" * 5000, ".inf", "{a: {b: c}}", "", "'"]) | st.text(max_size=10),
    ),
    min_size=1, max_size=3,
))  # fmt: skip
def test_overrides(overrides):
    outcome(VALID, overrides)


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(st.sampled_from([*GRPOConfig.__dataclass_fields__, "los_type", "x"]), values, max_size=4))
def test_trainer_args(args):
    for path, text in _trainer_args(args, GRPOConfig):
        assert path[:2] == ("trainer", "args")
        assert len(text.splitlines()) == 1
