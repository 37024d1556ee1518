"""`posttrain evaluate --adaptive`: a session with an engine, its samples and its result on disk."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from posttrain.errors import Mistake
from posttrain.evaluation import cost
from posttrain.evaluation import sampling as full
from posttrain.evaluation.adaptive.bank import Pool, pool, read_bank
from posttrain.evaluation.adaptive.loop import Rule, Session, play
from posttrain.evaluation.adaptive.record import block, doubts, finished
from posttrain.evaluation.adaptive.show import print_adaptive
from posttrain.evaluation.adaptive.spent import cost_of_chosen, of_full
from posttrain.evaluation.asking import Asking
from posttrain.evaluation.assembly import Frame
from posttrain.evaluation.benchmarks.base import Benchmark, Problem, find_benchmark
from posttrain.evaluation.progress import bar
from posttrain.evaluation.prompts import find_style
from posttrain.evaluation.provenance import digest_of
from posttrain.evaluation.results import SAMPLES, Result
from posttrain.evaluation.resuming import find, marks
from posttrain.evaluation.shots import draw
from posttrain.evaluation.summary import notes, summary
from posttrain.rundir import append_line
from rewards.grading import GRADER
from rollouts import pulse
from rollouts.records import Engine, Sampling

Line = dict[str, Any]


def evaluate_adaptive(
    benchmark: Benchmark | str,
    engine: Engine,
    tokenizer: Any,
    *,
    bank: Path | str,
    out_dir: Path | str,
    model_name: str,
    rule: Rule | None = None,
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
    shots: int = 0,
    shots_from: str | None = None,
    device: str | None = None,
    flops_per_byte: float | None = None,
    chunk: int | None = None,
    until_interval: float | None = None,
) -> Result:
    """Ask the items of a bank that say most about this model's ability, and write `samples.jsonl` and `result.json`.

    Requests are the same as in a full evaluation (seeds too), so samples that are in the folder from the same settings are
    not asked again, whether this evaluation was cut off or another one was there. In the result, `n` is how many items were
    asked, `metrics["accuracy"]` the accuracy predicted for the whole bank, and `adaptive`:

    | key | |
    |---|---|
    | `ability`, `se` | in standard deviations of the calibration models, 0 = their mean |
    | `trace` | `[{"item", "score", "samples", "ability", "se"}]`, in the order asked, ability and error after each |
    | `items`, `of` | asked, in the bank |
    | `predicted` | accuracy over the whole bank, an Estimate |
    | `widened` | factor of that interval's half-widths, from the bank's models held out; 1 = as the item model has it |
    | `asked_right` | share right among the asked; near a half by design, whatever the model |
    | `stop` | `se`, `items` (budget) or `bank` (all were asked) |
    | `rule` | budget, batch and error asked for |
    | `bank` | `file`, `digest`, `models`, `date` |

    `cost` is that of what was asked; its `of_full` says what all items of the bank would have taken (`spent.of_full`).

    Args:
        bank: item bank; see `posttrain irt fit`.
        samples: samples an item; each is one binomial trial.
        limit: only bank items among the first so many problems.

    All else as in `sampling.evaluate`.

    Raises:
        Mistake: as `sampling.evaluate`; the bank cannot be read or is of another benchmark or other texts.
        EngineError: from the engine; samples made so far are kept.
    """
    started = time.monotonic()
    if until_interval is not None:
        raise Mistake("until_interval: is for random order; an adaptive evaluation stops by its ability's error (se)")
    named = benchmark if isinstance(benchmark, str) else benchmark.file or benchmark.name
    if isinstance(benchmark, str):
        benchmark = find_benchmark(benchmark)
    sampling = sampling or Sampling(temperature=0.0)
    rule = rule or Rule()
    chunk = full.CHUNK if chunk is None else chunk
    full.check(samples, sampling, limit, chunk, flops_per_byte)
    problems = benchmark.load(path, limit)
    look = find_style(style or benchmark.style, tokenizer)
    if shots:
        look = look.with_shots(draw(benchmark, shots, problems, shots_from))
    computed_on = cost.device_of(engine, device)
    known = load_pool(bank, benchmark, path, limit, prompt=look.hash(), problems=problems)
    asking = Asking(benchmark, engine, tokenizer, sampling, seed, look, dict(template_args or {}))
    settings = full.settings_of(asking, model_name, adapter, engine_name)
    frame = Frame(asking, settings, model_name, adapter, samples, when, computed_on, flops_per_byte, started)
    digest = digest_of(settings)
    folder = Path(out_dir)
    if (there := finished(folder, digest, known, rule, samples, len(known.items))) is not None:
        if show:
            print_adaptive(there)
        return there
    found_there = find(folder, settings, benchmark, known.problems, progress=progress)
    regraded = found_there.settle(source={"benchmark": named, "data": path, "limit": limit})
    source = _Source(asking, known, samples, marks(settings), folder, found_there.lines, chunk)
    session = Session(known.a, known.b, rule, known.bank.prior, known.bank.start)

    def tell(_: Any) -> str:
        return f"ability {session.ability.value:+.2f} ± {session.ability.se:.2f}"

    with bar(benchmark.name, min(rule.items, len(known.items)) * samples, progress, tell) as update:

        def ask(items: list[int]) -> tuple[list[float], list[int]]:
            source.ask(items)
            lines = [source.lines(i) for i in items]
            update(source.used)
            return [sum(line["score"] for line in item) / len(item) for item in lines], [samples] * len(items)

        play(session, ask)
    asked = [known.problems[step.item] for step in session.trace]
    lines = [line for step in session.trace for line in source.lines(step.item)]
    found = block(session, known, rule, Path(bank))
    # What a summary says of chosen items is no estimate of anything: half of them are right, whatever the model.
    of_chosen = {"metrics": {"accuracy": found["predicted"]}, "strict": None, "budgets": [], "curves": {}}
    said = [
        *known.notes,
        f"{len(asked)} items chosen for this model by their information: accuracy is predicted over the bank's "
        f"{len(known.items)}, by the item model; for a claim, ask them all",
        *doubts(session, known),
        *(benchmark.notes(asked) if benchmark.notes else []),
        *regraded,
        *notes(benchmark, benchmark.size or len(asked), lines, source.resumed, max_tokens=sampling.max_tokens),
    ]
    result = frame.result(
        asked, lines, summary(asked, lines) | of_chosen, rule.batch * samples, notes=said, adaptive=found
    )
    result.cost = cost_of_chosen(result.cost, of_full(session, known, lines, samples))
    result.write(folder)
    if show:
        print_adaptive(result)
    return result


def load_pool(
    bank: Path | str,
    benchmark: Benchmark,
    path: str | None,
    limit: int | None,
    *,
    prompt: str | None = None,
    problems: Sequence[Problem] | None = None,
) -> Pool:
    """The problems of a benchmark (loaded, unless they are given) that a bank knows.

    Raises:
        Mistake: see `bank.read_bank` and `bank.pool`.
    """
    read = read_bank(bank)
    if read.benchmark is not None and read.benchmark != benchmark.name:  # before its rows are fetched
        pool(read, str(bank), benchmark.name, [])
    found = benchmark.load(path, limit) if problems is None else problems
    return pool(read, str(bank), benchmark.name, found, grader=dict(GRADER), prompt=prompt, part=limit is not None)


class _Source:
    """Samples of items: those on disk first, the engine for what is missing."""

    def __init__(
        self,
        asking: Asking,
        known: Pool,
        samples: int,
        marks: Mapping[str, str],
        folder: Path,
        there: Sequence[Line],
        chunk: int,
    ):
        self.asking = asking
        self.known = known
        self.samples = samples
        self.marks = marks
        self.chunk = chunk
        self.file = folder / SAMPLES
        self.have: dict[tuple[str, int], Line] = {(line["item_id"], line["sample"]): line for line in there}
        self.there = set(self.have)
        self.used: list[Line] = []
        self.resumed = 0

    def ask(self, items: Sequence[int]) -> None:
        """Make sure that all samples of these items are there."""
        wanted = [(self.known.problems[i], j) for i in items for j in range(self.samples)]
        todo = [(p, j) for p, j in wanted if (p.item_id, j) not in self.have]
        for start in range(0, len(todo), self.chunk):
            for line in self.asking.ask(todo[start : start + self.chunk], self.marks):
                append_line(self.file, line)
                self.have[line["item_id"], line["sample"]] = line
                pulse.beat()
        self.used += [self.have[p.item_id, j] for p, j in wanted]
        self.resumed += sum((p.item_id, j) in self.there for p, j in wanted)

    def lines(self, item: int) -> list[Line]:
        name = self.known.problems[item].item_id
        return [self.have[name, j] for j in range(self.samples)]
