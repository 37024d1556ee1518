"""`posttrain benchmark build`: who writes the questions, progress, and what became of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from posttrain import terminal
from posttrain.errors import Mistake
from posttrain.evaluation.building.build import Writer, build
from posttrain.evaluation.building.chunks import Spans, tokenizer_spans, word_spans
from posttrain.evaluation.building.documents import read_documents
from posttrain.evaluation.building.endpoint import KEY, Endpoint
from posttrain.evaluation.building.plan import Plan
from posttrain.evaluation.building.report import Files, Report, check_out
from posttrain.evaluation.building.wording import CHOICE, OPEN

KINDS = {"open": (OPEN,), "choice": (CHOICE,), "both": (OPEN, CHOICE)}


def build_command(
    places: Sequence[str],
    *,
    models: Sequence[str],
    out: str,
    model_names: Sequence[str] = (),
    engine_options: Mapping[str, Any] | None = None,
    kinds: str = "both",
    plan: Mapping[str, Any] | None = None,
    tokenizer: str | None = None,
    temperature: float | None = None,
    max_tokens: int = 4096,
    concurrency: int = 16,
    timeout: float = 300.0,
    retries: int = 4,
    api_key_envs: Sequence[str] = (),
    dtype: str = "float32",
) -> Report:
    """Build a benchmark, with a bar on stderr, and print what was kept and dropped.

    Args:
        models: of each writer, the URL of an OpenAI-compatible endpoint, or an engine (transformers, vllm, an import path).
        model_names: one for each of `models`, or none: as the endpoint names it (absent = the only one there); of an engine
            the hub id or directory.
        plan: fields of `Plan`.
        tokenizer: hub id or directory whose tokens chunks are counted in (absent: words).
        api_key_envs: variables that hold the keys of the endpoints: one for each of `models`, one for all, or none.

    Raises:
        Mistake, Alarm: as `build` and `Endpoint`.
    """
    asked = Plan(kinds=KINDS[kinds], **(plan or {}))
    names, variables = _paired(models, model_names, "--model-name"), _paired(models, api_key_envs, "--api-key-env")
    check_out(out)
    read_documents(places)  # a wrong file shows before anything is started
    spans = word_spans if tokenizer is None else _spans(tokenizer)
    common: dict[str, Any] = {"temperature": temperature, "max_tokens": max_tokens}
    writers: list[Writer] = []
    for model, name, variable in zip(models, names, variables, strict=True):
        if model.startswith(("http://", "https://")):
            asks = {"concurrency": concurrency, "timeout": timeout, "retries": retries, **common}
            writers.append(Endpoint(model, name or "", api_key_env=variable or KEY, **asks))
        else:
            writers.append(_local(model, name, dict(engine_options or {}), dtype, asked.seed, common))
    files = Files(Path(out).expanduser())
    print(terminal.line(f"replies go to {files.journal}; the same command goes on from them"), file=sys.stderr)
    with _bar() as progress:
        report = build(places, writers, out, asked, spans, progress)
    show(report, files)
    return report


def span(text: str | None, flag: str) -> tuple[int, int] | None:
    """`2-5` (or `3`, which is `3-3`) → both ends."""
    if text is None:
        return None
    parts = text.split("-")
    if not 1 <= len(parts) <= 2 or not all(part.strip().isdecimal() for part in parts):
        raise Mistake(f"{flag} {text}: two whole numbers, as 2-5")
    return int(parts[0]), int(parts[-1])


def words(text: str | None) -> str | None:
    """A text, or what is in the file that `@FILE` names."""
    if text is None or not text.startswith("@"):
        return text
    file = Path(text[1:]).expanduser()
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        raise Mistake(f"--instructions {text}: {file}: {why}") from error


def _paired(models: Sequence[str], given: Sequence[str], flag: str) -> list[str | None]:
    """What is given for each model."""
    if not given:
        return [None] * len(models)
    if len(given) == 1 and flag == "--api-key-env":
        return [given[0]] * len(models)
    if len(given) != len(models):
        raise Mistake(
            f"{flag}: {len(given)} for {len(models)} times --model; give one for each, in their order, or none"
        )
    return list(given)


def _local(
    engine: str, model_name: str | None, options: dict[str, Any], dtype: str, seed: int, common: Mapping[str, Any]
) -> Writer:
    from posttrain import engines, models
    from posttrain.evaluation.building.local import Local
    from posttrain.recipe.schema import Model
    from rollouts.records import Engine, Policy

    if model_name is None:
        raise Mistake(f"--model {engine}: say which model the engine loads: --model-name ID_OR_DIR")
    setting = Model.model_validate({"name": model_name, "dtype": dtype})
    tokenizer = models.load_tokenizer(setting)
    spec = engines.spec(setting, tokenizer, run_id="benchmark-build")

    def start() -> Engine:
        made = engines.build(engine, options, spec, "--model")
        made.sync(Policy(version=0, adapter_dir=None))
        return made

    return Local(start, tokenizer, model_name, spec.max_model_len, seed=seed, **common)


def _spans(name: str) -> Spans:
    from posttrain import models
    from posttrain.recipe.schema import Model

    return tokenizer_spans(models.load_tokenizer(Model.model_validate({"name": name})))


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """On a terminal a bar; elsewhere a line at every tenth."""
    if not sys.stderr.isatty():
        told = [-1]

        def tell(done: int, total: int) -> None:
            tenth = 10 * done // max(1, total)
            if tenth > told[0]:
                told[0] = tenth
                print(f"{done} of {total} requests", file=sys.stderr, flush=True)

        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("requests", total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def show(report: Report, files: Files) -> None:
    """What was kept and dropped, by reason, on stdout."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=terminal.line(f"{files.out.name}: {report.kept} questions"), title_justify="left", box=None)
    table.add_column("")
    table.add_column("", justify="right")
    table.add_column("")

    def add(what: str, count: int, more: str = "") -> None:
        table.add_row(terminal.line(what), str(count), terminal.line(more))

    copies = f"{report.copies} copies left out" if report.copies else ""
    others = f"{len(report.left_out)} other files left out" if report.left_out else ""
    add("documents", report.documents, ", ".join(filter(None, (copies, others))))
    several = ", ".join(f"{count} {scope}" for scope, count in report.scopes.items()) if len(report.scopes) > 1 else ""
    add("chunks", report.chunks, several)
    known = f"{report.from_journal} from an earlier call" if report.from_journal else ""
    add("replies", report.replies, f"of {report.requests}" + (f", {known}" if known else ""))
    for why, count in report.failed.items():
        add(f"  failed: {why}", count, "the same command asks them again")
    if report.cut:
        add("  cut at the token limit", report.cut, "--max-tokens")
    for why, count in report.unread.items():
        add(f"  unread: {why}", count)
    add("drafts", report.drafts)
    for why, count in report.dropped.items():
        add(f"  dropped: {why}", count)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(report.kinds.items()))
    scopes = ", ".join(f"{count} {scope}" for scope, count in report.kept_scopes.items())
    add("kept", report.kept, "; ".join(filter(None, (kinds, scopes if several else ""))))
    if len(report.writers) > 1:
        for name, counts in report.writers.items():
            add(f"  by {name}", counts.kept, f"of {counts.drafts} drafts in {counts.replies} replies")
    Console(markup=False, highlight=False).print(table)
    print(terminal.line(f"written to {files.out}; every drop with its reason in {files.dropped}"))
