"""`posttrain evaluate`: a checkpoint, a benchmark, an engine."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posttrain import engines, models
from posttrain.errors import Mistake
from posttrain.evaluation import evaluate, find_benchmark
from posttrain.recipe.schema import Model
from rollouts.records import Policy, Sampling


def evaluate_checkpoint(
    *,
    model: str,
    adapter: str | None,
    benchmark: str,
    engine: str = "transformers",
    engine_options: Mapping[str, Any] | None = None,
    samples: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    min_p: float = 0.0,
    max_tokens: int = 1024,
    limit: int | None = None,
    path: str | None = None,
    dtype: str = "float32",
    seed: int = 0,
    style: str | None = None,
    template_args: Mapping[str, Any] | None = None,
    out: str | None = None,
) -> Any:
    """Sample `benchmark` from `model` (with `adapter` on top, if any), grade, and write samples and result to `out`.

    Raises:
        Mistake: something named does not exist, or does not fit.
    """
    if samples > 1 and temperature == 0:
        raise Mistake(f"--samples {samples} at temperature 0 gives {samples} times one answer; set --temperature")
    task = find_benchmark(benchmark, "--benchmark")
    task.load(path, limit)  # a wrong file shows before a model is loaded
    setting = Model(name=model, dtype=dtype)
    rank = None if adapter is None else _rank(Path(adapter))
    tokenizer = models.load_tokenizer(setting)
    spec = engines.spec(setting, tokenizer, lora_rank=rank, run_id=f"evaluate-{int(time.time())}")
    sampler = engines.build(engine, dict(engine_options or {}), spec, "--engine")
    target = (
        Path(out) if out else Path("evaluations") / _folder(model, adapter, task.name, time.strftime("%Y%m%d-%H%M%S"))
    )
    try:
        sampler.sync(Policy(version=0, adapter_dir=None if adapter is None else str(Path(adapter).resolve())))
        return evaluate(
            task,
            sampler,
            tokenizer,
            samples=samples,
            sampling=Sampling(temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p, max_tokens=max_tokens),
            limit=limit,
            path=path,
            seed=seed,
            out_dir=target,
            model_name=model,
            adapter=adapter,
            engine_name=engine,
            when="checkpoint",
            style=style,
            template_args=template_args,
            show=True,
        )
    finally:
        sampler.close()


def _rank(folder: Path) -> int:
    file = folder / "adapter_config.json"
    if not file.is_file():
        raise Mistake(f"--adapter {folder}: no adapter_config.json there; give a folder that PEFT (or a run) saved")
    return int(json.loads(file.read_text())["r"])


def _folder(model: str, adapter: str | None, benchmark: str, stamp: str) -> str:
    name = Path(adapter).resolve().parent.name if adapter else model
    return "-".join([name.replace("/", "_").replace(":", "_"), benchmark, stamp])
