"""`posttrain judge check`: asks a judge about labelled examples, and prints and writes how far it can be trusted."""

from __future__ import annotations

import asyncio
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from posttrain import rundir, terminal
from posttrain.errors import Mistake
from posttrain.evaluation.statistics.estimates import Estimate
from posttrain.judging import probes
from posttrain.judging.attacks import KINDS
from posttrain.judging.examples import SHIPPED, Example, load
from rewards.criteria.item import Verdict
from rewards.judge import Judge, JudgeSettings
from rewards.judges import settings as judge_settings
from rewards.judges import template

WIDTH = 80
REASONS = 3
"""Reasons of failures that are printed; all are in the file."""


def check_command(
    path: str | None,
    *,
    judge: str | None = None,
    url: str | None = None,
    model: str | None = None,
    more: Mapping[str, Any] | None = None,
    repeats: int = 3,
    injections: int = 2,
    limit: int | None = None,
    out: str = "judge_check.json",
) -> dict[str, Any]:
    """Ask, print the table and write `out`.

    Args:
        path: JSONL file with labelled examples; None: those that come with the package.
        judge: YAML file with settings of `rewards.judge.JudgeSettings`; `url`, `model` and `more` replace what it says.
        repeats: how often in all each example is asked, for self-consistency; 1: once.
        injections: examples that each attack is tried on; 0: none.
        limit: only the first examples.

    Raises:
        Mistake: the examples, the settings or the endpoint cannot be used; one line.
    """
    file = Path(out).expanduser()
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise Mistake(f"--out {out}: should be a file in a folder that is there")
    for name, value, least in (("--repeats", repeats, 1), ("--injections", injections, 0), ("--limit", limit, 1)):
        if value is not None and value < least:
            raise Mistake(f"{name} {value}: {least} or more")
    settings = _settings(judge, url, model, more or {})
    examples = load(path)[:limit]
    with _bar() as progress:
        ask = probes.Asking(settings, progress)
        try:
            asyncio.run(_heard(settings))
            found = asyncio.run(_ask(ask, examples, repeats, injections))
        except ValueError as error:  # JudgeError, a key or a cache that cannot be used
            raise Mistake(str(error)) from error
    head = {
        "examples": path or SHIPPED,
        "count": len(examples),
        "prompts": len({one.cluster for one in examples}),
        "labelled_met": sum(one.label for one in examples),
        "judge": {"model": settings.model, "url": settings.url, "mode": settings.mode, "votes": settings.votes},
        "sampling": settings.sampling() | {"seed": settings.seed},
        "template": template.version(),
        "repeats": repeats,
    }
    counts = ask.counts
    cost = {name: getattr(counts, name) for name in ("questions", "calls", "cached", "failed", "tokens", "seconds")}
    result = {**head, **found, "cost": cost, "failures": dict(ask.reasons)}
    for line in lines(result):
        print(terminal.line(line))
    rundir.write_json(file, plain(result))
    print(terminal.line(f"written to {file}"))
    return result


async def _heard(settings: JudgeSettings) -> None:
    """One that says nothing at all is not waited for as long as a training run would wait. Whatever else it says is measured.

    Raises:
        Mistake: no answer to one plain question.
    """
    judge = Judge(settings)
    try:
        ruling = await judge.trial()
    finally:
        await judge.close()
    if ruling.verdict is Verdict.FAILED and not ruling.tokens:
        mend = "start it, or mend its settings (url, model, structured, extra)"
        raise Mistake(f"judge {settings.model} at {settings.url or 'OpenAI'}: no answer: {ruling.explanation}; {mend}")


async def _ask(ask: probes.Asking, examples: list[Example], repeats: int, injections: int) -> dict[str, Any]:
    agreed, verdicts = await probes.agreement(ask, examples)
    found: dict[str, Any] = {"agreement": agreed, "verdicts": _by_name(examples, verdicts)}
    if all(verdict is None for verdict in verdicts):
        return found  # nothing could be learned of a judge that does not answer
    if repeats > 1:
        found["self_consistency"] = await probes.repeats(ask, examples, verdicts, repeats)
    found["order"] = await probes.order(ask, examples)
    found["padding"] = await probes.padding(ask, examples, verdicts)
    if injections:
        found["injections"] = await probes.injections(ask, examples, verdicts, injections)
    return found


def _by_name(examples: list[Example], verdicts: list[bool | None]) -> list[dict[str, Any]]:
    return [
        {"id": one.name, "points": one.points, "label": one.label, "verdict": verdict}
        for one, verdict in zip(examples, verdicts, strict=True)
    ]


