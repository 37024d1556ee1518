"""`report.html` of a run or of one evaluation: one file that needs no network, no server and no posttrain to be read.

What a model wrote is data: it goes into the page as escaped JSON and reaches the screen as text only. A content security policy lets
nothing run or load but the page's own style and script, named by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from posttrain import keys
from posttrain.errors import Mistake
from posttrain.keys import HIDDEN, is_secret
from posttrain.report import blocks, charts, curves, data, told
from posttrain.report.axes import say
from posttrain.report.blocks import Block
from posttrain.report.run import Evaluation, Run
from posttrain.report.values import Record, number
from posttrain.rundir import RunDir, write_atomic

HERE = Path(__file__).parent
RESULT, SAMPLES = "result.json", "samples.jsonl"


def build(run_dir: str | Path) -> Path:
    """Write the page of a run (while it goes on, or later) or of one evaluation, and return its path.

    Raises:
        Mistake: there is neither in that folder.
    """
    place = RunDir(run_dir)
    try:
        there = place.root.is_dir()
    except (OSError, ValueError) as error:
        raise Mistake(
            f"{str(run_dir)[:80]}: no name of a folder ({getattr(error, 'strerror', None) or error})"
        ) from None
    if not there:
        raise Mistake(f"{run_dir}: no such folder; give the folder of a run (runs/NAME) or of an evaluation")
    known = (place.status, place.recipe, place.metrics, place.resolved, place.rollouts, place.root / "evaluation")
    if not any(path.exists() for path in known):
        if (place.root / RESULT).is_file():
            write_atomic(place.report, render(data.read_evaluation(place.root)))
            return place.report
        if (place.root / SAMPLES).is_file():
            raise Mistake(
                f"{run_dir}: an evaluation that is not finished (no {RESULT}); the same command goes on with it"
            )
        raise Mistake(
            f"{run_dir}: holds no run (no {place.status.name}, no {place.recipe.name}, no {place.metrics.name}) and no evaluation (no {RESULT})"
        )
    write_atomic(place.report, render(data.read(place.root)))
    return place.report


def render(run: Run, now: float | None = None) -> str:
    """The page's HTML."""
    now = time.time() if now is None else now
    groups, rest = curves.build(run)
    about_each = blocks.build(run)
    style = "".join(map(_asset, ("page.css", "evaluation.css", "rubric.css")))
    script = _asset("rubric.js") + _asset("page.js")
    policy = f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    everything = [chart for group in groups for chart in group.charts] + rest
    everything += [chart for block in about_each for chart in block.charts]
    return _template().render(
        policy=policy,
        style=Markup(style),
        script=Markup(script),
        payload=Markup(embed(payload(run, everything))),
        run=run,
        name=run.name,
        state=state(run, now),
        about=about(run),
        results=results(run, about_each),
        blocks=about_each,
        tiles=tiles(run),
        trend=trend(run),
        groups=groups,
        rest=rest,
        recipe=plain(hide_in_yaml(run.recipe)),
        resolved=pretty(run.resolved),
        plan=facts(run.plan),
        environment=facts(run.environment),
        written=_clock(now),
        rows=len(run.rollouts.rows),
        samples=len(run.samples),
    )


@cache
def _asset(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


@cache
def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else plain(value),
    )
    environment.filters.update(plain=plain, count=_count, formula=typeset)
    return environment.get_template("page.html")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def embed(value: Any) -> str:
    """JSON that can stand inside a `<script type="application/json">` whatever text it holds, and parses to the same value."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&\u2028\u2029\ud800-\udfff]", lambda m: f"\\u{ord(m[0]):04x}", text)


def payload(run: Run, shown: list[charts.Chart]) -> Record:
    """What the page's script reads: the numbers behind the charts and the rows of the table. Equal prompts and criteria are sent once."""
    prompts: list[Any] = []
    index: dict[str, int] = {}
    known: dict[str, int] = {}
    criteria: list[Any] = []
    rows = []
    for row in [*run.rollouts.rows, *run.samples]:
        key = json.dumps(row["prompt"])
        if key not in index:
            index[key] = len(prompts)
            prompts.append(row["prompt"])
        rows.append({**row, "prompt": index[key]})
        if row.get("rubrics"):
            rows[-1]["rubrics"] = told.packed(row["rubrics"], known, criteria)
    drawn = {c.key: c.data for c in shown}
    return {"charts": drawn, "prompts": prompts, "rows": rows, "criteria": criteria, "weights": weights(run)}


def weights(run: Run) -> list[float | None]:
    """Weights of the rewards in the recipe's order, which is the order of a rollout's reward parts."""
    given = run.resolved.get("rewards")
    return (
        [number(r.get("weight", 1.0)) if isinstance(r, dict) else None for r in given]
        if isinstance(given, list)
        else []
    )


