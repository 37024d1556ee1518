"""`posttrain evaluate`: a checkpoint, a benchmark, an engine."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from posttrain import adapters, engines, models, terminal
from posttrain.errors import Mistake
from posttrain.evaluation import find_benchmark
from posttrain.evaluation.adaptive.run import load_pool
from posttrain.evaluation.cost import device_named
from posttrain.evaluation.prompts import find_style
from posttrain.evaluation.regrading import regrade
from posttrain.evaluation.results import RESULT, SAMPLES, Result
from posttrain.evaluation.run import evaluate_command
from posttrain.evaluation.sampling import check
from posttrain.evaluation.shots import draw
from posttrain.evaluation.stopping import UntilInterval
from posttrain.recipe.schema import Model
from rollouts.records import Engine, Policy, Sampling


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
    drawn = {"temperature": 0.0} | {one.name: settings[one.name] for one in fields(Sampling) if one.name in settings}
    check(
        settings.get("samples", 1),
        Sampling(**drawn),
        settings.get("limit"),
        settings.get("chunk"),
        settings.get("flops_per_byte"),
    )
    if settings.get("device") is not None:
        device_named(settings["device"])
    task = find_benchmark(benchmark, "--benchmark")
    # A wrong file shows before a model is loaded.
    problems = task.load(settings.get("path"), settings.get("limit"))
    if settings.get("bank") is not None:
        load_pool(settings["bank"], task, settings.get("path"), settings.get("limit"), problems=problems)
        if settings.get("until_interval") is not None:
            raise Mistake("--until-interval is for problems in random order; --adaptive stops by --items and --se")
    find_style(settings.get("style") or task.style)
    if settings.get("shots_from") is not None and not settings.get("shots"):
        raise Mistake("--shots-from is where solved examples come from; say how many too (--shots N)")
    if settings.get("shots", 0):
        draw(task, settings["shots"], problems, settings.get("shots_from"))
    if settings.get("until_interval") is not None:
        UntilInterval(settings["until_interval"], problems, 1, 0)
    setting = Model.model_validate({"name": model, "dtype": dtype})
    rank = None if adapter is None else adapters.rank_of(Path(adapter), "--adapter")
    try:
        tokenizer = models.load_tokenizer(setting)
    except Mistake as mistake:
        raise Mistake(str(mistake).replace("model.name:", "--model:", 1)) from mistake
    spec = engines.spec(setting, tokenizer, lora_rank=rank, run_id=f"evaluate-{int(time.time())}")

    if adapter is not None and (other := _other_base(Path(adapter), (model, spec.model))):
        print(
            terminal.line(
                f"{adapter}: made for {other}, not for {model}; if that is another model, its answers say nothing"
            ),
            file=sys.stderr,
        )

    def start() -> Engine:
        try:
            made = engines.build(engine, dict(engine_options or {}), spec, "--engine")
        except Mistake as mistake:
            said = str(mistake).replace("--engine.use:", "--engine:", 1).replace("--engine.with.", "--engine-with ", 1)
            raise Mistake(said) from mistake
        made.sync(Policy(version=0, adapter_dir=None if adapter is None else str(Path(adapter).resolve())))
        return made

    folder = Path(out) if out else Path("evaluations") / _folder(model, adapter, task.name)
    with _going_on(folder):
        found = evaluate_command(
            model=model,
            benchmark=benchmark,
            engine=start,
            tokenizer=tokenizer,
            out=folder,
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


def _other_base(adapter: Path, names: Sequence[str]) -> str | None:
    """The base model that an adapter names, if it is none of these; folders are known by their own name, for they are moved."""
    try:
        base = json.loads((adapter / "adapter_config.json").read_bytes()).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    if not isinstance(base, str) or not base:
        return None
    return None if Path(base).name in {Path(name).name for name in names} else base


@contextmanager
def _going_on(folder: Path) -> Iterator[None]:
    """Where an evaluation is cut off, say what is there and how it goes on."""
    try:
        yield
    except (Exception, KeyboardInterrupt):
        file = folder / SAMPLES
        if file.is_file() and not (folder / RESULT).is_file():
            with file.open("rb") as lines:
                count = sum(line.endswith(b"\n") for line in lines)
            told = f"{count} samples are in {folder}; the same command with --out {folder} goes on from them"
            print(terminal.line(told), file=sys.stderr, flush=True)
        raise


def _page(found: Result) -> None:
    from posttrain import report

    print(terminal.line(f"page: {report.build(found.directory)}"))


def _folder(model: str, adapter: str | None, benchmark: str) -> str:
    name = Path(adapter).resolve().parent.name if adapter else model
    return "-".join([name.replace("/", "_").replace(":", "_"), benchmark, time.strftime("%Y%m%d-%H%M%S")])
