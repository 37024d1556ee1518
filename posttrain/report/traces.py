"""The charts of one benchmark: lengths, score against tokens, accuracy at token budgets, ability over training."""

from __future__ import annotations

from typing import Any

from posttrain.report import charts, plots
from posttrain.report.run import Evaluation
from posttrain.report.samples import Samples
from posttrain.report.values import as_dict, number

MAX_CURVE = 64
"""Points of a curve that are drawn."""


def draw(
    key: str, found: list[Evaluation], pair: list[Evaluation], told: dict[str, Samples]
) -> list[charts.Chart | None]:
    made: list[charts.Chart | None] = []
    if found[0].adaptive is not None:
        made.append(_ability(key, found))
    lengths = {e.folder: _by_verdict(told[e.folder]) for e in pair if e.folder in told and told[e.folder].lengths()}
    if lengths:
        edges = plots.edges_for([n for found in lengths.values() for some in found.values() for n in some])
        top = max(plots.tallest(one, edges) for one in lengths.values())
        for e in pair:
            if e.folder in lengths:
                limit = number(as_dict(e.result.get("sampling")).get("max_tokens"))
                title = f"Completion length, {e.moment}"
                name = f"{key}-lengths-{e.folder == pair[-1].folder:d}"
                made.append(
                    plots.histogram(
                        name, title, lengths[e.folder], edges, top, None if limit is None else int(limit), _figures(e)
                    )
                )
    made += _cost_curves(key, pair)
    budgets = [_budget(e, colour) for e, colour in zip(pair, ("s5", "s1") if len(pair) == 2 else ("s1",), strict=True)]
    made.append(
        plots.curve_chart(
            f"{key}-budgets",
            "Accuracy at a token budget",
            "had every sample been cut there: from the same traces; band: 95 % interval over problems",
            [c for c in budgets if c.points],
            x_name="completion tokens allowed a sample (log scale)",
            y_name="accuracy",
            log=True,
        )
    )
    return made


def _by_verdict(samples: Samples) -> dict[str, list[int]]:
    by: dict[str, list[int]] = {}
    for sample in samples.kept:
        if sample["tokens"] is not None:
            by.setdefault(sample["verdict"], []).append(sample["tokens"])
    return by


def _figures(evaluation: Evaluation) -> str:
    lengths = as_dict(evaluation.result.get("lengths"))
    told = [
        (name, number(lengths.get(key))) for name, key in (("mean", "mean"), ("median", "median"), ("95 %", "p95"))
    ]
    return ", ".join(f"{name} {value:,.0f}" for name, value in told if value is not None)


def _points(value: Any) -> list[tuple[float, float, float, float | None, float | None]]:
    """(n, tokens, value, low, high) of a list of curve points, those that are whole."""
    out = []
    for point in value[:MAX_CURVE] if isinstance(value, list) else []:
        n, tokens, y, low, high = (number(as_dict(point).get(k)) for k in ("n", "tokens", "value", "low", "high"))
        if n is not None and tokens is not None and tokens > 0 and y is not None:
            out.append((n, tokens, y, low, high))
    return sorted(out, key=lambda p: p[1])


def _cost_curves(key: str, pair: list[Evaluation]) -> list[charts.Chart | None]:
    """maj@N, best-of-N and pass@N against the tokens they take, a chart an evaluation, on common axes."""
    sets: list[tuple[Evaluation, list[plots.Curve]]] = []
    for e in pair:
        curves = []
        given = as_dict(e.result.get("curves"))
        for name, label, colour in (
            ("maj", "maj@N", "s1"),
            ("best_of", "best of N", "s2"),
            ("pass", "pass@N (oracle)", "s3"),
        ):
            points = _points(given.get(name))
            if len(points) > 1:
                curves.append(plots.Curve(
                    label, colour, [(p[1], p[2]) for p in points], [p[3] for p in points], [p[4] for p in points],
                    [f"N = {p[0]:,.0f}: {p[1]:,.0f} tokens a problem" for p in points],
                ))  # fmt: skip
        if curves:
            sets.append((e, curves))
    everything = [c for _, curves in sets for c in curves]
    if not everything:
        return []
    xs = [x for c in everything for x, _ in c.points]
    return [
        plots.curve_chart(
            f"{key}-cost-{e.folder == pair[-1].folder:d}",
            f"Score against tokens, {e.moment}",
            "N samples a problem: the tokens of all of them, and what voting or choosing makes of them; band: 95 % interval",
            curves,
            x_name="tokens of all N samples (log scale)",
            y_name="score",
            log=True,
            y_range=plots.spread(everything, "share"),
            x_range=(min(xs), max(xs)),
        )
        for e, curves in sets
    ]


def _budget(evaluation: Evaluation, colour: str) -> plots.Curve:
    given = evaluation.result.get("budgets")
    points = []
    for point in given[:MAX_CURVE] if isinstance(given, list) else []:
        tokens, accuracy = number(as_dict(point).get("tokens")), as_dict(as_dict(point).get("accuracy"))
        value, low, high = (number(accuracy.get(k)) for k in ("value", "low", "high"))
        if tokens and tokens > 0 and value is not None:
            points.append((tokens, value, low, high, number(as_dict(point).get("used"))))
    points.sort(key=lambda p: p[0])
    heads = [f"{p[0]:,.0f} tokens" + (f", {p[4]:,.0f} used on average" if p[4] is not None else "") for p in points]
    return plots.Curve(evaluation.moment, colour, [(p[0], p[1]) for p in points], [p[2] for p in points], [p[3] for p in points], heads)  # fmt: skip


def _ability(key: str, found: list[Evaluation]) -> charts.Chart | None:
    """Ability over optimiser steps, in standard deviations of the bank's calibration models, with one standard error."""
    points = []
    for e in found:
        ability = e.ability()
        if e.step is not None and ability is not None:
            items = number((e.adaptive or {}).get("items"))
            points.append((float(e.step), *ability, items))
    points.sort(key=lambda p: p[0])
    return plots.curve_chart(
        f"{key}-ability",
        "Ability over training",
        "θ of the item response model (2PL), in standard deviations of the models that the bank was fitted to; band: ± one standard error",
        [plots.Curve(
            "ability", "s1", [(p[0], p[1]) for p in points],
            [None if p[2] is None else p[1] - p[2] for p in points], [None if p[2] is None else p[1] + p[2] for p in points],
            [f"step {p[0]:,.0f}" + (f": {p[3]:,.0f} items" if p[3] is not None else "") for p in points],
        )],
        x_name="optimiser step", y_name="ability, sd", unit="", better="up",
    )  # fmt: skip
