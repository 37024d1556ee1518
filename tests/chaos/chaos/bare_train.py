"""The miniature's task in bare TRL, with a reward of ours that misbehaves. One argument: JSON options.

`reward`: name in misrewards.py; `steps`, `save_steps`, `output`, `resume`. Prints `done N` after each step, at last `peak` and the
most memory that it held, in MiB.
"""

from __future__ import annotations

import json
import resource
import sys

import misrewards
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from posttrain.miniature import arithmetic


class Told(TrainerCallback):
    def on_log(self, args, state, control, logs=None, **_):
        if state.is_world_process_zero and logs and "reward" in logs:
            print(f"done {state.global_step}", flush=True)
            print(json.dumps({k: v for k, v in logs.items() if k in ("reward", "loss", "grad_norm")}), flush=True)


def main(options: dict) -> None:
    base = arithmetic.base()
    tokenizer = AutoTokenizer.from_pretrained(base, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    save = options.get("save_steps", 0)
    args = GRPOConfig(
        output_dir=options.get("output", "out"), use_cpu=True, bf16=False, report_to=[], logging_steps=1,
        save_strategy="steps" if save else "no", save_steps=save or 500, gradient_checkpointing=False,
        per_device_train_batch_size=options.get("batch", 16), num_generations=8, max_completion_length=12,
        learning_rate=5e-4, lr_scheduler_type="constant", max_steps=options["steps"], disable_tqdm=True, temperature=3.0,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=getattr(misrewards, options.get("reward", "fine")),
        args=args,
        train_dataset=arithmetic.train(n=256),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[Told()],
    )
    print("ready", flush=True)
    trainer.train(resume_from_checkpoint=options.get("resume", False) or None)
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10}", flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
