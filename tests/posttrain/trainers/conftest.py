"""Parts of a run on the tiny model: everything real, nothing trained beforehand."""

from __future__ import annotations

from typing import Any

import pytest


def letters(completions, **_):
    """Share of lower-case letters: a random model's answers differ in it."""
    texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
    return [sum("a" <= x <= "z" for x in t) / max(len(t), 1) for t in texts]


@pytest.fixture
def parts(tiny, tmp_path):
    """`parts(rewards=[...functions], trainer={...args}, **top-level keys of the recipe)`."""
    made = []

    def make(rewards=(letters,), algorithm="grpo", args: dict[str, Any] | None = None, settings=None, **keys):
        import torch
        from datasets import Dataset
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from posttrain import adapters
        from posttrain.recipe import load
        from posttrain.recipe.homes import trl_arguments
        from posttrain.recipe.schema import Reward
        from posttrain.rundir import RunDir
        from posttrain.trainers.parts import Parts
        from posttrain.trainers.scorer import Judged
        from rewards.runtime import Guard
        from rollouts.engines.transformers import TransformersEngine
        from rollouts.records import EngineSpec, Sampling
        from rollouts.strategies.single import SingleTurn

        online = algorithm in ("grpo", "rloo")
        recipe = load(
            {
                "model": {"name": tiny},
                "adapter": {"r": 4, "lora_alpha": 8},
                "data": {"train": {"path": "unused.jsonl"}},
                "rewards": [{"use": "rewards.math:correct"} for _ in rewards] if online else [],
                "rollouts": {"sampling": {"max_tokens": 12}},
                "trainer": {
                    "algorithm": algorithm,
                    "args": {
                        "per_device_train_batch_size": 8,
                        "max_steps": 2,
                        "learning_rate": 1e-3,
                        **({"num_generations": 4} if online else {}),
                        **(args or {}),
                    },
                },
                "checkpoints": {"every": 0},
                "run": {"name": f"t{len(made)}", "directory": str(tmp_path)},
                **keys,
            }
        )
        run = RunDir.claim(str(tmp_path), recipe.run.name)
        tokenizer = AutoTokenizer.from_pretrained(tiny)
        model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
        spec = EngineSpec(
            model=tiny, eos_ids=tuple(model.generation_config.eos_token_id), pad_id=tokenizer.pad_token_id,
            max_model_len=256, lora_rank=4, run_id=recipe.run.name,
        )  # fmt: skip
        rows = [
            {"row_id": f"row-{i}", "prompt": [{"role": "user", "content": f"say {i}"}], "answer": str(i)}
            for i in range(16)
        ]
        judged = [
            Judged(
                name=f.__name__,
                where=f"rewards.{i}",
                setting=Reward.model_validate(
                    {"use": f"my.py:{f.__name__}", **((settings or {}).get(f.__name__, {}))}
                ),
                guard=Guard(f, name=f.__name__, where=f"rewards.{i}"),
            )
            for i, f in enumerate(rewards)
        ]
        built = Parts(
            recipe=recipe,
            run=run,
            model=model,
            tokenizer=tokenizer,
            arguments=trl_arguments(recipe, run),
            train=Dataset.from_list(rows),
            peft_config=adapters.config(recipe.adapter) if recipe.adapter else None,
            engine=TransformersEngine(spec),
            strategy=SingleTurn(),
            sampling=Sampling(max_tokens=12),
            judged=judged,
        )
        made.append(built)
        return built

    make.letters = letters
    make.folder = tmp_path
    yield make
    for built in made:
        built.stack.close()


@pytest.fixture
def bare(parts):
    """TRL's own trainer on the same tiny model: `bare(*rewards, ids=f, algorithm="grpo", model=..., rows=..., **args)`.

    `ids(prompts)` says what was sampled (TRL's `rollout_func`); without it TRL generates. `args` go to TRL's configuration
    class as they are, past our recipes.
    """

    def make(*rewards, ids=None, logprobs=None, algorithm="grpo", model=None, rows=None, adapter=True, **args):
        import trl

        from rollouts.prompts import encode

        kind, config = {
            "grpo": (trl.GRPOTrainer, trl.GRPOConfig),
            "rloo": (trl.RLOOTrainer, trl.RLOOConfig),
        }[algorithm]
        built = parts(algorithm=algorithm)
        tokenizer = built.tokenizer

        def answer(prompts, trainer):
            made = ids(prompts)
            return {
                "prompt_ids": [encode(tokenizer, prompt) for prompt in prompts],
                "completion_ids": made,
                "logprobs": logprobs(made) if logprobs else [[0.0] * len(one) for one in made],
            }

        return kind(
            model=model if model is not None else built.model,
            reward_funcs=list(rewards) or [letters],
            args=config(**{**built.arguments, "reward_weights": None, **args}),
            train_dataset=rows if rows is not None else built.train,
            eval_dataset=args.get("eval_strategy") and built.train.select(range(8)),
            processing_class=tokenizer,
            peft_config=built.peft_config if adapter else None,
            **({"rollout_func": answer} if ids else {}),
        )

    return make
