"""The head of the page: how the run stands, accuracy before and after, and a few figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from posttrain import keys
from posttrain.report import charts, curves
from posttrain.report.axes import say
from posttrain.report.blocks import Block
from posttrain.report.run import Evaluation, Run
from posttrain.report.texts import clock, count, plural, span
from posttrain.report.values import Record, number


@dataclass
class State:
    word: str
    tone: str
    """`good`, `going` or `bad`."""
    detail: str
    error: str = ""


def state(run: Run, now: float) -> State:
    word = str(run.status.get("state") or "unknown")
    started, ended = number(run.status.get("started")), number(run.status.get("ended"))
    error = keys.hide(str(run.status.get("error") or ""))
    if word == "done":
        return State("done", "good", f"ended {clock(ended)}" if ended else "")
    if word in ("failed", "stopped"):
        return State(word, "bad", f"ended {clock(ended)}" if ended else "", error)
    if word == "running" and run.cut_off:
        last = f"last heard of {clock(run.last_time)}; " if run.last_time else ""
        return State("cut off", "bad", f"{last}the same command goes on", error)
    if word == "running":
        last = max([t for t in (run.last_time, started) if t is not None], default=None)
        ago = f"last heard of {span(now - last)} before this page was written" if last and now > last else ""
        return State("running", "going", ago, error)
    return State(word, "going", "" if run.alone else "no status.json", error)


def about(run: Run) -> str:
    """One line: method, model, adapter, engine."""
    if run.alone:
        result = run.evaluations[0].result if run.evaluations else {}
        told = [str(result[key]) for key in ("model", "adapter") if isinstance(result.get(key), str)]
        return ", ".join(
            [" + ".join(told), *([f"sampled by {result['engine']}"] if isinstance(result.get("engine"), str) else [])]
        )

    def at(*path: str) -> Any:
        value: Any = run.resolved
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    parts = []
    if algorithm := at("trainer", "algorithm"):
        parts.append(str(algorithm).upper() if isinstance(algorithm, str) and ":" not in algorithm else str(algorithm))
    if model := at("model", "name"):
        parts.append(f"on {model}")
    adapter = at("adapter")
    if isinstance(adapter, dict):
        parts.append(f"with a LoRA adapter of rank {adapter.get('r', '?')}")
    elif run.resolved:
        parts.append("with full fine-tuning")
    engine = at("rollouts", "engine")
    if (engine := engine.get("use") if isinstance(engine, dict) else engine) and run.rollouts.rows:
        parts.append(f"rollouts by {engine}")
    return ", ".join(parts)


@dataclass
class Side:
    """One end of a comparison."""

    label: str
    value: str
    interval: str
    graphic: Markup
    spoken: str


@dataclass
class Result:
    benchmark: str
    sides: list[Side]
    verdict: str
    tone: str
    size: str


def results(run: Run, about_each: list[Block]) -> list[Result]:
    """Accuracy before and after, a benchmark each; what the paired test says, or else what the intervals allow to say."""
    said = {block.benchmark: block.words for block in about_each if block.words and block.words.short}
    by_name: dict[str, list[Evaluation]] = {}
    for evaluation in run.evaluations:
        if evaluation.estimate() and evaluation.adaptive is None:
            by_name.setdefault(evaluation.benchmark, []).append(evaluation)
    found = []
    for benchmark, evaluations in by_name.items():
        before = next((e for e in evaluations if e.when == "before"), None)
        later = [e for e in evaluations if e is not before]
        after = next((e for e in evaluations if e.when == "after"), later[-1] if later else None)
        sides = []
        if before:
            sides.append(_side("before", before, "before"))
        if after:
            late = "score" if run.alone else "after" if after.when == "after" else f"at {after.moment}"
            sides.append(_side(late, after, "after"))
        verdict, tone = ("", "plain") if run.alone else compare(before, after)
        if before and after and (words := said.get(benchmark)):
            verdict, tone = words.short, words.tone
        found.append(Result(benchmark, sides, verdict, tone, _size(after or before)))
    return found


def _side(label: str, evaluation: Evaluation, colour: str) -> Side:
    value, low, high = evaluation.estimate() or (0.0, None, None)
    interval = "no interval" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f} %"
    graphic = charts.interval_bar(value, low, high, colour)
    return Side(label, f"{100 * value:.1f}", interval, graphic, f"{label}: {100 * value:.1f} percent, {interval}")


def _size(evaluation: Evaluation | None) -> str:
    n, k = (number(evaluation.result.get(key)) if evaluation else None for key in ("n", "k"))
    if n is None:
        return ""
    return plural(int(n), "held-out problem") + (
        f", {k:g} samples each" if k and k > 1 else ", one sample each" if k else ""
    )


def compare(before: Evaluation | None, after: Evaluation | None) -> tuple[str, str]:
    """What the two intervals allow to say, and its tone."""
    if before is None or after is None:
        return ("not evaluated after training yet" if before else "not evaluated before training"), "plain"
    (old, old_low, old_high), (new, new_low, new_high) = before.estimate() or (0, 0, 0), after.estimate() or (0, 0, 0)
    change = f"{abs(new - old) * 100:.1f} points"
    if old_low is None or old_high is None or new_low is None or new_high is None:
        return f"{'up' if new >= old else 'down'} by {change}; no intervals to judge it by", "plain"
    if new_low > old_high:
        return f"up by {change}; the 95 % intervals are disjoint", "good"
    if new_high < old_low:
        return f"down by {change}; the 95 % intervals are disjoint", "bad"
    return (
        f"{'up' if new >= old else 'down'} by {change}, but the 95 % intervals overlap: these two figures alone do not tell "
        "before and after apart (posttrain compare makes the paired test)",
        "plain",
    )


@dataclass
class Tile:
    label: str
    value: str
    detail: str = ""
    tone: str = ""


def tiles(run: Run) -> list[Tile]:
    if run.alone:
        return _tiles_of(run.evaluations[0].result) if run.evaluations else []
    planned = next((n for k in ("steps", "max_steps", "total_steps") if (n := number(run.plan.get(k)))), None)
    out = [Tile("optimiser steps", count(run.last_step), f"of {count(planned)} planned" if planned else "")]
    rollouts = number(run.status.get("rollouts"))
    if rollouts or run.rollouts.steps:
        made = count(rollouts) if rollouts else "–"
        out.append(
            Tile("rollouts", made, f"files of {plural(run.rollouts.steps, 'step')}" if run.rollouts.steps else "")
        )
    seconds = number(run.status.get("seconds"))
    started = number(run.status.get("started"))
    launched, earlier = number(run.status.get("launched")) or started, number(run.status.get("earlier")) or 0.0
    so_far = earlier + run.last_time - launched if seconds is None and launched and run.last_time else None
    if seconds is not None or (so_far and so_far > 0):
        loop = number(run.summary.get("train_runtime"))
        detail = f"{span(loop)} in the training loop" if loop else "" if seconds is not None else "so far"
        out.append(Tile("wall time", span(seconds if seconds is not None else so_far or 0.0), detail))
    names = [name for name in curves.TIMES if name in run.train]
    per_step = [sum(v or 0.0 for v in vs) for vs in zip(*(run.train[n].values for n in names), strict=False)]
    if per_step:
        middle = sorted(per_step)[len(per_step) // 2]
        out.append(Tile("a step", span(middle), "median, all phases"))
    if run.rollouts.steps or run.faults.total:
        detail = "rows that a reward failed on" if run.faults.total else "no reward failed"
        out.append(Tile("faults", count(run.faults.total), detail, "bad" if run.faults.total else ""))
    return out


def _tiles_of(result: Record) -> list[Tile]:
    n, k, tokens, seconds = (number(result.get(key)) for key in ("n", "k", "tokens", "seconds"))
    out = []
    if n is not None and k:
        out.append(Tile("samples", count(n * k), f"{count(n)} problems × {count(k)}"))
    if tokens is not None:
        out.append(Tile("completion tokens", count(tokens), f"{tokens / (n * k):,.0f} a sample" if n and k else ""))
    if seconds is not None:
        out.append(Tile("wall time", span(seconds), "of the call that finished it"))
    for key, label in (("truncated", "truncated"), ("no_answer", "no answer")):
        if (share := number(result.get(key))) is not None:
            out.append(Tile(label, say(share, "share"), "of the samples", "bad" if share > 0.03 else ""))
    return out


def trend(run: Run) -> str:
    """The training curve in one line: mean over the first and the last tenth of the logged steps."""
    for name, what in (("reward", "Training reward"), ("loss", "Training loss")):
        known = [v for v in run.train[name].values if v is not None] if name in run.train else []
        if len(known) >= 2:
            some = max(1, len(known) // 10)
            first, last = sum(known[:some]) / some, sum(known[-some:]) / some
            of = f"the first and the last {some} logged steps" if some > 1 else "the first and the last logged step"
            return f"{what}: {first:.3g} at the start, {last:.3g} at the end (means over {of})."
    return ""
