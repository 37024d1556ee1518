"""Which checkpoint is whole, which is the newest, which stay."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from posttrain import checkpoints
from posttrain.errors import Mistake
from posttrain.rundir import RunDir, append_line, write_json

FILES = {
    "adapter_model.safetensors": bytes(range(64)),
    "trainer_state.json": b'{"global_step": 3}',
    "sub/part.json": b"{}",
}


def write(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def run(tmp_path) -> RunDir:
    return RunDir(tmp_path / "run")


def make(run: RunDir, step: int, **facts) -> checkpoints.Manifest:
    return checkpoints.seal(write(checkpoints.folder_of(run, step)), step=step, **facts)


def test_a_sealed_checkpoint_is_whole_and_says_what_it_was_told(run):
    made = make(run, 3, world=2, reason="stopped: SIGTERM", weights="ab", ledger={"issued": 4}, metric=0.5)
    found = checkpoints.whole(made.folder)
    assert found == made
    assert (found.step, found.world, found.reason, found.metric) == (3, 2, "stopped: SIGTERM", 0.5)
    assert found.ledger == {"issued": 4}
    assert {name: facts["size"] for name, facts in found.files.items()} == {n: len(c) for n, c in FILES.items()}


def test_a_folder_without_its_manifest_is_not_whole(run):
    folder = write(checkpoints.folder_of(run, 3))
    assert checkpoints.whole(folder) is None
    assert checkpoints.examine(folder) == "it was never finished"
    assert checkpoints.newest(run) is None


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    run = RunDir(tmp_path_factory.mktemp("pristine"))
    return make(run, 7, metric=0.25, ledger={"issued": 16}).folder


def damaged(pristine: Path, name: str, content: bytes | None) -> bool:
    """Whether a copy of the checkpoint in which one file has another content (None = is gone) is whole."""
    path = pristine / name
    kept = path.read_bytes()
    try:
        path.unlink() if content is None else path.write_bytes(content)
        return checkpoints.whole(pristine) is not None
    finally:
        path.write_bytes(kept)


NAMES = [*FILES, checkpoints.MANIFEST]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_gone_or_cut_anywhere_leaves_it_not_whole(pristine, name):
    content = (pristine / name).read_bytes()
    assert not damaged(pristine, name, None)
    for length in range(len(content)):
        assert not damaged(pristine, name, content[:length]), length
    assert not damaged(pristine, name, content + b"\n")
    assert checkpoints.whole(pristine) is not None


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_byte_altered_anywhere_leaves_it_not_whole(pristine, data):
    name = data.draw(st.sampled_from(NAMES))
    content = bytearray((pristine / name).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    assert not damaged(pristine, name, bytes(content))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(max_size=300), st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["format", "step", "world", "files", "seal", "metric"]), inner, max_size=5),
).map(lambda v: json.dumps(v).encode())))  # fmt: skip
def test_a_manifest_of_anything_never_fails_and_is_never_whole(pristine, content):
    assert not damaged(pristine, checkpoints.MANIFEST, content)


ANYTHING = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=3), st.just([]),
                     st.just({}), st.just({"x": []}), st.just({"x": {"size": None, "digest": None}}),
                     st.just({"../../x": {"size": 0, "digest": "no"}}))  # fmt: skip


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    facts=st.dictionaries(
        st.sampled_from(["world", "created", "files", "weights", "ledger", "metric", "reason"]), ANYTHING
    )
)
def test_a_well_sealed_manifest_of_anything_never_fails(pristine, facts):
    """Whoever makes a checkpoint can seal what he likes; nothing that he writes there leads to more than a refusal."""
    made = checkpoints.whole(pristine)
    forged = checkpoints._render(replace(made, **facts)).encode()
    path = pristine / checkpoints.MANIFEST
    kept = path.read_bytes()
    try:
        path.write_bytes(forged)
        found = checkpoints.examine(pristine)
    finally:
        path.write_bytes(kept)
    assert isinstance(found, str | checkpoints.Manifest)
    if isinstance(facts.get("files"), dict) and facts["files"]:
        assert isinstance(found, str)


def test_a_manifest_of_another_step_does_not_fit(run):
    made = make(run, 3)
    shutil.copytree(made.folder, checkpoints.folder_of(run, 9))
    assert checkpoints.newest(run).step == 3


def test_a_link_in_place_of_a_file_does_not_fit(run, tmp_path):
    made = make(run, 3)
    path = made.folder / "trainer_state.json"
    outside = tmp_path / "outside.json"
    shutil.move(path, outside)
    path.symlink_to(outside)
    assert checkpoints.examine(made.folder) == "trainer_state.json is missing"


def test_the_newest_whole_one_is_found_and_the_others_are_named(run, caplog):
    for step in (2, 4, 10, 9):
        make(run, step)
    (checkpoints.folder_of(run, 10) / "trainer_state.json").write_bytes(b'{"global_step": 4}')
    write(checkpoints.folder_of(run, 12))
    assert checkpoints.newest(run).step == 9
    assert "checkpoint-12 is not whole and is not used: it was never finished" in caplog.text
    assert "checkpoint-10 is not whole and is not used: trainer_state.json was altered" in caplog.text


def test_sweeping_removes_what_was_cut_off_and_keeps_the_rest(run):
    make(run, 2)
    make(run, 4)
    (checkpoints.folder_of(run, 4) / "trainer_state.json").unlink()
    write(checkpoints.folder_of(run, 6))
    (run.checkpoints / "notes").mkdir()
    checkpoints.sweep(run)
    assert sorted(p.name for p in run.checkpoints.iterdir()) == ["checkpoint-2", "damaged-4", "notes"]
    make(run, 4)
    (checkpoints.folder_of(run, 4) / "trainer_state.json").unlink()
    checkpoints.sweep(run)
    assert (run.checkpoints / "damaged-4~2").is_dir()


def steps(run: RunDir) -> list[int]:
    return [step for step, _ in checkpoints.all_of(run)]


def test_the_last_ones_stay(run):
    for step in range(1, 6):
        make(run, step)
    assert checkpoints.rotate(run, keep=2) == [1, 2, 3]
    assert steps(run) == [4, 5]


def test_what_is_not_whole_does_not_count_and_is_left_alone(run):
    make(run, 1)
    make(run, 2)
    write(checkpoints.folder_of(run, 3))
    checkpoints.rotate(run, keep=2)
    assert steps(run) == [1, 2, 3]


METRICS = st.one_of(st.none(), st.sampled_from([0.0, 0.25, 0.5, 1.0]))


@settings(max_examples=60, deadline=None)
@given(
    metrics=st.lists(METRICS, min_size=1, max_size=8),
    keep=st.integers(1, 4),
    keep_best=st.integers(0, 3),
    best=st.sampled_from(["highest", "lowest"]),
)
def test_the_last_and_the_best_stay(tmp_path_factory, metrics, keep, keep_best, best):
    """Oracle: after each save, by brute force over what is there then."""
    run = RunDir(tmp_path_factory.mktemp("rotate"))
    there: dict[int, float | None] = {}
    for step, metric in enumerate(metrics, start=1):
        checkpoints.seal(write(checkpoints.folder_of(run, step), {"x": b""}), step=step, metric=metric)
        there[step] = metric
        checkpoints.rotate(run, keep, keep_best, best)
        ranked = sorted((s for s, m in there.items() if m is not None),
                        key=lambda s: (-there[s] if best == "highest" else there[s], -s))  # fmt: skip
        there = {s: m for s, m in there.items() if s in sorted(there)[-keep:] or s in ranked[:keep_best]}
        assert steps(run) == sorted(there)
    shutil.rmtree(run.root)


def test_numbers_that_are_none_do_not_count_as_a_metric(run):
    assert make(run, 1, metric=float("nan")).metric is None
    assert checkpoints.whole(checkpoints.folder_of(run, 1)).metric is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pytorch_model.bin", b"anything"),
        ("pytorch_model-00001-of-00002.bin", b"anything"),
        ("adapter_model.bin", b"anything"),
        ("weights", pickle.dumps({"a": 1})),
        ("sub/optimizer.pt", b"anything"),
        ("model.safetensors", pickle.dumps([1, 2])),
    ],
)
def test_pickled_weights_are_refused_when_saved_and_when_loaded(run, name, content):
    made = make(run, 3)
    write(made.folder, {name: content})
    with pytest.raises(Mistake, match=r"is pickled, and a pickle can run code"):
        checkpoints.newest(run)
    with pytest.raises(Mistake, match="pickled"):
        checkpoints.seal(made.folder, step=3)
    assert checkpoints.whole(made.folder) is None


def test_torch_archives_are_pickles_whatever_their_name(run):
    torch = pytest.importorskip("torch")
    made = make(run, 3)
    torch.save({"w": torch.zeros(2)}, made.folder / "tensors")
    with pytest.raises(Mistake, match="tensors is pickled"):
        checkpoints.newest(run)


def test_states_that_are_read_without_running_code_are_not_refused(run):
    folder = write(
        checkpoints.folder_of(run, 1), {n.replace("*", "_0"): pickle.dumps(0) for n in checkpoints.READ_RESTRICTED}
    )
    checkpoints.seal(folder, step=1)
    assert checkpoints.newest(run).step == 1


def test_large_files_are_compared_by_size(run, monkeypatch):
    monkeypatch.setattr(checkpoints, "DIGESTED", 32)
    made = make(run, 1)
    assert made.files["adapter_model.safetensors"]["digest"] is None
    assert made.files["trainer_state.json"]["digest"] is not None
    assert checkpoints.whole(made.folder) == made
    (made.folder / "adapter_model.safetensors").write_bytes(b"short")
    assert checkpoints.examine(made.folder) == "adapter_model.safetensors has 5 bytes instead of 64"


def full_disk(size: str, tmp_path: Path):
    """A real file system of `size` under `tmp_path`; skips where it cannot be mounted."""
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() != 0 or os.system(f"mount -t tmpfs -o size={size} tmpfs {place} 2>/dev/null"):
        pytest.skip("needs the right to mount a small file system")
    return place


@pytest.fixture
def small(tmp_path):
    place = full_disk("256k", tmp_path)
    yield place
    os.system(f"umount -l {place}")


def test_on_a_full_disk_nothing_is_sealed_and_the_last_one_stays(small):
    safetensors = pytest.importorskip("safetensors.torch")
    torch = pytest.importorskip("torch")
    run = RunDir(small / "run")
    make(run, 1)
    folder = write(checkpoints.folder_of(run, 2))
    for save in (
        lambda: safetensors.save_file({"w": torch.zeros(200_000)}, folder / "model.safetensors"),
        lambda: torch.save({"w": torch.zeros(200_000)}, folder / "optimizer.pt"),
        lambda: (folder / "text.json").write_text("x" * 800_000),
    ):
        with pytest.raises(Exception) as caught:  # noqa: PT011  (each library has its own)
            save()
        assert checkpoints.disk_trouble(caught.value) == "the disk is full", repr(caught.value)
    with pytest.raises(OSError, match="space"):
        checkpoints.seal(folder, step=2)
    checkpoints.discard(folder)
    assert not folder.exists()
    assert checkpoints.newest(run).step == 1
    assert checkpoints.seal(write(checkpoints.folder_of(run, 3)), step=3).step == 3


def test_other_errors_are_not_the_disk():
    assert checkpoints.disk_trouble(ValueError("no")) is None
    assert checkpoints.disk_trouble(OSError(errno.ENOENT, "gone")) is None
    wrapped = RuntimeError("saving failed")
    wrapped.__cause__ = OSError(errno.EDQUOT, "quota")
    assert checkpoints.disk_trouble(wrapped) == "the disk quota is used up"


def result(run: RunDir, step: int, benchmark: str, accuracy: float, folder: str | None = None) -> None:
    path = run.evaluation(f"step-{step:06d}", folder or benchmark) / "result.json"
    write_json(path, {"benchmark": benchmark, "metrics": {"accuracy": {"value": accuracy}}})


def test_a_checkpoint_is_measured_by_the_benchmark_of_its_step(run):
    result(run, 10, "arithmetic", 0.25)
    result(run, 20, "arithmetic", 0.5)
    result(run, 20, "gsm8k", 0.75)
    assert checkpoints.measure(run, "arithmetic", 20) == 0.5
    assert checkpoints.measure(run, "gsm8k", 20) == 0.75
    assert checkpoints.measure(run, "arithmetic", 15) is None
    assert checkpoints.measure(run, None, 20) is None


def test_or_by_what_was_logged_at_it(run, caplog):
    append_line(run.metrics, {"step": 5, "phase": "train", "reward": 0.5, "loss": 2.0})
    append_line(run.metrics, {"step": 5, "phase": "eval", "loss": 3.0})
    append_line(run.metrics, {"step": 6, "phase": "train", "reward": None})
    assert checkpoints.measure(run, "reward", 5) == 0.5
    assert checkpoints.measure(run, "loss", 5) == 2.0
    assert checkpoints.measure(run, "eval_loss", 5) == 3.0
    assert not caplog.text
    assert checkpoints.measure(run, "reward", 6) is None
    assert checkpoints.measure(run, "reward", 4) is None
    assert "the checkpoint of step 4 counts as unmeasured: there is no reward of that step" in caplog.text


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"benchmark": "a"}', '{"benchmark": "a", "metrics": []}', '{"metrics": 1}']
)
def test_a_damaged_result_measures_nothing(run, text):
    path = run.evaluation("step-000005", "a") / "result.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert checkpoints.measure(run, "a", 5) is None


SAVES = """
import os, sys
from posttrain import checkpoints
from posttrain.rundir import RunDir
run = RunDir(sys.argv[1])
checkpoints.sweep(run)
found = checkpoints.newest(run)
step = found.step if found else 0
print("from", step, flush=True)
while True:
    step += 1
    folder = checkpoints.folder_of(run, step)
    folder.mkdir(parents=True)
    for i in range(4):
        (folder / f"part-{i}.safetensors").write_bytes(bytes([step % 256]) * 50_000)
    checkpoints.seal(folder, step=step, metric=(step * 7 % 11) / 10)
    print("sealed", step, flush=True)
    checkpoints.rotate(run, keep=2, keep_best=1)
