"""What `posttrain plan` estimates for the memory of a run, against what a run on the miniature takes.

Measured is the growth of the process's peak resident memory from just before the model is loaded (with torch, TRL and the
data already there, and one small training step done, so that libraries have settled) to the end of a few steps.

    python scripts/bench_memory.py [recipe] [key=value ...]
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Peak:
    """Highest resident memory while the block runs, sampled every 2 ms."""

    def __enter__(self) -> Peak:
        self.start = self.value = resident()
        self._on = True
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while self._on:
            self.value = max(self.value, resident())
            time.sleep(0.002)

    def __exit__(self, *_: object) -> None:
        self._on = False
        self._thread.join()


def run(recipe: object, steps: int) -> None:
    from posttrain import assemble
    from posttrain.rundir import RunDir

    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        parts = assemble.parts(recipe, RunDir(folder), stack)
        parts.arguments["max_steps"] = steps
        assemble.trainer(assemble.trainer_class(recipe), parts).train()


def main(words: list[str]) -> None:
    os.environ.update(HF_HUB_DISABLE_TELEMETRY="1", TRL_EXPERIMENTAL_SILENCE="1", TOKENIZERS_PARALLELISM="false")
    from posttrain import models, plan
    from posttrain.recipe import load
    from posttrain.recipe.homes import trl_arguments
    from rollouts.prompts import encode

    given = words or [str(ROOT / "recipes/arithmetic_grpo.yaml")]
    recipe = load(given[0], [*given[1:], "evaluation=[]"])
    small = ["trainer.args.per_device_train_batch_size=8", "rollouts.sampling.max_tokens=8"]
    run(load(given[0], [*given[1:], "evaluation=[]", *small]), 2)
    with Peak() as peak:
        run(recipe, 3)
    tokenizer, config = models.load_tokenizer(recipe.model), models.load_config(recipe.model)
    from posttrain import assemble

    rows, _ = assemble.rows(recipe, recipe.data.train, tokenizer, "data.train")
    longest = max(len(encode(tokenizer, row["prompt"])) for row in rows)
    estimate = plan.memory_of(recipe, config, trl_arguments(recipe), 1, prompt_tokens=longest)
    measured = peak.value - peak.start
    for name, text in estimate.readable().items():
        print(f"estimated {name:12} {text:>12}")
    print(f"measured  growth       {measured / 2**20:8.1f} MiB")
    print(f"estimate / measured    {estimate.total / measured:8.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
