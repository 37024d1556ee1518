"""A fresh trainer that goes back to a checkpoint of an unbroken run does what that run did: same weights, same log.

The oracle is the unbroken run itself. Real processes that are killed: tests/end_to_end/test_resume.py.
"""

from __future__ import annotations

import json
import shutil
import threading

import pytest
import torch
from datasets import Dataset

from posttrain import adapters, checkpoints, resume
from posttrain.recipe.schema import Adapter
from posttrain.trainers.dpo import DPO
from posttrain.trainers.grpo import GRPO
from posttrain.trainers.rloo import RLOO
from posttrain.trainers.sft import SFT

KINDS = {"grpo": GRPO, "rloo": RLOO, "sft": SFT, "dpo": DPO}
CONSTANT = {"lr_scheduler_type": "constant"}
WITH_ROWS = {"train": {"path": "unused.jsonl"}, "eval": {"path": "unused.jsonl"}}


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def offline_rows(algorithm: str, count: int = 24) -> Dataset:
    rows = []
    for i in range(count):
        answer = (
            {"completion": said("x" * (1 + i * 7 % 11))}
            if algorithm == "sft"
            else {"chosen": said("yes" * (1 + i % 3)), "rejected": said("no" * (1 + i % 4))}
        )
        rows.append({"row_id": f"r{i}", "prompt": [{"role": "user", "content": f"say {i}"}], **answer})
    return Dataset.from_list(rows)


def build(parts, algorithm, args, change=None, **keys):
    built = parts(algorithm=algorithm, args={**CONSTANT, **args}, checkpoints={"every": 1, "keep": 100}, **keys)
    if algorithm in ("sft", "dpo"):
        built.train = offline_rows(algorithm)
    if change is not None:
        change(built)
    return built, KINDS[algorithm].build(built)


def trained(trainer) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad}


def logged(run) -> list[dict]:
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    timed = ("time", "runtime", "per_second")
    return [{k: v for k, v in line.items() if not any(t in k for t in timed)} for line in lines]


def rolled(run) -> dict[str, str]:
    return {path.name: path.read_text() for path in run.rollouts.glob("*.jsonl")}


def goes_back(built, step, to):
    """The folder of `built` as it was after the checkpoint of `step`, for the run of `to`."""
    shutil.copytree(built.run.root, to.run.root, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".lock"))
    resume.cut_back(to.run, step)
    for made, folder in checkpoints.all_of(to.run):
        if made > step:
            checkpoints.discard(folder)
    return str(checkpoints.folder_of(to.run, step))


def unlike(parts, algorithm, args, at, **keys) -> list[str]:
    """What differs from an unbroken run in runs that went on from its checkpoints of the steps `at`."""
    whole, trainer = build(parts, algorithm, args, **keys)
    trainer.train()
    whole.stack.close()
    wanted, lines, rollouts = trained(trainer), logged(whole.run), rolled(whole.run)
    assert lines
    found = []
    for step in at:
        again, other = build(parts, algorithm, args, **keys)
        other.train(resume_from_checkpoint=goes_back(whole, step, again))
        again.stack.close()
        assert other.state.global_step == trainer.state.global_step, step
        mine = trained(other)
        assert mine.keys() == wanted.keys()
        found += [f"{step}: {name}" for name in wanted if not torch.equal(wanted[name], mine[name])]
        found += [f"{step}: {a} / {b}" for a, b in zip(lines, logged(again.run), strict=True) if a != b]
        found += [f"{step}: rollouts"] if rolled(again.run) != rollouts else []
    return found