def _settings(judge: str | None, url: str | None, model: str | None, more: Mapping[str, Any]) -> JudgeSettings:
    given = {name: value for name, value in (("url", url), ("model", model)) if value is not None}
    if model is None and judge is None:
        raise Mistake("--model is missing: the judge's name at the endpoint (or --judge FILE with all settings)")
    try:
        known = {} if judge is None else judge_settings.mapping(judge)
        return judge_settings.read({**known, **more, **given})
    except ValueError as error:
        raise Mistake(str(error)) from error


def plain(value: Any) -> Any:
    """Estimates as JSON."""
    if isinstance(value, Estimate):
        return value.to_json()
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value


def lines(found: Mapping[str, Any]) -> list[str]:
    """What is printed, in lines of 80 characters; all shares are of examples, intervals (95%) over prompts."""
    judge, agreed = found["judge"], found["agreement"]
    said = textwrap.wrap(
        f"{judge['model']} on {found['count']} labels ({found['labelled_met']} met) of {found['prompts']} prompts, "
        f"{found['examples']}",
        WIDTH,
    )
    said += ["", _row("", "value", "95% interval")]
    whole = agreed["all"]
    rows: list[tuple[str, Estimate | None, bool]] = [
        ("failed", agreed["failed"], False),
        ("accuracy", whole["accuracy"], False),
        ("Cohen's kappa", whole["kappa"], True),
        ("precision of met", whole["precision"], False),
        ("recall of met", whole["recall"], False),
        ("share met (verdicts)", whole["met"], False),
        ("share met (labels)", whole["labelled_met"], False),
    ]
    for sign in ("positive", "negative"):
        rows += [
            (f"{sign} points: {name}", agreed[sign][name], name == "kappa")
            for name in ("accuracy", "precision", "recall")
        ]
    length = agreed["length"]
    rows += [
        ("length: accuracy, shorter half", length["accuracy_short"], False),
        ("length: accuracy, longer half", length["accuracy_long"], False),
        ("length: met beyond label a doubling", length["per_doubling"], True),
    ]
    if "padding" in found:
        rows += [
            ("padding: verdict kept", found["padding"]["kept"], False),
            ("padding: met, after - before", found["padding"]["met_after_minus_before"], True),
            ("order: verdict kept", found["order"]["kept"], False),
            ("order: met, early - late", found["order"]["early_minus_late"], True),
        ]
    if "self_consistency" in found:
        rows.append((f"the same again, {found['repeats']} times", found["self_consistency"], False))
    if "injections" in found:
        rows += [
            ("injections: verdict held", found["injections"]["held"], False),
            ("injections: bent", found["injections"]["bent"], False),
        ]
        rows += [(f"  {KINDS[kind]}", one, False) for kind, one in found["injections"]["bent_by_kind"].items()]
    said += [_figure(name, one, signed) for name, one, signed in rows if one is not None]
    if found.get("injections", {}).get("got_through"):
        through = ", ".join(f"{name} ({count})" for name, count in found["injections"]["got_through"].items())
        said += ["", *textwrap.wrap(f"got through: {through}", WIDTH)]
    cost = found["cost"]
    said += [
        "",
        f"{cost['questions']} questions, {cost['calls']} requests, {cost['cached']} cached, {cost['tokens']} tokens, "
        f"{cost['seconds']:.0f} s",
    ]
    for why, count in sorted(found["failures"].items(), key=lambda one: -one[1])[:REASONS]:
        said += textwrap.wrap(f"failed {count} times: {terminal.line(why)}", WIDTH)
    return said


def _figure(name: str, one: Estimate, signed: bool) -> str:
    if one.value is None:
        return _row(name, "-", one.method)
    shown = (lambda x: f"{x:+.3f}") if signed else (lambda x: f"{x:.1%}")
    bounds = one.method if one.low is None or one.high is None else f"{shown(one.low)} to {shown(one.high)}"
    return _row(name, shown(one.value), bounds)


def _row(name: str, value: str, bounds: str) -> str:
    return f"{name:<38}{value:>8}  {bounds}"[:WIDTH]


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int], None]]:
    """On a terminal a bar; elsewhere a line for each part of the check."""
    if not sys.stderr.isatty():
        told: set[str] = set()

        def tell(what: str, done: int, total: int) -> None:
            if what not in told:
                told.add(what)
                print(f"{what}: {total} questions", file=sys.stderr, flush=True)

        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=None)
        yield lambda what, done, total: shown.update(task, description=what, completed=done, total=total)
