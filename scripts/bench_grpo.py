"""Step time and peak memory of our GRPO against TRL's own `GRPOTrainer`: same model, data, seed and settings.

Each arm is a fresh process; arms alternate (trl, ours, trl, ours, ...), so that a machine that slows down slows both.
The first steps of a process are left out. Ratios are ours / TRL's, paired by repeat, with a 95 % t interval over repeats.
A second table says what the checks that are made while a run goes on (posttrain/trainers/invariants.py) cost, as shares of a step: their
own seconds inside the runs of ours, and ours against ours without them. A last line says what the checks before the first step
(posttrain/preflight) take, once a run, the processes of graders included.

    python scripts/bench_grpo.py [--repeats 4] [--steps 12] [--only invariants]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WARM_UP = 2
RECIPE = ROOT / "recipes" / "arithmetic_grpo.yaml"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeats", type=int, default=4)
    options.add_argument("--steps", type=int, default=12)
    options.add_argument("--only", choices=["trl", "invariants", "preflight"], help="leave the other comparison out")
    options.add_argument("--arm", choices=["trl", "ours", "bare", "preflight"], help=argparse.SUPPRESS)
    options.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options.add_argument("overrides", nargs="*", metavar="key=value", help="changes to recipes/arithmetic_grpo.yaml")
    given = options.parse_args()
    if given.arm:
        print(json.dumps(ARMS[given.arm](given.steps, given.seed, given.overrides)))
        return
    arms = {"trl": ["trl", "ours"], "invariants": ["ours", "bare"], "preflight": []}.get(
        given.only, ["trl", "ours", "bare"]
    )
    results: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
    for repeat in range(given.repeats):
        for arm in arms if repeat % 2 == 0 else reversed(arms):
            results[arm].append(apart(arm, given.steps, repeat, given.overrides))
            print(f"{arm:5} repeat {repeat}: {results[arm][-1]['step']:.3f} s a step", flush=True)
    if "trl" in arms:
        table(results)
    if "bare" in arms:
        invariants(results)
    if given.only in (None, "preflight"):
        preflight([apart("preflight", given.steps, repeat, given.overrides) for repeat in range(given.repeats)])


def apart(arm: str, steps: int, repeat: int, overrides: list[str]) -> dict[str, Any]:
    """What an arm measures in a process of its own."""
    command = [sys.executable, __file__, "--arm", arm, "--steps", str(steps), "--seed", str(repeat), *overrides]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        sys.exit(f"{arm} failed:\n{ended.stderr[-3000:]}")
    return json.loads(ended.stdout.strip().splitlines()[-1])


def preflight(runs: list[dict[str, Any]]) -> None:
    """The last line."""
    wall, cpu = (interval([r[key] for r in runs]) for key in ("wall", "processor"))
    print(
        f"\npreflight, once a run   {wall[0]:.2f} ± {wall[1]:.2f} s, {cpu[0]:.2f} ± {cpu[1]:.2f} s of processor time, "
        f"{runs[0]['checks']} checks"
    )


def invariants(results: dict[str, list[dict[str, Any]]]) -> None:
    """The second table. Processor time is that of the training thread: a busy machine hardly changes it."""
    runs = results["ours"]
    print(f"\n{'invariant':24}{'ms a step':>10}{'of the step':>13}{'of its processor time':>23}")
    names = sorted(runs[0]["invariants"], key=lambda n: -runs[0]["invariants"][n][0])
    for name in [*names, "together"]:
        wall, cpu = (
            sum(sum(r["invariants"][n][i] for n in ([name] if name in names else names)) for r in runs) / len(runs)
            for i in (0, 1)
        )
        step, work = (sum(r[key] for r in runs) / len(runs) for key in ("step", "processor"))
        print(f"{name:24}{1000 * wall:10.2f}{100 * wall / step:11.2f} %{100 * cpu / work:21.2f} %")
    once = {name: sum(r["once"][name] for r in runs) / len(runs) for name in runs[0]["once"]}
    print(f"{'once a run':24}{', '.join(f'{name} {1000 * s:.1f} ms' for name, s in once.items())}")
    for key, told in (("step", "wall"), ("processor", "processor")):
        pairs = [math.log(o[key] / b[key]) for o, b in zip(runs, results["bare"], strict=True)]
        mean, half = interval(pairs)
        print(
            f"with / without, {told + ' time a step':24}{math.exp(mean):.3f} [{math.exp(mean - half):.3f}, {math.exp(mean + half):.3f}]"
        )


def table(results: dict[str, list[dict[str, Any]]]) -> None:
    print(f"\n{'':24}{'TRL':>10}{'ours':>10}{'ratio':>8}   95 % interval over {len(results['trl'])} paired repeats")
    for key in results["trl"][0]:
        if not isinstance(results["trl"][0][key], float):
            continue
        pairs = [(t[key], o[key]) for t, o in zip(results["trl"], results["ours"], strict=True)]
        trl, ours = (sum(p[i] for p in pairs) / len(pairs) for i in (0, 1))
        line = f"{key:24}{trl:10.3f}{ours:10.3f}"
        if all(t > 1e-4 and o > 1e-4 for t, o in pairs):
            mean, half = interval([math.log(o / t) for t, o in pairs])
            line += f"{math.exp(mean):8.3f}   [{math.exp(mean - half):.3f}, {math.exp(mean + half):.3f}]"
        print(line)


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half-width of its 95 % t interval."""
    from scipy import stats

    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, math.inf
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
    return mean, float(stats.t.ppf(0.975, len(values) - 1)) * deviation / math.sqrt(len(values))