CASES = {
    # Generation batches of four micro-batches, used twice: 3, 5 and 13 lie within one; 16 is an epoch's end, 17 the last step.
    "grpo": ("grpo", {"max_steps": 17, "num_iterations": 2, "steps_per_generation": 4, "gradient_accumulation_steps": 2,
                      "logging_steps": 3}, (3, 5, 13, 16, 17), {}),
    "grpo, epochs": ("grpo", {"num_train_epochs": 3, "max_steps": -1, "logging_steps": 3}, (8, 11, 24), {}),
    "grpo, entropy": ("grpo", {"max_steps": 4, "use_adaptive_entropy": True, "entropy_target": 1.0,
                               "entropy_coef": 0.01, "log_completions": True}, (2,), {}),
    "grpo, the last step": ("grpo", {"max_steps": 3}, (3,), {}),
    "grpo, all weights, a reference that follows": ("grpo", {"max_steps": 5, "beta": 0.1, "sync_ref_model": True,
                                                             "ref_model_sync_steps": 2}, (3,), {"adapter": None}),
    "rloo": ("rloo", {"max_steps": 11, "num_iterations": 2, "logging_steps": 2}, (1, 5), {}),
    "sft": ("sft", {"max_steps": 8, "logging_steps": 3}, (1, 3, 4, 8), {}),
    "sft, dropout": ("sft", {"max_steps": 5}, (2, 4), {"adapter": {"r": 4, "lora_alpha": 8, "lora_dropout": 0.3}}),
    "sft, by length": ("sft", {"max_steps": 5, "train_sampling_strategy": "group_by_length"}, (1, 4), {}),
    "sft, order from the global stream": ("sft", {"max_steps": 5, "accelerator_config": {"use_seedable_sampler": False}},
                                          (1, 4), {}),
    "sft, logged by epoch": ("sft", {"num_train_epochs": 2, "max_steps": -1, "logging_strategy": "epoch"}, (2, 3, 4), {}),
    "dpo": ("dpo", {"max_steps": 6}, (1, 3, 5), {}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_what_follows_a_checkpoint_is_what_would_have_been(parts, case):
    algorithm, args, at, keys = CASES[case]
    assert unlike(parts, algorithm, args, at, **keys) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "args"),
    [
        ("grpo", {"max_steps": 4, "eval_strategy": "steps", "eval_steps": 2, "eval_on_start": True}),
        ("sft", {"max_steps": 5, "eval_strategy": "epoch"}),
    ],
)
def test_held_out_rows_are_asked_as_often(parts, algorithm, args):
    def change(built):
        built.eval = built.train.select(range(4))

    args = {**args, "per_device_eval_batch_size": 8}
    assert unlike(parts, algorithm, args, (2, 3), change=change, data=WITH_ROWS) == []


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["grpo", "dpo"])
def test_the_trained_adapter_beside_its_frozen_copy(parts, algorithm):
    """TRL keeps a copy of `adapter.start_from` as the reference; transformers loads that one alone from a checkpoint."""
    _, first = build(parts, "grpo", {"max_steps": 1})
    first.train()
    first.model.save_pretrained(parts.folder / "first")

    def change(built):
        built.peft_config = None
        wanted = Adapter(r=4, lora_alpha=8, start_from=str(parts.folder / "first"))
        built.model = adapters.attach_existing(built.model, wanted)

    assert unlike(parts, algorithm, {"max_steps": 4, "beta": 0.1}, (2,), change=change) == []


@pytest.mark.slow
def test_a_run_that_ends_in_an_evaluation_keeps_its_step(parts):
    """From another thread, while the main one evaluates; what follows makes up for the evaluation that was cut off."""

    def change(built):
        built.eval = built.train.select(range(4))

    args = {"max_steps": 4, "eval_strategy": "steps", "eval_steps": 2, "per_device_eval_batch_size": 8}
    whole, trainer = build(parts, "grpo", args, change=change, data=WITH_ROWS)
    trainer.train()
    whole.stack.close()
    cut, other = build(parts, "grpo", args, change=change, data=WITH_ROWS)
    answers = []

    def evaluate(*_, **__):
        thread = threading.Thread(target=lambda: answers.append(other.emergency("told to end")))
        thread.start()
        thread.join()
        raise KeyboardInterrupt

    other.evaluate = evaluate
    with pytest.raises(KeyboardInterrupt):
        other.train()
    cut.stack.close()
    [(folder, clause)] = answers
    assert folder is not None, clause
    assert checkpoints.whole(folder).step == 2
    again, third = build(parts, "grpo", args, change=change, data=WITH_ROWS)
    third.train(resume_from_checkpoint=goes_back(cut, 2, again))
    again.stack.close()
    mine, wanted = trained(third), trained(trainer)
    assert [name for name in wanted if not torch.equal(wanted[name], mine[name])] == []
    assert logged(again.run) == logged(whole.run)
    assert rolled(again.run) == rolled(whole.run)


@pytest.mark.parametrize(
    ("options", "args"),
    [
        ({"inter": "linear"}, {"steps_per_generation": 2, "per_device_train_batch_size": 4, "max_steps": 7}),
        ({"inter": "adaptive", "passes": 0.4, "scaffold_negative": "drop"}, {"max_steps": 5}),
    ],
)
def test_scaffolds_go_on_as_they_would_have(parts, options, args):
    """The schedule, the draws and what the strategy has learned of each row; 3 lies within a generation batch of the first."""
    from rollouts.strategies.scaffold import Scaffold

    class Terse(Scaffold):
        def text(self, row, shown):
            return "hint " + " ".join(row.columns["rubric"][i]["criterion"] for i in shown)

    def scaffolded(built):
        built.strategy = Terse(place="user", **options)
        rubric = [{"criterion": c * 2, "points": 1} for c in "abcdefg"]
        built.train = built.train.add_column("rubric", [rubric] * len(built.train))

    assert not unlike(parts, "grpo", args, (3,), change=scaffolded)
