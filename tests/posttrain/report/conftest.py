"""A run directory as a real run leaves it, with model text that attacks the page."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from posttrain.rundir import RunDir, append_line, write_atomic, write_json

ATTACKS = [
    "<script>window.pwned = 1</script>",
    "</script><script>window.pwned = 2; alert(2)</script>",
    '"><img src=x onerror="window.pwned = 3">',
    "<svg onload='window.pwned = 4'></svg><iframe srcdoc='<script>parent.pwned = 5</script>'></iframe>",
    "<!-- <script> --> </title></style></textarea><script>window.pwned=6</script>",
    "{{ 7 * 7 }} {% raw %} ${window.pwned = 7} javascript:window.pwned=8",
    "&lt;b&gt; &amp;amp; \u2028line\u2029paragraph ]]> <![CDATA[",
    "nul \x00 bell \x07 escape \x1b[31mred\x1b[0m backspace \x08 delete \x7f c1 \x9b return \r end",
    "מתמטיקה 3 + 4 = 7 العربية \u202eright to left override\u202c \u2067isolate\u2069",
    "𝟛 + 𝟜 = 𝟟 👩‍👩‍👧‍👦 ѝ e\u0301 \ufeff 日本語の答え \\boxed{七}",
    "half a pair \ud83d and the other \ude00",
    "x" * 30_000 + " the end",
    "",
    "a line\n" * 400,
]
"""Texts that must reach the reader as they are, and do nothing."""

REWARDS = {"correct": 1.0, "brevity": 0.2, "<img src=x onerror=window.pwned=9>": 0.0}


def estimate_of(value: float, half: float) -> dict[str, Any]:
    low, high = max(0.0, value - half), min(1.0, value + half)
    return {"value": value, "low": low, "high": high, "se": half / 1.96, "method": "t over 512 problems"}


def result_of(when: str, value: float, half: float, benchmark: str = "arithmetic", **other: Any) -> dict[str, Any]:
    """A `result.json` with all of its parts."""
    estimate = estimate_of(value, half)
    metrics = {
        "accuracy": estimate,
        "avg@4": estimate,
        "pass@1": estimate,
        "pass@2": estimate_of(min(1.0, value + 0.06), half),
        "pass@4": estimate_of(min(1.0, value + 0.1), half),
        "maj@4": estimate_of(min(1.0, value + 0.02), half),
    }
    curves = {
        name: [
            {"n": n, "tokens": 12.0 * n, **estimate_of(min(1.0, value + gain * math.log2(n)), half)} for n in (1, 2, 4)
        ]
        for name, gain in (("maj", 0.01), ("pass", 0.05), ("best_of", 0.03))
    }
    return {
        "benchmark": benchmark, "when": when, "n": 512, "k": 4, "model": "miniature/arithmetic", "adapter": None,
        "engine": "transformers", "sampling": {"temperature": 1.0, "max_tokens": 96}, "seed": 0, "prompt_style": "own", "prompt_hash": "a1b2",
        "grader": {"name": "rewards.grading", "version": "2"}, "metrics": metrics, "truncated": 0.01,
        "no_answer": 0.02, "timeouts": 0.0, "aborted": 0.0, "tokens": 24_576, "prompt_tokens": 18_432, "seconds": 4.2,
        "created": "2026-01-01T00:00:00+00:00", "versions": {"trl": "1.16.0"}, "settings": "d1", "notes": [],
        "strict": estimate_of(max(0.0, value - 0.05), half), "curves": curves,
        "budgets": [{"tokens": t, "used": min(t, 12.0), "accuracy": estimate_of(value * min(1.0, t / 16), half)} for t in (4, 8, 16, 32, 64)],
        "lengths": {"mean": 12.0, "median": 11.0, "p95": 31.0, "max": 96},
        "cost": {
            "tokens": {"prompt": 18_432, "cached": None, "output": 24_576}, "output": {"mean": 12.0, "median": 11.0, "p95": 31.0, "max": 96},
            "seconds": {"generating": 3.9, "grading": 0.3, "total": 4.2}, "device": "1 x H100", "gpu_seconds": 4.2, "parameters": 921_728,
            "per_correct": {"tokens": 30.1, "seconds": 0.01}, "eflops": {"total": 3.2e15, "attention_share": 0.95, "intensity": 562.5},
        }, **other,
    }  # fmt: skip


def sample_of(item: str, sample: int, verdict: str, text: str, **other: Any) -> dict[str, Any]:
    """A line of `samples.jsonl`."""
    return {
        "benchmark": "arithmetic", "item_id": item, "sample": sample, "seed": 1, "prompt": [{"role": "user", "content": f"What is {item} + 5?"}],
        "completion": text, "finish": "stop", "prompt_tokens": 9, "completion_tokens": 12, "gold": "7",
        "extracted": None if verdict == "NONE" else "7" if verdict == "RIGHT" else "8", "verdict": verdict, "strict": verdict,
        "score": float(verdict == "RIGHT"), "rule": "exact", "version": 0, "cluster": item, "settings": "d1", **other,
    }  # fmt: skip


def _evaluation(run: RunDir, when: str, value: float, half: float, rng: random.Random, n: int = 40) -> None:
    folder = run.evaluation(when, "arithmetic")
    write_json(folder / "result.json", result_of(when, value, half))
    for i in range(n):
        right = rng.random() < value
        verdict = "RIGHT" if right else "WRONG" if i % 3 else "NONE"
        cut = not right and i % 5 == 0
        text = f"{ATTACKS[i % len(ATTACKS)]} The sum is \\boxed{{{i + 5 + (not right)}}}"
        line = sample_of(f"arithmetic/{i // 4}", i % 4, verdict, text, finish="length" if cut else "stop")
        line["prompt"] = [
            {"role": "system", "content": ATTACKS[0]},
            {"role": "user", "content": f"{ATTACKS[2]} What is {i} + 5?"},
        ]
        append_line(folder / "samples.jsonl", {**line, "completion_tokens": 96 if cut else 8 + i % 20})


def metrics_line(step: int, last: int, rng: random.Random, started: float) -> dict[str, Any]:
    done = step / max(last, 1)
    right = 0.45 + 0.5 * (1 - math.exp(-4 * done)) + rng.gauss(0, 0.03)
    line = {
        "step": step, "phase": "train", "time": started + step * 0.5, "loss": rng.gauss(0, 0.01), "grad_norm": abs(rng.gauss(0.4, 0.15)),
        "learning_rate": 1e-3 * (1 - done), "epoch": done, "num_tokens": step * 4096.0, "reward": right + 0.15, "reward_std": 0.5 * (1 - 0.6 * done),
        "frac_reward_zero_std": min(1.0, 0.1 + 0.6 * done + rng.uniform(0, 0.05)), "entropy": 0.6 * (1 - 0.7 * done) + rng.uniform(0, 0.03),
        "kl": 0.05 * done + rng.uniform(0, 0.005), "clip_ratio/region_mean": rng.uniform(0, 0.02), "clip_ratio/low_mean": rng.uniform(0, 0.01),
        "clip_ratio/high_mean": rng.uniform(0, 0.012), "clip_ratio/low_min": 0.0, "clip_ratio/high_max": rng.uniform(0, 0.2),
        "completions/mean_length": 48 - 10 * done + rng.gauss(0, 1), "completions/min_length": 20.0, "completions/max_length": 96.0,
        "completions/clipped_ratio": 0.02, "completions/truncated": max(0.0, 0.05 * (1 - done)), "policy_version": float(step - 1),
        "sampling/sampling_logp_difference/mean": 2e-6 + rng.uniform(0, 1e-6), "sampling/sampling_logp_difference/max": 4e-5,
        "sampling/importance_sampling_ratio/mean": 1.0001, "sampling/ess": 0.998, "sampling/dropped": 0.0, "step_time": 0.2,
        "time/generation": 0.21 + rng.uniform(0, 0.05), "time/rewards": 0.03, "time/logprobs": 0.04, "time/training": 0.18 + rng.uniform(0, 0.02),
        "time/sync": 0.01, "time/other": 0.005, "my/own number": 3.0 + done,
    }  # fmt: skip
    for i, name in enumerate(REWARDS):
        line[f"rewards/{name}/mean"] = right if i == 0 else 0.7 + 0.1 * done if i == 1 else 0.5
        line[f"rewards/{name}/std"] = 0.4
        line[f"rewards/{name}/faults"] = 0.0
    return line


def rollout(step: int, group: int, sample: int, text: str, rng: random.Random) -> dict[str, Any]:
    right = rng.random() < 0.5 + step / 700
    rewards: dict[str, float | None] = {
        "correct": float(right),
        "brevity": round(rng.random(), 3),
        list(REWARDS)[2]: 0.5,
    }
    return {
        "step": step, "phase": "train", "row_id": f"row-{step}-{group}", "sample": sample, "version": step,
        "prompt": [{"role": "system", "content": "You add numbers."}, {"role": "user", "content": f"What is {step} + {group}?"}],
        "completion": text, "rewards": rewards, "reward": float(right) + 0.2 * (rewards["brevity"] or 0), "advantage": rng.gauss(0, 1),
        "finish": "stop" if rng.random() < 0.95 else "length", "prompt_tokens": 21, "completion_tokens": len(text) % 97, "faults": [],
    }  # fmt: skip


CRITERIA = (("The sum is right.", 8, ["axis:accuracy"], "code"), ("Says how it carried.", 2, [], "judge"), ("Adds what was not asked for.", -5, [], "judge"),
            (ATTACKS[1], 1, [ATTACKS[2]], "judge"))  # fmt: skip


def rubric_of(step: int, sample: int) -> dict[str, Any]:
    """What `log_extra` tells of a rollout: of sample 3 the judge has failed on the last criterion."""
    verdicts = (
        "met" if sample % 2 else "unmet",
        "met",
        "met" if sample == 0 else "unmet",
        "failed" if sample == 3 else "met",
    )
    why = (
        "equal",
        ATTACKS[(step + sample) % 10],
        "nothing of it is there",
        "HTTP 503 </td><script>window.pwned = 13</script>",
    )
    criteria = [
        {"text": text, "points": points, "tags": tags, "by": by, "verdict": verdict, "why": w, "agreement": 1.0 if by == "judge" else None}
        for (text, points, tags, by), verdict, w in zip(CRITERIA, verdicts, why, strict=True)
    ]  # fmt: skip
    earned = sum(c[1] for c, v in zip(CRITERIA, verdicts, strict=True) if v == "met")
    return {"criteria": criteria, "score": None if sample == 3 else earned / 11}


def told_of(step: int, sample: int) -> dict[str, Any]:
    """`info` and `extras` of a rollout's record: the first six samples of a group are shown fewer and fewer criteria."""
    shown = list(range(max(0, 4 - sample)))
    return {
        "info": {"scaffold_ratio": max(0.0, 1 - sample / 4), "scaffold_shown": shown, "scaffold_tokens": 12 * len(shown), "turns": 2},
        "extras": {"rubric": rubric_of(step, sample), "own": {"characters": 7, "note": ATTACKS[2]}},
    }  # fmt: skip


