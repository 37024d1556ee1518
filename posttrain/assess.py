"""`posttrain evaluate`: a checkpoint, a benchmark, an engine."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posttrain import adapters, engines, models, terminal
from posttrain.errors import Mistake
from posttrain.evaluation import find_benchmark
from posttrain.evaluation.adaptive.run import load_pool
from posttrain.evaluation.prompts import find_style
from posttrain.evaluation.regrading import regrade
from posttrain.evaluation.results import Result
from posttrain.evaluation.run import evaluate_command
from posttrain.evaluation.shots import draw
from posttrain.evaluation.stopping import UntilInterval
from posttrain.recipe.schema import Model
from rollouts.records import Engine, Policy


def evaluate_checkpoint(
    *,
    model: str,
    adapter: str | None,
    benchmark: str,
    engine: str = "transformers",
    engine_options: Mapping[str, Any] | None = None,
    dtype: str = "float32",
    out: str | None = None,
    **settings: Any,
) -> Result:
    """Sample `benchmark` from `model` (with `adapter` on top, if any), grade, print, and write samples, result and a page to `out`.

    `settings` are those of `posttrain.evaluation.run.evaluate_command`: samples, temperature, limit, path, seed, style, ...

    Raises:
        Mistake: something named does not exist, or does not fit.
    """
    if settings.get("samples", 1) > 1 and settings.get("temperature", 0.0) == 0:
        raise Mistake(
            f"--samples {settings['samples']} at temperature 0 gives one answer again and again; set --temperature"
        )
    task = find_benchmark(benchmark, "--benchmark")
    # A wrong file shows before a model is loaded.
    problems = task.load(settings.get("path"), settings.get("limit"))
    if settings.get("bank") is not None:
        load_pool(settings["bank"], task, settings.get("path"), settings.get("limit"), problems=problems)
        if settings.get("until_interval") is not None:
            raise Mistake("--until-interval is for problems in random order; --adaptive stops by --items and --se")
    find_style(settings.get("style") or task.style)
    if settings.get("shots", 0):
        draw(task, settings["shots"], problems, settings.get("shots_from"))
    if settings.get("until_interval") is not None:
        UntilInterval(settings["until_interval"], problems, 1, 0)
    setting = Model.model_validate({"name": model, "dtype": dtype})
    rank = None if adapter is None else adapters.rank_of(Path(adapter), "--adapter")
    tokenizer = models.load_tokenizer(setting)
    spec = engines.spec(setting, tokenizer, lora_rank=rank, run_id=f"evaluate-{int(time.time())}")

    def start() -> Engine:
        made = engines.build(engine, dict(engine_options or {}), spec, "--engine")
        made.sync(Policy(version=0, adapter_dir=None if adapter is None else str(Path(adapter).resolve())))
        return made

    found = evaluate_command(
        model=model,
        benchmark=benchmark,
        engine=start,
        tokenizer=tokenizer,
        out=Path(out) if out else Path("evaluations") / _folder(model, adapter, task.name),
        adapter=adapter,
        engine_name=engine,
        when="checkpoint",
        **settings,
    )
    _page(found)
    return found


def regrade_folder(folder: str, *, benchmark: str | None = None, path: str | None = None) -> None:
    """Judge the samples of a finished evaluation again, print what they add up to and write its page again.

    Raises:
        Mistake: as `posttrain.evaluation.regrading.regrade`.
    """
    _page(regrade(folder, benchmark=benchmark, path=path, show=True))


def _page(found: Result) -> None:
    from posttrain import report

    print(terminal.line(f"page: {report.build(found.directory)}"))


def _folder(model: str, adapter: str | None, benchmark: str) -> str:
    name = Path(adapter).resolve().parent.name if adapter else model
    return "-".join([name.replace("/", "_").replace(":", "_"), benchmark, time.strftime("%Y%m%d-%H%M%S")])
