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
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from posttrain.errors import Mistake
from posttrain.report import blocks, charts, curves, data, told
from posttrain.report.head import about, results, state, tiles, trend
from posttrain.report.run import Run
from posttrain.report.texts import clock, count, facts, hide_in_yaml, plain, pretty, typeset
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
    script = "".join(map(_asset, ("pointer.js", "rubric.js", "page.js")))
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
        written=clock(now),
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
    environment.filters.update(plain=plain, count=count, formula=typeset)
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
