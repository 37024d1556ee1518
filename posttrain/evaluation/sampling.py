"""Ask a model the problems of a benchmark, judge what it says, keep every sample, and say what they add up to."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from posttrain.errors import Mistake
from posttrain.evaluation import cost, tables
from posttrain.evaluation.asking import Asking
from posttrain.evaluation.assembly import Frame
from posttrain.evaluation.benchmarks.base import Benchmark, Problem, find_benchmark
from posttrain.evaluation.progress import bar
from posttrain.evaluation.prompts import doubts, find_style
from posttrain.evaluation.provenance import digest_of, dtype_of, fingerprint
from posttrain.evaluation.reasoning import answer_part
from posttrain.evaluation.results import SAMPLES, Result
from posttrain.evaluation.resuming import find, marks
from posttrain.evaluation.shots import draw
from posttrain.evaluation.stopping import UntilInterval
from posttrain.evaluation.summary import notes, summary
from posttrain.rundir import append_line
from rewards.grading import GRADER, Verdict
from rollouts import pulse
from rollouts.records import Engine, Sampling

CHUNK = 256
"""Requests handed to the engine at once; what a kill can lose."""
LARGEST = 4096
QUICK = 30.0
"""Engines that schedule their requests themselves (vLLM) get twice as many at once, up to `LARGEST`, while they need fewer
seconds than this for all: the fewer ends of chunks, at which the last long answers run alone, the better."""
CHUNK_UNTIL = 64
"""The same where sampling stops by what it saw; at most so many are asked in vain."""
ALWAYS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "stop")
"""Fields of `Sampling` that settings always say. Any other is said where it is not its default, so that an evaluation from
before a field existed has the settings that it would have today."""


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
    chunk: int | None = None,
    shots: int = 0,
    shots_from: str | None = None,
    until_interval: float | None = None,
    device: str | None = None,
    flops_per_byte: float | None = None,
) -> Result:
    """Ask every problem `samples` times and write `samples.jsonl` and `result.json` into `out_dir`.

    A call that was cut off goes on where it stopped: what is in `samples.jsonl` from the same settings (model, adapter,
    engine, dtype, policy version, sampling, seed, prompt style, grader) is not asked again, and more samples or a higher limit
    only ask what is missing. Where only the grader or a right answer has changed, samples are judged again and not asked. Samples of
    other settings are moved aside. An evaluation that is whole already is left as it is.

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
        chunk: requests handed to the engine at once; absent = 256 (64 with `until_interval`), more for quick servers.
        shots: so many solved examples before each question (`posttrain.evaluation.shots`).
        shots_from: file that they are drawn from; absent = the benchmark's training part.
        until_interval: ask problems in random order until the half-width of the accuracy's interval is under so many points
            (of 100). The interval allows for looking at it after every problem (`posttrain.evaluation.stopping`).
        device: what a server computes on, for the cost (`2 x H100`); absent = this machine's.
        flops_per_byte: of the device, for eFLOPs; absent = known by its name, or the paper's.

    Raises:
        Mistake: rows that cannot be read, an unknown benchmark or style, settings that make no sense.
        EngineError: from the engine; samples made so far are kept.
    """
    started = time.monotonic()
    named = benchmark if isinstance(benchmark, str) else benchmark.file or benchmark.name
    if isinstance(benchmark, str):
        benchmark = find_benchmark(benchmark)
    sampling = sampling or Sampling(temperature=0.0)
    may_grow = chunk is None and until_interval is None and not getattr(engine, "same_numerics", True)
    chunk = chunk if chunk is not None else CHUNK if until_interval is None else CHUNK_UNTIL
    check(samples, sampling, limit, chunk, flops_per_byte)
    problems = benchmark.load(path, limit)
    stop = None if until_interval is None else UntilInterval(until_interval, problems, samples, seed)
    look = find_style(style or benchmark.style, tokenizer)
    if shots:
        look = look.with_shots(draw(benchmark, shots, problems, shots_from))
    computed_on = cost.device_of(engine, device)
    asking = Asking(benchmark, engine, tokenizer, sampling, seed, look, dict(template_args or {}))
    folder = Path(out_dir)
    settings = settings_of(asking, model_name, adapter, engine_name)
    frame = Frame(asking, settings, model_name, adapter, samples, when, computed_on, flops_per_byte, started)
    digest = digest_of(settings)
    if (finished := _finished(folder, digest, problems, samples, stop)) is not None:
        if show:
            tables.print_result(finished)
        return finished
    wanted = {(p.item_id, j) for p in problems for j in range(samples)}
    there = find(folder, settings, benchmark, problems, progress=progress)
    regraded = there.settle(source={"benchmark": named, "data": path, "limit": limit})
    kept = [line for line in there.lines if (line["item_id"], line["sample"]) in wanted]
    resumed = have = {(line["item_id"], line["sample"]) for line in kept}
    order = problems if stop is None else stop.problems
    todo = [(p, j) for p in order for j in range(samples) if (p.item_id, j) not in have]
    with bar(benchmark.name, len(wanted), progress, None if stop is None else stop.tell) as update:
        while not (stop is not None and stop.look(kept)):
            update(kept)
            now, todo = todo[:chunk], todo[chunk:]
            if not now:
                break
            began = time.monotonic()
            for line in asking.ask(now, marks(settings)):
                append_line(folder / SAMPLES, line)
                pulse.beat()
                kept.append(line)
            if may_grow:
                chunk = grown(chunk, time.monotonic() - began)
    if stop is not None:
        problems = stop.counted
        counted = {p.item_id for p in problems}
        kept = [line for line in kept if line["item_id"] in counted]
    stopped = None if stop is None else stop.record()
    result = frame.result(
        problems,
        kept,
        summary(problems, kept, sampling.max_tokens, None if stop is None else stop.interval),
        handed_over=chunk,
        stopped=stopped,
        notes=(benchmark.notes(problems) if benchmark.notes else [])
        + doubts(look, tokenizer, asking.template_args)
        + regraded
        + notes(
            benchmark,
            len(problems),
            kept,
            sum((x["item_id"], x["sample"]) in resumed for x in kept),
            stopped,
            sampling.max_tokens,
        ),
    )
    result.write(folder)
    if show:
        tables.print_result(result)
    return result


def grown(chunk: int, seconds: float) -> int:
    """How many requests to hand over next, if so many took so long."""
    return min(LARGEST, 2 * chunk) if seconds < QUICK else chunk


def settings_of(asking: Asking, model_name: str, adapter: str | None, engine_name: str | None) -> dict[str, Any]:
    """Everything that shapes the samples; its `digest_of` is in every line and in the result."""
    dtype = dtype_of(asking.engine)
    return {
        "benchmark": asking.benchmark.name,
        **({"data": asking.benchmark.digest} if asking.benchmark.digest else {}),
        "model": model_name,
        "weights": fingerprint(model_name),
        "adapter": fingerprint(adapter),
        "engine": engine_name or type(asking.engine).__name__,
        **({} if dtype in (None, "float32") else {"dtype": dtype}),
        "version": asking.engine.version,
        "sampling": told(asking.sampling),
        "seed": asking.seed,
        "prompt": asking.style.hash(),
        "template": dict(asking.template_args),
        "grader": GRADER,
    }


def told(sampling: Sampling) -> dict[str, Any]:
    """What settings say of a `Sampling`: see `ALWAYS`."""
    values = asdict(sampling) | {"stop": list(sampling.stop)}
    default = {field.name: field.default for field in fields(sampling)}
    return {name: value for name, value in values.items() if name in ALWAYS or value != default[name]}


def check(
    samples: int, sampling: Sampling, limit: int | None, chunk: int | None, flops_per_byte: float | None = None
) -> None:
    """Raises a `Mistake` for settings that no evaluation can have."""
    for name, count in {"samples": samples, "limit": limit, "chunk": chunk, "max_tokens": sampling.max_tokens}.items():
        if count is not None and count < 1:
            raise Mistake(f"{name}: at least 1, not {count}")
    shares: list[tuple[str, float, bool, str]] = [
        ("temperature", sampling.temperature, 0 <= sampling.temperature < math.inf, "0 (greedy) or above"),
        ("top_p", sampling.top_p, 0 < sampling.top_p <= 1, "above 0, and 1 (off) at most"),
        ("top_k", sampling.top_k, sampling.top_k >= 0, "0 (off) or above"),
        ("min_p", sampling.min_p, 0 <= sampling.min_p <= 1, "from 0 (off) to 1"),
        ("repetition_penalty", sampling.repetition_penalty, 0 < sampling.repetition_penalty < math.inf, "above 0"),
    ]
    if flops_per_byte is not None:
        shares.append(("flops_per_byte", flops_per_byte, 0 < flops_per_byte < math.inf, "above 0"))
    for name, value, fits, wanted in shares:
        if not fits:
            raise Mistake(f"{name}: {wanted}, not {value:g}")
    if sampling.temperature == 0 and samples > 1:
        raise Mistake(
            f"samples: {samples} greedy samples (temperature 0) would all be the same; set a temperature, or samples to 1"
        )


def _finished(
    folder: Path, digest: str, problems: Sequence[Problem], k: int, stop: UntilInterval | None
) -> Result | None:
    """The result that is there, if it is of this very evaluation and all its samples are there too."""
    try:
        found = Result.read(folder)
        have = {
            (line["item_id"], line["sample"]): line["gold"]
            for line in found.samples()
            if line.get("settings") == digest
        }
    except (Mistake, KeyError, TypeError):
        return None
    if (found.settings, found.k) != (digest, k):
        return None
    if stop is None:
        asked, same = problems, found.stopped is None and found.adaptive is None
    else:
        asked, same = stop.problems[: found.n], stop.is_of(found.stopped)
    whole = all(have.get((p.item_id, j)) == p.gold for p in asked for j in range(k))
    return found if same and found.n == len(asked) and whole else None
