"""What may go on, and what must go first."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain import resume
from posttrain.recipe import load
from posttrain.rundir import RunDir, append_line, read_lines, write_json

RECIPE = {
    "model": {"name": "miniature/arithmetic"},
    "adapter": {"r": 8},
    "data": {"train": {"use": "posttrain.miniature.arithmetic:train", "with": {"n": 64}}},
    "rewards": [{"use": "rewards.math:correct"}],
    "rollouts": {"engine": {"use": "vllm-server", "with": {"urls": ["http://127.0.0.1:8000"], "timeout": 60.0}}},
    "trainer": {"algorithm": "grpo", "args": {"num_generations": 8, "learning_rate": 1e-5}},
    "run": {"name": "x"},
}


def resolved(*overrides: str) -> dict:
    return load(copy.deepcopy(RECIPE), list(overrides)).model_dump(mode="json", by_alias=True)


def test_the_same_recipe_does_not_differ():
    assert resume.differences(resolved(), resolved()) == []


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer.args.learning_rate=2e-5", ["trainer.args.learning_rate: 1e-05 → 2e-05"]),
        ("trainer.args.beta=0.1", ["trainer.args.beta: (not given) → 0.1"]),
        ("rewards.0.weight=2", ["rewards.0.weight: 1.0 → 2.0"]),
        ("run.seed=1", ["run.seed: 0 → 1"]),
        ("adapter.r=16", ["adapter.r: 8 → 16"]),
        ("rollouts.engine=transformers", [
            'rollouts.engine: {"use": "vllm-server", "with": {"urls": ["http://127.0.0.1:8000"], "timeout": 60.0}} → transformers']),
        ("rollouts.sampling.stop=[a]", ["rollouts.sampling.stop.0: (not given) → a"]),
    ],
)  # fmt: skip
def test_a_change_is_named_by_its_key(override, said):
    found = resume.differences(resolved(), resolved(override))
    shown = [str(d) for d in found]
    assert [s[:80] for s in shown] == [s[:80] for s in said]
    assert not any(d.free for d in found)


@pytest.mark.parametrize(
    "override",
    [
        "checkpoints.every=7",
        "checkpoints.keep_best=1 checkpoints.metric=reward",
        "preflight=warn",
        "watch.stall=5",
        "run.report_to=[tensorboard]",
        "run.directory=elsewhere",
        "rollouts.engine.with.urls=[http://127.0.0.1:9000,http://127.0.0.1:9001]",
        "rollouts.engine.with.timeout=5",
        "rewards.0.timeout=5",
        "rewards.0.processes=2",
    ],
)
def test_what_changes_nothing_of_the_training_is_free(override):
    found = resume.differences(resolved(), resolved(*override.split()))
    assert found
    assert all(d.free for d in found)


def test_numbers_that_are_equal_do_not_differ_but_a_switch_is_no_number():
    assert resume.differences({"a": 1}, {"a": 1.0}) == []
    assert [str(d) for d in resume.differences({"a": 1}, {"a": True})] == ["a: 1 → true"]


LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from(["", "x", "my.py:f"]))
TREES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3)
)


@settings(max_examples=300, deadline=None)
@given(old=st.dictionaries(st.sampled_from("abcd"), TREES), new=st.dictionaries(st.sampled_from("abcd"), TREES))
def test_there_is_a_difference_exactly_where_the_trees_are_not_equal(old, new):
    """Oracle: equality of the canonical JSON (in which 1 and true differ)."""
    equal = json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True)
    assert (resume.differences(old, new) == []) == equal
    assert len(resume.differences(old, new)) == len(resume.differences(new, old))


def test_control_sequences_in_values_are_shown():
    [found] = resume.differences({"a": "\x1b[2J"}, {"a": "x" * 500})
    assert "\x1b" not in str(found)
    assert len(str(found)) < 200


def test_local_files_that_a_recipe_names_are_digested(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("my.py", "data.jsonl", "template.jinja", "engine.py"):
        Path(name).write_text(f"# {name}\n")
    Path("start").mkdir()
    Path("start/adapter_config.json").write_text("{}")
    Path("package").mkdir()
    Path("package/__init__.py").write_text("")
    Path("package/inner.py").write_text("def f(completions, **_): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    recipe = {
        "model": {"name": "Qwen/Qwen2.5-1.5B", "chat_template": "template.jinja"},
        "adapter": {"start_from": "start"},
        "data": {"train": {"path": "data.jsonl", "use": None}},
        "rewards": [
            {"use": f"{tmp_path}/my.py:f", "with": {"helper": f"{tmp_path}/my.py:g", "note": "data.jsonl"}},
            {"use": "rewards.math:correct"},
            {"use": "package.inner:f"},
            {"use": "no.such.module:f"},
        ],
        "rollouts": {"engine": {"use": "engine.py:Mine"}},
    }
    first = resume.digests(recipe)
    assert set(first) == {
        "model.chat_template (template.jinja)",
        "adapter.start_from (start)",
        "data.train.path (data.jsonl)",
        "rewards.0.use (my.py)",
        "rewards.0.with.helper (my.py)",
        "rewards.2.use (inner.py)",
        "rollouts.engine.use (engine.py)",
    }
    assert resume.digests(recipe) == first
    Path("my.py").write_text("# other\n")
    Path("start/adapter_config.json").write_text("[]")
    changed = resume.altered(first, resume.digests(recipe))
    assert {d.key for d in changed} == {
        "adapter.start_from (start)",
        "rewards.0.use (my.py)",
        "rewards.0.with.helper (my.py)",
    }
    assert all(str(d).endswith("the file was altered") for d in changed)


def test_a_project_that_was_moved_is_the_same_run():
    old, new = resolved(), resolved()
    old["rewards"][0]["use"], new["rewards"][0]["use"] = "/home/a/my.py:f", "/mnt/b/my.py:f"
    assert resume.differences(old, new) == []
    new["rewards"][0]["use"] = "/mnt/b/my.py:g"
    assert len(resume.differences(old, new)) == 1


def test_a_large_file_is_known_by_its_ends_and_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "HASHED", 2**20)
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(4 * 2**20))
    first = resume.digest_of(path)
    for place in (0, 4 * 2**20 - 1):
        content = bytearray(4 * 2**20)
        content[place] = 1
        path.write_bytes(content)
        assert resume.digest_of(path) != first
    path.write_bytes(bytes(4 * 2**20 + 1))
    assert resume.digest_of(path) != first


def test_all_that_changed_since_a_launch():
    now = {
        "processes": 2,
        "files": {"a (x.py)": "1" * 16, "b (y.py)": "2" * 16},
        "versions": {"torch": "2", "trl": "1"},
    }
    before = {"processes": 1, "files": {"a (x.py)": "0" * 16, "c": "3"}, "versions": {"torch": "1", "vllm": "9"}}
    found = resume.since(before, now, {"x": 1}, {"x": 2})
    assert [str(d) for d in found] == [
        "x: 1 → 2",
        "a (x.py): 00000000 → 11111111, the file was altered",
        "processes: 1 → 2",
    ]
    assert resume.other_versions(before, now) == ["torch 1 → 2", "vllm 9 → none", "trl none → 1"]
    assert resume.since({}, now, None, {"x": 2}) == []
    assert resume.other_versions({}, now) == []


@settings(max_examples=100, deadline=None)
@given(record=st.dictionaries(st.sampled_from(["processes", "files", "versions"]), TREES))
def test_a_damaged_line_of_a_launch_never_fails(record):
    now = {"processes": 2, "files": {}, "versions": {}}
    resume.since(record, now, None, {})
    resume.other_versions(record, now)


@pytest.fixture
def run(tmp_path) -> RunDir:
    """Ten steps, of which the last was cut in the middle of everything."""
    run = RunDir(tmp_path / "x")
    for step in range(1, 11):
        append_line(run.metrics, {"step": step, "phase": "train", "loss": step / 3})
        if step % 5 == 0:
            append_line(run.metrics, {"step": step, "phase": "eval", "loss": 0.1})
    append_line(run.metrics, {"step": 10, "phase": "summary", "train_runtime": 1.0})
    with run.metrics.open("a") as file:
        file.write('{"step": 11, "pha')
    for step in range(0, 11):
        append_line(run.faults, {"step": step, "kind": "exception"})
        for rank in (0, 1):
            append_line(run.rollout_file(step, rank), {"step": step, "phase": "train", "row_id": "a"})
    append_line(run.rollout_file(5, 0), {"step": 5, "phase": "eval", "row_id": "held out"})
    for when, version in (("before", 0), ("step-000005", 5), ("step-000010", 10), ("after", 10)):
        append_line(run.evaluation(when, "arithmetic") / "samples.jsonl", {"version": version})
    for version in (4, 5, 6):
        run.adapter_version(version).mkdir(parents=True)
    run.adapter.mkdir()
    write_json(run.status, {"state": "running"})
    return run


def left(run: RunDir) -> dict[str, object]:
    return {
        "metrics": [(r["step"], r["phase"]) for r in read_lines(run.metrics)],
        "faults": [r["step"] for r in read_lines(run.faults)],
        "rollouts": {p.name: [r["phase"] for r in read_lines(p)] for p in sorted(run.rollouts.iterdir())},
        "evaluation": sorted(p.name for p in (run.root / "evaluation").iterdir()),
        "adapters": sorted(p.name for p in run.adapters.iterdir()),
        "adapter": run.adapter.exists(),
    }


def test_what_came_after_the_checkpoint_goes_and_the_rest_stays(run):
    kept = run.metrics.read_text().splitlines(keepends=True)[:6]
    resume.cut_back(run, 5)
    assert left(run) == {
        "metrics": [(1, "train"), (2, "train"), (3, "train"), (4, "train"), (5, "train"), (5, "eval")],
        "faults": [0, 1, 2, 3, 4],
        "rollouts": {
            **{f"{s:06d}-r{r}.jsonl": ["train"] for s in range(5) for r in (0, 1)},
            "000005-r0.jsonl": ["eval"],
        },
        "evaluation": ["before-arithmetic", "step-000005-arithmetic"],
        "adapters": ["v000004", "v000005"],
        "adapter": False,
    }
    assert run.metrics.read_text() == "".join(kept)  # to the byte
    again = left(run)
    resume.cut_back(run, 5)
    assert left(run) == again


def test_without_a_checkpoint_only_the_evaluation_before_stays(run):
    resume.cut_back(run, 0)
    assert left(run) == {
        "metrics": [],
        "faults": [],
        "rollouts": {},
        "evaluation": ["before-arithmetic"],
        "adapters": [],
        "adapter": False,
    }


def test_at_the_end_the_evaluation_after_goes_on(run):
    resume.cut_back(run, 10)
    assert "after-arithmetic" in left(run)["evaluation"]
    assert (10, "summary") not in left(run)["metrics"]


def test_an_empty_folder_has_nothing_to_cut(tmp_path):
    resume.cut_back(RunDir(tmp_path), 3)
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=100, deadline=None)
@given(
    lines=st.lists(st.one_of(
        st.builds(lambda s: json.dumps({"step": s, "phase": "train"}).encode(), st.integers(0, 9)),
        st.binary(max_size=12).filter(lambda b: b"\n" not in b),
    ), max_size=12),
    step=st.integers(0, 9),
)  # fmt: skip
def test_any_bytes_among_the_lines_are_survived(tmp_path_factory, lines, step):
    run = RunDir(tmp_path_factory.mktemp("run"))
    run.metrics.write_bytes(b"".join(line + b"\n" for line in lines)[:-1])
    wanted = []
    for line in lines[:-1]:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and record.get("step", 99) <= step:
            wanted.append(line + b"\n")
    resume.cut_back(run, step)
    assert run.metrics.read_bytes() == b"".join(wanted)


def test_the_last_launch_is_the_last_whole_line(run):
    assert resume.last_launch(run) == {}
    append_line(run.launches, {"pid": 1})
    append_line(run.launches, {"pid": 2})
    with run.launches.open("a") as file:
        file.write('{"pid": 3')
    assert resume.last_launch(run) == {"pid": 2}


def test_a_file_that_is_cut_is_replaced_whole(run, monkeypatch):
    """The new file takes the old one's place in one step: before that, the old one is as it was."""
    before, seen = run.metrics.read_bytes(), []
    replace = os.replace

    def watched(source, target):
        seen.append((Path(target), Path(target).read_bytes()))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    resume.cut_back(run, 5)
    assert (run.metrics, before) in seen


