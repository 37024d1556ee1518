"""`posttrain plan` and `posttrain rewards check`: what a recipe would do, and what a reward does, without training."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape as escape_markup
from rich.table import Table

from posttrain import assemble, models, rubrics, terminal
from posttrain import plan as planning
from posttrain.data import load_rows
from posttrain.errors import Mistake
from posttrain.evaluation import BENCHMARKS
from posttrain.evaluation.adaptive import entry
from posttrain.imports import Use, resolve_path
from posttrain.preflight.answers import FORMS
from posttrain.recipe import Recipe
from posttrain.recipe.check import check
from posttrain.recipe.homes import trl_arguments
from posttrain.recipe.schema import Source
from posttrain.rundir import RunDir
from posttrain.scaffolding import Widest, ever_scaffolded, prompt_of_loss
from posttrain.trainers import TRAINERS, lean
from posttrain.trainers.scaffolds import shows_more
from posttrain.trainers.scorer import Judged
from rewards.runtime import Guard, Scores
from rollouts.prompts import encode

SHOWN = 3


def show(loaded: Any, *, processes: int = 1, shape_only: bool = False, console: Console | None = None) -> None:
    """Check everything that can be checked without training, and print it.

    Raises:
        Mistake: the first thing that is wrong.
    """
    console = console or Console()
    recipe: Recipe = loaded.recipe
    console.rule("recipe, with every default")
    text = yaml.safe_dump(recipe.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True)
    console.print(escape(text.rstrip()), highlight=False)
    if shape_only:
        return
    if recipe.trainer.algorithm in TRAINERS:
        lean.without_vllm()
    check(recipe, assemble.trainer_class(recipe).Config, loaded, benchmarks=BENCHMARKS, bank=entry.check_bank)
    tokenizer = models.load_tokenizer(recipe.model)
    rows, counts = assemble.rows(recipe, recipe.data.train, tokenizer, "data.train")
    assemble.rewards_fit(recipe, rows.column_names)
    assemble.rubrics_fit(recipe, rows, "data.train")
    arguments = trl_arguments(recipe, RunDir(f"{recipe.run.directory}/{recipe.run.name}"))
    geometry = planning.geometry(arguments, len(rows), processes, recipe.trainer.algorithm)
    console.rule("model")
    config = models.load_config(recipe.model)
    shape = planning.Shape.of(config)
    base = shape.parameters
    added = 0 if recipe.adapter is None else planning.adapter_parameters(shape, recipe.adapter)
    trained, total = added or base, base + added
    console.print(f"{total:,} parameters, {trained:,} of them trained ({trained / total:.2%})", highlight=False)
    console.rule("batches")
    console.print(_pairs({**{f"rows: {k}": v for k, v in counts.items()}, **geometry.as_dict()}))
    seen, way = Widest(), None
    if assemble.is_online(recipe):
        way = assemble.strategy(recipe)
        seen = assemble.scaffolds(recipe, way, rows, tokenizer)
    if seen.scaffold:
        by = "the engine alone" if shows_more(way) else "engine and loss"
        console.rule(f"scaffold, seen by {by} while its schedule lasts")
        told = {
            "longest scaffold, tokens": seen.scaffold,
            "of row": seen.scaffold_row,
            "longest prompt with it": seen.prompt,
        }
        if (share := ever_scaffolded(way, geometry.epochs)) is not None:
            told["rows that ever meet one, about"] = f"{share:.0%}"
        console.print(_pairs(told))
    console.rule(f"memory, estimated per device of {processes} process{'es' if processes > 1 else ''}")
    longest = max((len(encode(tokenizer, r["prompt"], **recipe.model.template_args)) for r in rows), default=None)
    longest = longest and prompt_of_loss(way, longest, seen.prompt)
    memory = planning.memory_of(recipe, config, arguments, processes, prompt_tokens=longest, seen_tokens=seen.prompt)
    console.print(_pairs(memory.readable()))
    console.rule(f"the first {SHOWN} prompts, as the model sees them")
    judged = assemble.judged(recipe)
    try:
        for row in rows.select(range(min(SHOWN, len(rows)))):
            _prompt(console, recipe, tokenizer, judged, row)
    finally:
        for one in judged:
            one.guard.close()


def _prompt(console: Console, recipe: Recipe, tokenizer: Any, judged: list[Judged], row: dict[str, Any]) -> None:
    ids = encode(tokenizer, row["prompt"], **recipe.model.template_args)
    console.print(f"[bold]{escape(str(row['row_id']))}[/] ({len(ids)} tokens)", highlight=False)
    console.print(escape(tokenizer.decode(ids)), highlight=False)
    for label, column in (("completion", "completion"), ("chosen", "chosen"), ("rejected", "rejected")):
        if column in row:
            console.print(f"[dim]{label}:[/] {escape(_text(row[column]))}", highlight=False)
    if not judged or row.get("answer") is None:
        return
    for label, completion, scores in right_and_wrong(judged, row, tokenizer):
        told = ", ".join(f"{name} {_told(value)}" for name, value in scores.items())
        console.print(f"[dim]{label} completion[/] {escape(completion)} [dim]->[/] {escape(told)}", highlight=False)


def right_and_wrong(
    judged: list[Judged], row: Mapping[str, Any], tokenizer: Any
) -> list[tuple[str, str, dict[str, float | str]]]:
    """(right or wrong, a completion that gives the answer or another one, each reward's word on it), in the form in use that the
    rewards like best."""
    gold = str(row["answer"]).rsplit("####", 1)[-1].strip()
    forms = [form for _, form in FORMS if form is not None]
    forms.insert(1, forms.pop(forms.index("%s")))  # rather bare than in marks that make no difference
    told = score(judged, row, [form % gold for form in forms], tokenizer)
    worth = [sum(one.setting.weight * v for one in judged if not isinstance(v := t[one.name], str)) for t in told]
    best = max(range(len(forms)), key=lambda i: worth[i])  # the first of equals
    other = forms[best] % (str(int(gold) + 1) if gold.lstrip("-").isdigit() else f"{gold} + 1")
    wrong = score(judged, row, [other], tokenizer)[0]
    return [("right", forms[best] % gold, told[best]), ("wrong", other, wrong)]


def score(
    judged: list[Judged], row: Mapping[str, Any], completions: list[str], tokenizer: Any
) -> list[dict[str, float | str]]:
    """Each reward's word on each completion: a number, `not judged`, or its fault."""
    n = len(completions)
    chat = not isinstance(row["prompt"], str)
    given = [[{"role": "assistant", "content": text}] for text in completions] if chat else completions
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id] for text in completions]
    columns = {k: [v] * n for k, v in row.items() if k not in ("prompt", "completion")}
    told: list[dict[str, float | str]] = [{} for _ in completions]
    for one in judged:
        if rubrics.judge_of(Use(one.setting.use, dict(one.setting.with_), one.where)) is not None:
            for said in told:
                said[one.name] = "not asked (a judge decides)"  # a plan costs nothing, and needs no server
            continue
        scores = one.guard.score([row["prompt"]] * n, given, ids, columns, {})
        faults = {fault.row: fault for fault in scores.faults}
        for i, (said, value) in enumerate(zip(told, scores.values, strict=True)):
            fault = faults.get(i) or faults.get(None)
            said[one.name] = f"{fault.kind}: {fault.text}" if fault else "not judged" if value is None else value
    return told


