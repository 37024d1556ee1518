"""The same run as recipes/arithmetic_grpo.yaml without a recipe: parts, wired by hand, in bare TRL.

    python scripts/by_hand.py [steps]

What a recipe adds to this: checks before the start, seeds, records, evaluation with intervals, the page.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from posttrain.miniature import arithmetic
from rewards.math import correct
from rewards.runtime import Guard
from rollouts.engines.transformers import TransformersEngine
from rollouts.records import Ask, EngineSpec, Policy, Row, Sampling, Session
from rollouts.strategies.single import SingleTurn


def main(steps: int) -> None:
    base = arithmetic.base()
    tokenizer = AutoTokenizer.from_pretrained(base, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    eos = tuple(model.generation_config.eos_token_id)
    engine = TransformersEngine(EngineSpec(base, eos_ids=eos, pad_id=tokenizer.pad_token_id, max_model_len=256))
    sampling, strategy = Sampling(max_tokens=96), SingleTurn()

    def rollouts(prompts, trainer):
        version = trainer.state.global_step
        engine.sync(Policy(version, borrow=lambda: nullcontext(trainer.model)))
        asks = [Ask(Row(str(p), p), i % trainer.num_generations) for i, p in enumerate(prompts)]
        made = strategy.run(asks, Session(engine, tokenizer, sampling, run_seed=0))
        return {
            "prompt_ids": [r.prompt_ids for r in made],
            "completion_ids": [r.completion_ids for r in made],
            "logprobs": [r.logprobs for r in made],
        }

    args = GRPOConfig(
        output_dir=tempfile.mkdtemp(), use_cpu=True, bf16=False, report_to=[], save_strategy="no", logging_steps=1,
        per_device_train_batch_size=64, num_generations=8, max_completion_length=96, gradient_checkpointing=False,
        learning_rate=1e-3, lr_scheduler_type="constant", max_steps=steps,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=Guard(correct),
        args=args,
        train_dataset=arithmetic.train(),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        rollout_func=rollouts,
    )
    trainer.train()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
