"""What a launch does to a run's folder before and after training, with the files of real launches but no training."""

from __future__ import annotations

import errno
import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from accelerate import PartialState

from posttrain import bookkeeping, checkpoints
from posttrain.errors import Alarm, Mistake
from posttrain.launch import Launch
from posttrain.recipe import read
from posttrain.rundir import RunDir, append_line, read_lines

RECIPE = """\
model: {name: miniature/arithmetic}
adapter: {r: 8}
data: {train: {path: rows.jsonl}}
rewards: [{use: "mine.py:f"}]
trainer: {algorithm: grpo, args: {num_generations: 8}}
run: {name: x}
"""


@pytest.fixture
def world():
    return PartialState(cpu=True)


@pytest.fixture
def start(world, tmp_path, monkeypatch):
    """`start("key=value", restart=True, ...)`: the claim of one launch."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(RECIPE)
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "mine.py").write_text("def f(completions, **_): ...\n")

    def do(*overrides: str, **flags: bool) -> bookkeeping.Claimed:
        return bookkeeping.claim(world, read("r.yaml", overrides), Launch("r.yaml", overrides, **flags))

    yield do
    RunDir(tmp_path / "runs" / "x").release()


def step(run: RunDir, number: int) -> None:
    append_line(run.metrics, {"step": number, "phase": "train"})


def save(run: RunDir, number: int, **facts) -> None:
    folder = checkpoints.folder_of(run, number)
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"x")
    checkpoints.seal(folder, step=number, **facts)


def begun(start) -> RunDir:
    """A run that was cut off in step 5 and has a checkpoint of step 3."""
    run = start().run
    for number in range(1, 5):
        step(run, number)
    save(run, 3)
    checkpoints.folder_of(run, 4).mkdir()
    return run


def launches(run: RunDir) -> list[dict]:
    return list(read_lines(run.launches))


def test_the_first_launch_leaves_its_line_and_its_recipe(start):
    claimed = start()
    assert claimed.start is None
    [line] = launches(claimed.run)
    assert (line["resumed_from"], line["processes"], line["anyway"], line["changed"]) == (None, 1, [], [])
    assert set(line["files"]) == {"rewards.0.use (mine.py)", "data.train.path (rows.jsonl)"}
    assert line["versions"]["torch"]
    assert claimed.run.recipe.read_text() == RECIPE


def test_the_same_command_goes_on_from_the_newest_whole_checkpoint(start, capsys):
    begun(start)
    claimed = start()
    assert claimed.start is not None
    assert claimed.start.step == 3
    assert [r["step"] for r in read_lines(claimed.run.metrics)] == [1, 2, 3]
    assert [s for s, _ in checkpoints.all_of(claimed.run)] == [3]
    assert [line["resumed_from"] for line in launches(claimed.run)] == [None, 3]
    assert "goes on from step 3" in capsys.readouterr().err


def test_another_recipe_is_refused_with_the_difference_and_nothing_is_touched(start, tmp_path):
    run = begun(start)
    before = {p.name: p.read_bytes() for p in run.root.iterdir() if p.is_file() and p.name != ".lock"}
    (tmp_path / "mine.py").write_text("def f(completions, **_): return []\n")
    with pytest.raises(Mistake) as refused:
        start("trainer.args.num_generations=4")
    said = str(refused.value)
    assert "trainer.args.num_generations: 8 → 4; rewards.0.use (mine.py): " in said
    assert "the file was altered" in said
    assert "--restart" in said
    assert "--resume-anyway" in said
    assert "\n" not in said
    assert {p.name: p.read_bytes() for p in run.root.iterdir() if p.is_file() and p.name != ".lock"} == before
    assert [r["step"] for r in read_lines(run.metrics)] == [1, 2, 3, 4]


def test_whoever_insists_goes_on_and_it_is_recorded(start):
    run = begun(start)
    claimed = start("trainer.args.num_generations=4", "checkpoints.every=2", resume_anyway=True)
    assert claimed.start.step == 3
    last = launches(run)[-1]
    assert last["anyway"] == ["trainer.args.num_generations: 8 → 4"]
    assert last["changed"] == ["checkpoints.every: 50 → 2"]
    assert json.loads(run.resolved.read_text())["trainer"]["args"]["num_generations"] == 4
    step(run, 4)
    assert start("trainer.args.num_generations=4").start.step == 3  # what was insisted on is the recipe now
    with pytest.raises(Mistake, match="num_generations: 4 → 8"):
        start()


def test_free_settings_may_change(start):
    run = begun(start)
    assert start("checkpoints.every=2", "watch.stall=9").start.step == 3
    assert launches(run)[-1]["changed"] == ["checkpoints.every: 50 → 2", "watch.stall: 600.0 → 9.0"]


def test_a_run_that_fell_before_its_first_step_may_be_mended(start):
    start()
    claimed = start("trainer.args.num_generations=4")
    assert claimed.start is None
    assert launches(claimed.run)[-1]["anyway"] == []


def test_steps_without_a_checkpoint_are_not_thrown_away_for_another_recipe(start):
    step(start().run, 1)
    with pytest.raises(Mistake, match="num_generations: 8 → 4"):
        start("trainer.args.num_generations=4")
    claimed = start()
    assert claimed.start is None
    assert not list(read_lines(claimed.run.metrics))


def test_restart_begins_anew_beside_the_old_one(start, tmp_path):
    begun(start)
    claimed = start("trainer.args.num_generations=4", restart=True)
    assert claimed.start is None
    assert not claimed.run.metrics.exists()
    [aside] = (tmp_path / "runs").glob("x.*")
    assert [r["step"] for r in read_lines(RunDir(aside).metrics)] == [1, 2, 3, 4]


def test_other_versions_are_a_warning(start, capsys):
    run = begun(start)
    line = launches(run)[-1]
    append_line(run.launches, {**line, "versions": {**line["versions"], "torch": "1.0"}})
    assert start().start.step == 3
    assert "goes on with other versions than it began with (torch 1.0 → " in capsys.readouterr().err


def test_another_number_of_processes_is_refused(start):
    run = begun(start)
    append_line(run.launches, {**launches(run)[-1], "processes": 2})
    with pytest.raises(Mistake, match="processes: 2 → 1"):
        start()


def test_a_checkpoint_that_was_tampered_with_is_passed_over(start, caplog):
    run = begun(start)
    save(run, 2)
    (checkpoints.folder_of(run, 3) / "adapter_model.safetensors").write_bytes(b"y")
    assert start().start.step == 2
    assert (run.checkpoints / "damaged-3").is_dir()
    assert "checkpoint-3 is not whole and is not used: adapter_model.safetensors was altered" in caplog.text


def test_pickled_weights_in_a_checkpoint_are_refused(start):
    run = begun(start)
    (checkpoints.folder_of(run, 3) / "adapter_model.bin").write_bytes(b"y")
    with pytest.raises(Mistake, match=r"checkpoint-3: adapter_model\.bin is pickled"):
        start()


def test_the_line_of_a_launch_holds_no_key(start, monkeypatch):
    monkeypatch.setattr(
        "sys.argv", ["train", "r.yaml", "rollouts.engine.with.api_key=sk-very-secret-very-secret-1234"]
    )
    assert "very-secret" not in start().run.launches.read_text()


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (None, "done"),
        (Alarm("parity"), "stopped"),
        (KeyboardInterrupt(), "stopped"),
        (OSError(errno.ENOSPC, "full"), "stopped"),
        (Mistake("no"), "failed"),
        (ZeroDivisionError("ours"), "failed"),
    ],
)
def test_status_says_how_it_ended(start, world, error, state):
    claimed = start()

    def go():
        with bookkeeping.status(world, claimed) as status:
            assert claimed.run.state == "running"
            status.steps = 7
            if error is not None:
                raise error

    with nullcontext() if error is None else pytest.raises(type(error)):
        go()
    found = claimed.run.read_status()
    assert (found["state"], found["steps"], found["resumed_from"]) == (state, 7, None)
    assert (found["error"] is None) == (error is None)
    assert found["pid"] > 0
    assert found["host"]


def test_time_of_all_launches_adds_up(start, world):
    claimed = start()
    save(claimed.run, 3)
    with pytest.raises(Alarm), bookkeeping.status(world, claimed):
        raise Alarm("x")
    claimed.run.update_status(seconds=100.0)
    again = start()
    with bookkeeping.status(world, again):
        assert again.run.read_status()["resumed_from"] == 3
    found = again.run.read_status()
    assert 100.0 < found["seconds"] < 160.0
    assert found["started"] == claimed.run.read_status()["started"] < found["launched"]


@pytest.mark.parametrize(
    ("kind", "environment", "refused"),
    [
        ("MULTI_GPU", {}, None),
        ("DEEPSPEED", {}, "DeepSpeed's checkpoints are pickles"),
        ("MULTI_GPU", {"ACCELERATE_USE_FSDP": "true", "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT", "FSDP_VERSION": "2"}, None),
        ("MULTI_GPU", {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, "sharded state dicts are pickles"),
        ("MULTI_GPU", {"ACCELERATE_USE_FSDP": "true", "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT"}, "sharded state dicts"),
        ("MULTI_GPU", {"FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT"}, None),
    ],
)  # fmt: skip
def test_sharding_that_only_unpickling_can_read_is_refused_before_it_starts(
    start, monkeypatch, kind, environment, refused
):
    recipe = read("r.yaml").recipe
    for name in ("ACCELERATE_USE_FSDP", "FSDP_STATE_DICT_TYPE", "FSDP_VERSION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    many = SimpleNamespace(distributed_type=f"DistributedType.{kind}")
    with nullcontext() if refused is None else pytest.raises(Mistake, match=refused):
        bookkeeping._refuse_unreadable(many, recipe)
    bookkeeping._refuse_unreadable(many, read("r.yaml", ["checkpoints.every=0"]).recipe)