def _told(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3f}"


def _pairs(values: Mapping[str, Any]) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(justify="right")
    for key, value in values.items():
        table.add_row(escape(key.replace("_", " ")), f"{value:,}" if isinstance(value, int) else escape(str(value)))
    return table


def escape(text: str) -> str:
    """Text that neither rich nor the terminal reads anything into."""
    return escape_markup(terminal.clean(text))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else " ".join(str(m.get("content", "")) for m in value)


SAMPLES = [
    {"prompt": "What is 17 + 25?", "completion": "17 + 25 = 42, so \\boxed{42}", "answer": "42"},
    {"prompt": "What is 17 + 25?", "completion": "\\boxed{43}", "answer": "42"},
    {"prompt": "What is 17 + 25?", "completion": "I do not know.", "answer": "42"},
    {"prompt": "What is 17 + 25?", "completion": "", "answer": "42"},
    {"prompt": "What is 17 + 25?", "completion": "{" * 200 + "9^{9^{9}}" + "}" * 200, "answer": "42"},
]
"""Right, wrong, without an answer, empty, pathological: what a reward meets sooner or later."""


def try_reward(
    reward: str,
    *,
    arguments: Mapping[str, Any],
    data: str | None = None,
    limit: int = 20,
    timeout: float = 30.0,
    console: Console | None = None,
) -> Scores:
    """Run a reward on sample rows in a worker process and print scores, timing and faults.

    Raises:
        Mistake: the reward cannot be found or built, the data cannot be read, or some rows could not be judged.
    """
    console = console or Console()
    use = Use(resolve_path(reward, None, "reward"), dict(arguments), "reward")
    assemble.reward_of(use)
    judge = rubrics.judge_of(use)
    if judge is not None:
        found = rubrics.heard(judge)
        if not found.ok:
            raise Mistake(f"{reward}: {found.looked}; {found.mend}")
        timeout = max(timeout, judge.settings.given_up)
    rows = _sample_rows(data, limit)
    completions = [r["completion"] for r in rows]
    ids = [list(_text(c).encode()) for c in completions]
    columns = {k: [r.get(k) for r in rows] for k in rows[0] if k not in ("prompt", "completion")}
    guard = Guard(use.build, name=reward, timeout=timeout, processes=1, where="reward")
    try:
        scores = guard.score([r["prompt"] for r in rows], completions, ids, columns, {})
    finally:
        guard.close()
    faults = {f.row: f for f in scores.faults}
    table = Table("row", "completion", "score", title=escape(reward))
    for i, (row, value) in enumerate(zip(rows, scores.values, strict=True)):
        fault = faults.get(i) or faults.get(None)
        told = (
            f"[red]{escape(f'{fault.kind}: {fault.text}')}[/]"
            if fault
            else "not judged"
            if value is None
            else f"{value:.4g}"
        )
        table.add_row(str(i), escape(_text(row["completion"])[:60]), told)
    console.print(table)
    numbers = [v for v in scores.values if v is not None]
    spread = (
        f"mean {statistics.fmean(numbers):.4g}, from {min(numbers):.4g} to {max(numbers):.4g}; " if numbers else ""
    )
    console.print(f"{len(rows)} rows in {scores.seconds:.3f} s; {spread}{len(scores.faults)} faults", highlight=False)
    if data is None:
        console.print("(rows of our own; `completion_ids` are bytes here. Give --data for yours.)", style="dim")
    if faults:
        failed = len(rows) if None in faults else len(faults)
        raise Mistake(f"{reward}: {failed} of {len(rows)} rows could not be judged; see the table")
    return scores


def _sample_rows(data: str | None, limit: int) -> list[dict[str, Any]]:
    if data is None:
        return SAMPLES[:limit]
    found, _ = load_rows(Source(path=data, chat=False, limit=limit), None, max_prompt_tokens=None, where="--data")
    rows = [dict(row) for row in found]
    if "completion" not in rows[0]:
        raise Mistake(f"--data {data}: has no `completion` column; its columns are {', '.join(rows[0])}")
    return rows
