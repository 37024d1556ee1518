"""Real runs on the miniature, built as `posttrain.train` builds them and not begun."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SMALL = (
    "data.train.with={n: 64}",
    "trainer.args.per_device_train_batch_size=16",
    "trainer.args.num_generations=4",
    "trainer.args.max_steps=3",
    "evaluation=[]",
    "checkpoints.every=0",
)


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")


@pytest.fixture
def build(tmp_path):
    """`build("key=value", ..., recipe="arithmetic_grpo", change=lambda parts: ...)`: trainer and parts."""
    made = []

    def make(*words, recipe="arithmetic_grpo", change=None, name=None):
        from posttrain import assemble
        from posttrain.recipe import read
        from posttrain.rundir import RunDir

        name = name or f"r{len(made)}"
        where = [] if any(w.startswith("run.directory") for w in words) else [f"run.directory={tmp_path}/runs"]
        loaded = read(ROOT / "recipes" / f"{recipe}.yaml", [*SMALL, f"run.name={name}", *where, *words]).recipe
        if loaded.trainer.algorithm in ("sft", "dpo"):
            loaded = read(
                ROOT / "recipes" / f"{recipe}.yaml",
                [*(w for w in SMALL if "num_generations" not in w), f"run.name={name}", *where, *words],
            ).recipe
        run = RunDir(Path(loaded.run.directory) / loaded.run.name)
        run.root.mkdir(parents=True)
        stack = ExitStack()
        made.append(stack)
        parts = assemble.parts(loaded, run, stack)
        if change is not None:
            change(parts)
        return assemble.trainer(assemble.trainer_class(loaded), parts), parts

    yield make
    for stack in made:
        stack.close()


@pytest.fixture
def alone():
    """One process."""
    from accelerate import PartialState

    return PartialState(cpu=True)


@pytest.fixture
def look(build, alone):
    """`look(...)`, with the arguments of `build`: name of a check -> what it found."""
    from posttrain import preflight

    def make(*words, **more):
        trainer, parts = build(*words, **more)
        return {row.name: row for row in preflight.run(trainer, parts, alone, "warn")}

    return make


@pytest.fixture
def reward(tmp_path):
    """`reward("body of the function")`: `rewards=[...]` with a function of (completions, answer, **columns) in a file."""
    written = []

    def write(body, signature="completions, answer, **columns", **settings):
        file = tmp_path / f"mine{len(written)}.py"
        written.append(file)
        lines = "\n".join(f"    {line}" for line in body.splitlines())
        file.write_text(f"def judge({signature}):\n    texts = [c[0]['content'] for c in completions]\n{lines}\n")
        more = "".join(f", {k}: {v}" for k, v in settings.items())
        return f"rewards=[{{use: '{file}:judge'{more}}}]"

    return write