# -- the head of the page


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
        return State("done", "good", f"ended {_clock(ended)}" if ended else "")
    if word in ("failed", "stopped"):
        return State(word, "bad", f"ended {_clock(ended)}" if ended else "", error)
    if word == "running" and run.cut_off:
        last = f"last heard of {_clock(run.last_time)}; " if run.last_time else ""
        return State("cut off", "bad", f"{last}the same command goes on", error)
    if word == "running":
        last = max([t for t in (run.last_time, started) if t is not None], default=None)
        ago = f"last heard of {_span(now - last)} before this page was written" if last and now > last else ""
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
    return _plural(int(n), "held-out problem") + (
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
    out = [Tile("optimiser steps", _count(run.last_step), f"of {_count(planned)} planned" if planned else "")]
    rollouts = number(run.status.get("rollouts"))
    if rollouts or run.rollouts.steps:
        made = _count(rollouts) if rollouts else "–"
        out.append(
            Tile("rollouts", made, f"files of {_plural(run.rollouts.steps, 'step')}" if run.rollouts.steps else "")
        )
    seconds = number(run.status.get("seconds"))
    started = number(run.status.get("started"))
    launched, earlier = number(run.status.get("launched")) or started, number(run.status.get("earlier")) or 0.0
    so_far = earlier + run.last_time - launched if seconds is None and launched and run.last_time else None
    if seconds is not None or (so_far and so_far > 0):
        loop = number(run.summary.get("train_runtime"))
        detail = f"{_span(loop)} in the training loop" if loop else "" if seconds is not None else "so far"
        out.append(Tile("wall time", _span(seconds if seconds is not None else so_far or 0.0), detail))
    names = [name for name in curves.TIMES if name in run.train]
    per_step = [sum(v or 0.0 for v in vs) for vs in zip(*(run.train[n].values for n in names), strict=False)]
    if per_step:
        middle = sorted(per_step)[len(per_step) // 2]
        out.append(Tile("a step", _span(middle), "median, all phases"))
    if run.rollouts.steps or run.faults.total:
        detail = "rows that a reward failed on" if run.faults.total else "no reward failed"
        out.append(Tile("faults", _count(run.faults.total), detail, "bad" if run.faults.total else ""))
    return out


def _tiles_of(result: Record) -> list[Tile]:
    n, k, tokens, seconds = (number(result.get(key)) for key in ("n", "k", "tokens", "seconds"))
    out = []
    if n is not None and k:
        out.append(Tile("samples", _count(n * k), f"{_count(n)} problems × {_count(k)}"))
    if tokens is not None:
        out.append(Tile("completion tokens", _count(tokens), f"{tokens / (n * k):,.0f} a sample" if n and k else ""))
    if seconds is not None:
        out.append(Tile("wall time", _span(seconds), "of the call that finished it"))
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


# -- the rest of it


def facts(record: Record) -> list[tuple[str, str]]:
    """A JSON object as (dotted name, text) lines."""
    out: list[tuple[str, str]] = []

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict) and value and len(path) < 200:
            for key, inner in value.items():
                walk(HIDDEN if is_secret(str(key)) else inner, f"{path}.{key}" if path else str(key))
        elif isinstance(value, list) and all(not isinstance(v, dict | list) for v in value):
            out.append((path, " ".join(keys.hide_assignment(str(v)) for v in value)))
        elif isinstance(value, float):
            out.append((path, f"{value:.6g}"))
        elif isinstance(value, int) and not isinstance(value, bool):
            out.append((path, _count(value)))
        else:
            out.append((path, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))

    walk(record, "")
    return [(plain(name), plain(text)) for name, text in out if name]


def pretty(record: Record) -> str:
    return plain(json.dumps(_hide(record), indent=2, ensure_ascii=False)) if record else ""


def _hide(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: HIDDEN if is_secret(str(k)) and v is not None else _hide(v) for k, v in value.items()}
    if isinstance(value, str):
        return keys.hide(value)
    return [_hide(v) for v in value] if isinstance(value, list) else value


def hide_in_yaml(text: str) -> str:
    """The recipe's text without the values of secret settings."""

    def cover(match: re.Match[str]) -> str:
        return f"{match[1]}{match[2]}{HIDDEN}" if is_secret(match[1].strip("-{, \"'")) else match[0]

    return re.sub(r"""([\w"'-]+)(\s*:[ \t]+)([^\s{\[,}#][^,}\n]*)""", cover, keys.hide(text))


def plain(value: Any) -> str:
    """Text that HTML can hold: control characters and halves of surrogate pairs as visible signs, marks that turn the
    direction of text by their code."""
    text = str(value)
    text = re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f]", lambda m: chr(0x2400 + ord(m[0])), text)
    text = re.sub("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]", lambda m: f"⟦U+{ord(m[0]):04X}⟧", text)
    return re.sub("[\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "\ufffd", text)


def typeset(formula: str) -> Markup:
    """A formula of the table with its subscripts set as such."""
    text = str(escape(formula)).replace("`", "")
    return Markup(re.sub(r"([\u0370-\u03ff])_([a-z]+)", r"\1<sub>\2</sub>", text))


def _count(value: Any) -> str:
    value = number(value)
    return "–" if value is None else f"{value:,.0f}" if value == int(value) else f"{value:,.3f}".rstrip("0")


def _plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _span(seconds: float | None) -> str:
    """A length of time: `0.41 s`, `12.3 s`, `3 min 05 s`, `2 h 07 min`."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def _clock(moment: Any) -> str:
    moment = number(moment)
    try:
        return "–" if moment is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(moment))
    except (ValueError, OverflowError, OSError):
        return "–"