def prepare(steps: int, seed: int, overrides: list[str]) -> tuple[Any, Any]:
    sys.path.insert(0, str(ROOT))
    os.environ.update(HF_HUB_DISABLE_TELEMETRY="1", TRL_EXPERIMENTAL_SILENCE="1", TOKENIZERS_PARALLELISM="false")
    from posttrain import assemble
    from posttrain.recipe import load
    from posttrain.rundir import RunDir

    folder = tempfile.mkdtemp(prefix="bench-grpo-")
    words = [f"run.directory={folder}", f"run.seed={seed}", f"trainer.args.max_steps={steps}", "evaluation=[]"]
    recipe = load(str(RECIPE), [*words, "checkpoints.every=0", *overrides])
    return recipe, assemble.parts(recipe, RunDir.claim(folder, recipe.run.name), ExitStack())


def measured(trainer: Any, timer: Any) -> dict[str, float]:
    """Train, and give mean seconds a step after the warm-up, by phase, with peak memory and tokens."""
    from transformers import TrainerCallback

    seen: list[dict[str, float]] = []

    class Steps(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            now, work = time.perf_counter(), time.thread_time()
            seen.append({"step": now - self.last, "processor": work - self.work, **costs(trainer)})
            self.last, self.work = now, work

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.last, self.work = time.perf_counter(), time.thread_time()

    trainer.add_callback(Steps())
    logged: list[dict[str, float]] = []
    trainer.add_callback(
        type("Logs", (TrainerCallback,), {"on_log": lambda s, a, b, c, logs=None, **k: logged.append(logs)})()
    )
    trainer.train()
    kept = seen[WARM_UP:]
    rows = [x for x in logged if "time/generation" in x][WARM_UP:]
    out: dict[str, Any] = {key: sum(s[key] for s in kept) / len(kept) for key in ("step", "processor")}
    for phase in ("generation", "rewards", "logprobs", "training", "sync", "other"):
        out[phase] = sum(r[f"time/{phase}"] for r in rows) / len(rows)
    out["completion tokens"] = sum(r["completions/mean_length"] for r in rows) / len(rows)
    import torch

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() / 2**20
    out["peak memory MiB"] = peak
    if getattr(trainer, "invariants", None) is not None:
        first, last = seen[WARM_UP - 1], costs(trainer)
        whole = {k: ((v - first["wall"].get(k, 0.0)) / len(kept), (last["cpu"][k] - first["cpu"].get(k, 0.0)) / len(kept))
                 for k, v in last["wall"].items()}  # fmt: skip
        out["once"] = {k: last["wall"][k] for k in ("seeds", "frozen")}
        out["invariants"] = {k: v for k, v in whole.items() if k != "seeds"}
    return out


def costs(trainer: Any) -> dict[str, dict[str, float]]:
    """Seconds that each invariant has cost so far."""
    found = getattr(trainer, "invariants", None)
    return {} if found is None else {"wall": dict(found.seconds.wall), "cpu": dict(found.seconds.processor)}


def bare(steps: int, seed: int, overrides: list[str]) -> dict[str, Any]:
    """Ours without its invariants."""
    return ours(steps, seed, overrides, invariants=False)


def ours(steps: int, seed: int, overrides: list[str], invariants: bool = True) -> dict[str, Any]:
    with redirect_stdout(sys.stderr):
        _, parts = prepare(steps, seed, overrides)
        parts.invariants = invariants
        from posttrain.trainers.grpo import GRPO

        trainer = GRPO.build(parts)
        result = measured(trainer, parts.timer)
        parts.stack.close()
    return result


def checked(steps: int, seed: int, overrides: list[str]) -> dict[str, Any]:
    """The checks before the first step, and nothing else."""
    with redirect_stdout(sys.stderr):
        _, parts = prepare(steps, seed, overrides)
        from accelerate import PartialState

        from posttrain import preflight
        from posttrain.machine import processor_seconds
        from posttrain.trainers.grpo import GRPO

        trainer = GRPO.build(parts)
        wall, work = time.perf_counter(), processor_seconds()
        rows = preflight.run(trainer, parts, PartialState(), "stop")
        out = {"wall": time.perf_counter() - wall, "processor": processor_seconds() - work, "checks": len(rows)}
        parts.stack.close()
    return out


def trl(steps: int, seed: int, overrides: list[str]) -> dict[str, float]:
    """TRL's trainer with TRL's generation and the bare reward function; only timed, nothing replaced."""
    with redirect_stdout(sys.stderr):
        recipe, parts = prepare(steps, seed, overrides)
        from trl import GRPOConfig, GRPOTrainer

        from posttrain.imports import Use
        from posttrain.trainers.log import PhaseTimes
        from posttrain.trainers.timing import Timer

        timer = Timer()

        def timed(method: Any, phase: str) -> Any:
            def inner(*args: Any, **kwargs: Any) -> Any:
                import torch

                if phase == "logprobs" and torch.is_grad_enabled():
                    return method(*args, **kwargs)
                with timer(phase):
                    return method(*args, **kwargs)

            return inner

        trainer = GRPOTrainer(
            model=parts.model,
            reward_funcs=[Use(r.use, dict(r.with_)).build() for r in recipe.rewards],
            args=GRPOConfig(**parts.arguments),
            train_dataset=parts.train,
            processing_class=parts.tokenizer,
            peft_config=parts.peft_config,
        )
        trainer._generate_single_turn = timed(trainer._generate_single_turn, "generation")
        trainer._calculate_rewards = timed(trainer._calculate_rewards, "rewards")
        trainer._get_per_token_logps_and_entropies = timed(trainer._get_per_token_logps_and_entropies, "logprobs")
        trainer._prepare_inputs = timed(trainer._prepare_inputs, "other")
        trainer.training_step = timed(trainer.training_step, "training")
        parts.timer = timer
        trainer.add_callback(PhaseTimes(trainer, parts))
        parts.stack.close()
        return measured(trainer, timer)


ARMS = {"trl": trl, "ours": ours, "bare": bare, "preflight": checked}

if __name__ == "__main__":
    main()