def _defaults(value, path=()):
    """Paths of everything in a resolved recipe, the deepest first."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _defaults(inner, (*path, key))
            if isinstance(value, dict):
                yield (*path, key)


def test_a_run_from_before_a_setting_existed_has_its_default(tmp_path):
    """Whatever key of the recipe an older version did not write, the run goes on: what is absent is the default."""
    from posttrain.bookkeeping import _resolved_before

    recipe = copy.deepcopy(RECIPE) | {"evaluation": [{"benchmark": "arithmetic", "every": 5, "limit": 8}]}
    now = load(recipe).model_dump(mode="json", by_alias=True)
    run = RunDir(tmp_path / "run")
    absent = []
    for path in _defaults(now):
        old = copy.deepcopy(now)
        inner = old
        for key in path[:-1]:
            inner = inner[key]
        given = recipe
        for key in path:
            given = given[key] if isinstance(given, list) or (isinstance(given, dict) and key in given) else None
        if given is not None:
            continue  # said by the user: that it is gone is a change
        del inner[path[-1]]
        write_json(run.resolved, old)
        assert resume.since({}, {"files": {}, "processes": 1}, _resolved_before(run), now) == [], path
        absent.append(".".join(map(str, path)))
    assert {"rollouts.keep_tokens", "evaluation.0.adaptive", "checkpoints.every"} <= set(absent)
    write_json(run.resolved, now | {"run": now["run"] | {"seed": 7}})
    assert [d.key for d in resume.since({}, {"files": {}, "processes": 1}, _resolved_before(run), now)] == ["run.seed"]