def make(
    root: Path,
    *,
    steps: int = 300,
    evaluations: bool = True,
    rollouts: bool = True,
    state: str = "done",
    after: float = 0.957,
    rubrics: bool = False,
) -> Path:
    """Files of a run under `root`, by `steps` logged steps."""
    rng = random.Random(0)
    run = RunDir(root)
    started = 1_767_225_600.0
    write_atomic(run.recipe, (
        "# addition, learned from rewards alone </pre><script>window.pwned = 10</script>\nmodel:\n  name: miniature/arithmetic\nadapter: {r: 16}\n"
        "rewards:\n  - {use: rewards.math:correct}\n  - {use: my_rewards.py:brevity, weight: 0.2}\n  - {use: my_rewards.py:attack, weight: 0}\n"
        "rollouts:\n  engine: {use: vllm-server, with: {api_key: sk-very-secret}}\ntrainer: {algorithm: grpo}\n"
    ))  # fmt: skip
    write_json(run.resolved, {
        "model": {"name": "miniature/arithmetic", "dtype": "float32"}, "adapter": {"r": 16, "lora_alpha": 32},
        "rewards": [{"use": "x", "weight": weight} for weight in REWARDS.values()], "trainer": {"algorithm": "grpo" if rollouts else "sft"},
        "rollouts": {"engine": {"use": "vllm-server", "with": {"api_key": "sk-very-secret"}}, "sampling": {"max_tokens": 96}},
    })  # fmt: skip
    if rubrics:
        resolved = json.loads(run.resolved.read_text())
        resolved["rewards"][0] = {"use": "rewards.rubric:Rubric", "with": {"at_most": 0.1}, "weight": 1.0}
        resolved["rollouts"]["strategy"] = {"use": "scaffold", "with": {"alpha": 125}}
        write_json(run.resolved, resolved)
    write_json(run.environment, {
        "versions": {"posttrain": "0.1.0", "torch": "2.13.0", "trl": "1.16.0"}, "python": "3.11.9", "platform": "Linux", "device": "cpu",
        "threads": 2, "processes": 1, "command": ["train.py", "recipes/x.yaml", "rollouts.engine.with.api_key=sk-very-secret"],
    })  # fmt: skip
    write_json(run.plan, {"steps": steps, "prompts_per_step": 8, "completions_per_prompt": 8, "rollouts": steps * 64})
    ended = None if state == "running" else started + steps * 0.5
    error = "Alarm: rewards.0 hung on row 3 <script>window.pwned = 11</script>" if state == "failed" else None
    write_json(run.status, {
        "state": state, "started": started, "ended": ended, "seconds": steps * 0.5 if ended else None, "error": error,
        "rollouts": steps * 64 if rollouts else 0, "steps": steps if ended else 0,
    })  # fmt: skip
    keep = None if rollouts else ("step", "phase", "time", "loss", "grad_norm", "learning_rate", "epoch", "num_tokens", "entropy", "time/training", "time/other")  # fmt: skip
    for step in range(1, steps + 1):
        line = metrics_line(step, steps, rng, started)
        if keep:
            line = {k: line[k] for k in keep} | {
                "mean_token_accuracy": 0.6 + 0.3 * step / steps,
                "loss": 2.0 * math.exp(-3 * step / steps),
            }
        if rubrics:
            line |= {"rubric/failed": 0.03, "rubric/mean": -0.1, "rubric/clipped_mean": 0.0, "judge/failed": 0.06, "judge/questions": 32.0, "judge/cached": 8.0, "judge/calls": 25.0,
                     "judge/tokens": 9_000.0, "judge/seconds": 1.5, "judge/agreement": 0.9, "scaffold/shown": 1 - step / steps,
                     "scaffold/ratio": 0.5, "scaffold/tokens": 20.0, "scaffold/advantage/1": 0.3, "scaffold/advantage/2": -0.1}  # fmt: skip
        append_line(run.metrics, line)
    append_line(
        run.metrics,
        {
            "step": steps,
            "phase": "summary",
            "time": started + steps * 0.5,
            "train_runtime": steps * 0.45,
            "train_loss": 0.01,
        },
    )
    if rollouts:
        texts = ATTACKS + [f"Let me add {i} and 5.\nThe carry is {i % 2}. So \\boxed{{{i}}}" for i in range(200)]
        for step in range(steps):
            path = run.rollout_file(step, 0)
            path.parent.mkdir(parents=True, exist_ok=True)
            records = [
                rollout(
                    step,
                    i // 8,
                    i % 8,
                    texts[(i + (0 if step in (0, steps - 1) else 3 * step + 14)) % len(texts)],
                    rng,
                )
                for i in range(16)
            ]
            if rubrics:
                records = [record | told_of(step, i % 8) for i, record in enumerate(records)]
            if step == 0:
                records[3].update(
                    reward=None, advantage=0.0, faults=["brevity: timeout: <b>no answer</b> within 60 s"]
                )
                records[3]["rewards"]["brevity"] = None
            path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
        for i in range(3):
            append_line(run.faults, {"step": i, "reward": "brevity", "where": "rewards.1", "row": 3, "row_id": "row-0-0", "kind": "timeout",
                                     "text": "no answer within 60 s </td><script>window.pwned = 12</script>"})  # fmt: skip
    if evaluations:
        _evaluation(run, "before", 0.473, 0.031, rng)
        for step in (100, 200):
            if step < steps:
                _evaluation(run, f"step-{step:06d}", 0.6 + step / 1000, 0.03, rng)
        if state == "done":
            _evaluation(run, "after", after, 0.012, rng)
    return root


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`make_run(name, steps=..., evaluations=..., rollouts=..., state=...)` -> the folder of a new run."""

    def build(name: str = "arithmetic", **options: Any) -> Path:
        return make(tmp_path_factory.mktemp("runs") / name, **options)

    return build


@pytest.fixture(scope="session")
def attacks() -> list[str]:
    return ATTACKS
