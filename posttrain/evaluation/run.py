"""What the verbs `evaluate` and `compare` do, callable from Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from posttrain import terminal
from posttrain.evaluation.adaptive.loop import Rule
from posttrain.evaluation.adaptive.run import evaluate_adaptive
from posttrain.evaluation.compare_text import print_comparisons
from posttrain.evaluation.comparisons import Comparisons, compare_all, write
from posttrain.evaluation.results import Result
from posttrain.evaluation.sampling import evaluate
from rollouts.records import Engine, Sampling


def evaluate_command(
    *,
    model: str,
    benchmark: str,
    engine: Engine | Callable[[], Engine],
    tokenizer: Any,
    out: str | Path,
    adapter: str | None = None,
    engine_name: str | None = None,
    samples: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    min_p: float = 0.0,
    max_tokens: int = 2048,
    stop: tuple[str, ...] = (),
    limit: int | None = None,
    path: str | None = None,
    seed: int = 0,
    style: str | None = None,
    template_args: Mapping[str, Any] | None = None,
    when: str | None = None,
    progress: bool | None = None,
    bank: str | Path | None = None,
    rule: Rule | None = None,
    quiet: bool = False,
    **more: Any,
) -> Result:
    """Evaluate a model and print the table. `engine` already serves the adapter, or is a function that makes one that does
    (then it is closed at the end). With an item `bank` the evaluation is adaptive, and ends by `rule`.
    `more` is for a full one: chunk, shots, shots_from, until_interval, device, flops_per_byte of `sampling.evaluate`.

    Raises:
        Mistake: as `sampling.evaluate`.
    """
    sampling = Sampling(
        temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p, max_tokens=max_tokens, stop=tuple(stop)
    )
    adaptive = {} if bank is None else {"bank": bank, "rule": rule}
    ask = evaluate if bank is None else evaluate_adaptive
    made = not hasattr(engine, "generate") and callable(engine)
    serving: Any = engine() if made else engine  # type: ignore[operator]
    try:
        return ask(
            benchmark,
            serving,
            tokenizer,
            out_dir=out,
            model_name=model,
            samples=samples,
            sampling=sampling,
            limit=limit,
            path=path,
            seed=seed,
            adapter=adapter,
            engine_name=engine_name,
            when=when,
            progress=progress,
            style=style,
            template_args=template_args,
            show=not quiet,
            **more,
            **adaptive,
        )
    finally:
        if made:
            serving.close()


def compare_command(
    *places: str | Path,
    anyway: bool = False,
    metrics: Sequence[str] = (),
    out: str | Path | None = None,
    quiet: bool = False,
) -> Comparisons:
    """Compare what is at each of the places (`places.read_arm`) with what is at the first, print it and write `comparison.json`.

    Args:
        metrics: names of scores, for files of other harnesses that have several (`foreign.read`).
        out: folder or .json file; absent = with the last of the places.

    Raises:
        Mistake: as `comparisons.compare_all` and `comparisons.write`.
    """
    found = compare_all(places, anyway=anyway, metrics=metrics)
    if not quiet:
        print_comparisons(found)  # first: where nothing can be written it is said all the same
    found = write(found, out)
    if not quiet:
        print(terminal.line(f"written to {found.file}"))
    return found
