"""TRL's checkpoints lack what a generation batch in use needs. Ours: test_state.py, tests/end_to_end/test_resume.py."""

from __future__ import annotations

import shutil

import torch

from posttrain.trainers.grpo import GRPO


def ids(prompts):
    """What is sampled depends on the prompt alone, so that only the order of prompts and batches can differ."""
    return [[5, *prompt[0]["content"].encode(), i, 1] for i, prompt in enumerate(prompts)]


def by_place(completions, **_):
    return [float(i % 4) for i in range(len(completions))]


def adapter(trainer):
    return {k: v.detach().clone() for k, v in trainer.model.named_parameters() if v.requires_grad}


def test_a_run_cut_within_a_generation_batch_is_another_run(parts, bare):
    """TRL: what is left of the batch is thrown away and another one sampled; other weights come out."""
    args = {
        "steps_per_generation": 3, "per_device_train_batch_size": 8, "num_generations": 4, "max_steps": 6,
        "save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "constant", "learning_rate": 1e-2,
    }  # fmt: skip
    asked = []

    def noted(prompts):
        asked.append([p[0]["content"] for p in prompts])
        return ids(prompts)

    folder = str(parts.folder / "theirs")
    whole = bare(by_place, ids=noted, output_dir=folder, **args)
    whole.train()
    unbroken = asked.copy()
    assert len(unbroken) == 2
    asked.clear()
    cut = bare(by_place, ids=noted, output_dir=folder, **args)
    cut.train(resume_from_checkpoint=f"{folder}/checkpoint-1")
    assert cut.state.global_step == 6
    assert len(asked) == 2  # two steps of the first batch were left, and one more batch was due
    first, second = adapter(whole), adapter(cut)
    assert max((first[k] - second[k]).abs().max().item() for k in first) > 1e-3


def test_and_ours_is_the_same_run(parts):
    """The short form, at the same place; test_state.py has the long one."""
    args = {
        "steps_per_generation": 3, "per_device_train_batch_size": 8, "max_steps": 6, "lr_scheduler_type": "constant",
        "learning_rate": 1e-2,
    }  # fmt: skip

    def run(folder=None, **keys):
        built = parts(args=args, checkpoints={"every": 1, "keep": 6}, **keys)
        trainer = GRPO.build(built)
        if folder is not None:
            shutil.copytree(folder / "checkpoints", built.run.checkpoints, dirs_exist_ok=True)
        trainer.train(resume_from_checkpoint=folder and str(built.run.checkpoints / "checkpoint-1"))
        built.stack.close()
        return built, adapter(trainer)

    built, first = run()
    for step in range(2, 7):
        shutil.rmtree(built.run.checkpoints / f"checkpoint-{step}")
    _, second = run(built.run.root)
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert any(v.abs().max() > 0 for k, v in first.items() if "lora_B" in k)