"""


def test_killed_at_any_moment_what_was_sealed_is_found_again(run):
    """A process that saves and rotates without pause is killed a dozen times, at random moments."""
    random = Random(0)
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVES, str(run.root)], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline().startswith("from ")
        time.sleep(random.uniform(0, 0.15))
        process.kill()
        lines = process.stdout.read().split("\n")
        process.wait()
        said = [int(line.split()[1]) for line in lines[:-1] if line.startswith("sealed")]
        found = checkpoints.newest(run)
        if said:
            assert found is not None
            assert found.step in (said[-1], said[-1] + 1)
        if found is not None:
            content = {(found.folder / name).read_bytes() for name in found.files}
            assert content == {bytes([found.step % 256]) * 50_000}
            assert len(found.files) == 4
    assert found is not None
    assert found.step > 12
    checkpoints.sweep(run)
    assert all(checkpoints.whole(path) for _, path in checkpoints.all_of(run))
    assert not list(run.checkpoints.glob("damaged-*"))


@pytest.mark.parametrize("second", [2, 3, 4, 5])
def test_safetensors_whose_size_looks_like_a_pickle_are_none(tmp_path, second):
    """The file begins with the size of its header: 0x0280 = 640 reads like the first two bytes of a pickle."""
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(second * 256 + 128)
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert path.read_bytes()[:2] == bytes([0x80, second])
    assert list(load_file(path)) == ["a"]
    assert not checkpoints.is_pickle(path)
    (tmp_path / "other.safetensors").write_bytes(pickle.dumps({"a": 1}, protocol=second))
    assert checkpoints.is_pickle(tmp_path / "other.safetensors")
