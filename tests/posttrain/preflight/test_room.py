"""Too long prompts, too little memory, too small disks."""

from __future__ import annotations

import os
import resource
import subprocess

import pytest

from posttrain.preflight import room
from posttrain.preflight.scene import Scene


def test_a_prompt_that_leaves_no_room(build, alone):
    long = "x" * 400
    trainer, parts = build(
        f'data.train.prompt="{long} {{question}}"', "data.train.max_prompt_tokens=500",
        "rollouts.sampling.max_tokens=700",
    )  # fmt: skip
    row = room.prompts_fit(Scene(trainer, parts, alone, online=True))
    assert row.ok is False
    assert "is more than the model's 1024" in row.looked
    assert "max_prompt_tokens: 324" in row.mend


def test_rows_that_are_cut(look):
    assert look(recipe="arithmetic_sft")["lengths"].ok
    row = look("model.max_length=30", recipe="arithmetic_sft")["lengths"]
    assert row.ok is False
    assert "rows are longer than 30 tokens and lose their ends" in row.looked
    row = look("model.max_length=40", "data.train.with={n: 64}", recipe="arithmetic_dpo")["lengths"]
    assert row.ok is False
    assert "lose their ends" in row.looked


@pytest.mark.parametrize(
    ("words", "most"),
    [
        (("trainer.args.per_device_train_batch_size=262144",), "activations"),
        (("trainer.args.gradient_accumulation_steps=524288", "rollouts.sampling.max_tokens=1000"), "cache"),
    ],
)
def test_more_memory_than_there_is(build, alone, words, most):
    trainer, parts = build(*words)
    found = room.memory_fits(Scene(trainer, parts, alone, online=True))
    assert found.ok is False
    assert f"most of it {most}" in found.looked
    assert found.mend == room.MENDS[most]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_too_small(look, small_disk):
    row = look(f"run.directory={small_disk}", "checkpoints.every=1")["disk"]
    assert row.ok is False
    assert "1.0 MiB free" in row.looked
    assert "checkpoints.keep" in row.mend


def test_files_may_not_be_large_enough(look):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100 * 1024, before[1]))
    try:
        row = look()["disk"]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert row.ok is False
    assert "files may have 100.0 KiB here" in row.looked


def test_a_checkpoint_is_as_large_as_it_is_said_to_be(build, alone):
    """Against what the trainer writes."""
    trainer, parts = build("checkpoints.every=1", "trainer.args.max_steps=1")
    saved, state = room._sizes(Scene(trainer, parts, alone, online=True))
    trainer.train()
    (folder,) = [f for f in parts.run.checkpoints.iterdir() if f.name == "checkpoint-1"]
    weights = os.path.getsize(folder / "adapter_model.safetensors")
    assert os.path.getsize(folder / "optimizer.pt") == pytest.approx(state, rel=0.1)
    assert weights == pytest.approx(saved, rel=0.1)
