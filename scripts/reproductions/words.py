"""The reproduction's table and what it says, from its record. Nothing here is typed that could be computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reproductions.arms import BATCH, BY_NAME, CENTRAL, METHOD, PLAIN, SETTINGS
from reproductions.figures import interval, mean

COLUMNS = (
    ("score", "mean score", 3),
    ("best_8", "best of 8", 3),
    ("best_64", "best of 64", 3),
    ("categories", "categories of 8", 1),
    ("length", "tokens", 1),
    ("untimely", "no end", 3),
    ("score_when_shown", "score when shown", 3),
    ("gap", "gap, nats", 2),
)
TITLES = {s.name: s.title for s in SETTINGS}
CLAIMS = {
    "no_decay": "the scaffold must vanish",
    "linear_decay": "it must vanish early, not linearly",
    "no_differentiation": "it must differ within a group",
    "in_loss": "the loss must not see it",
    "early": "t0 0.2 rather than 0.1",
    "late": "t0 0.2 rather than 0.4",
    "sft_first": "it is more than its data",
}
"""What each arm would speak against if it were not worse."""


def page(record: Mapping[str, Any]) -> str:
    """RuscaRL.md: the claim's verdict, tables, verdicts, what they mean, how it was made."""
    parts = [
        "# RuscaRL on the miniature of behaviours",
        f"RuscaRL against plain GRPO at eps 0.003: **{record['verdict']}**. " + _setup(record),
        *([_quick()] if record["quick"] else []),
        "![mean held-out score against rollouts](ruscarl.png)",
    ]
    for setting, arms in record["arms"].items():
        parts += [f"## {TITLES[setting]}", table(arms)]
    parts += ["## Verdicts", verdicts(record), "## What it says", meaning(record), "## How", _how(record)]
    return "\n\n".join(parts) + "\n"


def table(arms: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """One row an arm: means over seeds; the score with its interval over seeds."""
    shown = [c for c in COLUMNS if any(one.get(c[0]) is not None for seeds in arms.values() for one in seeds.values())]
    lines = ["| arm | rate | " + " | ".join(title for _, title, _ in shown) + " |", "|---" * (len(shown) + 2) + "|"]
    for arm, seeds in arms.items():
        cells = []
        for key, _, digits in shown:
            values = [one[key] for one in seeds.values() if one.get(key) is not None]
            text = f"{mean(values):.{digits}f}" if values else "–"
            if key == "score" and (low_high := interval(values))[0] is not None:
                text += f" [{low_high[0]:.3f}, {low_high[1]:.3f}]"
            cells.append(text)
        rate = next(iter(seeds.values()))["rate"]
        lines.append(f"| {BY_NAME[arm].title} | {rate:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdicts(record: Mapping[str, Any]) -> str:
    """One row a comparison: RuscaRL less the other arm."""
    lines = [
        "| setting | RuscaRL against | difference [95 %] | p | verdict | of the best of 64 |",
        "|---|---|---|---|---|---|",
    ]
    for setting, others in record["comparisons"].items():
        for arm, found in others.items():
            best = found.get("best_64")
            told = "–" if best is None else f"{_bounds(best)}: {best['verdict']}"
            p = "–" if found["p"] is None else f"{found['p']:.2g}"
            lines.append(
                f"| {TITLES[setting]} | {BY_NAME[arm].title} | {_bounds(found)} | {p} | {found['verdict']} | {told} |"
            )
    return "\n".join(lines)


def meaning(record: Mapping[str, Any]) -> str:
    """The card's predictions, each held against its verdict."""
    found = record["comparisons"]
    lines = []
    for setting, predicted in (("eps_0.05", "not distinguishable"), (CENTRAL, "better"), ("eps_0.0003", "better"), ("joint", "better")):  # fmt: skip
        if (one := found.get(setting, {}).get(PLAIN)) is not None:
            held = "as predicted" if one["verdict"] == predicted else f"predicted: {predicted}"
            lines.append(f"- {TITLES[setting]}: RuscaRL is {one['verdict']} against plain GRPO ({held}).")
    for arm, claim in CLAIMS.items():
        if (one := found.get(CENTRAL, {}).get(arm)) is not None:
            lines.append(
                f"- That {claim}: against {BY_NAME[arm].title} RuscaRL is {one['verdict']}; the claim {_held(one)}."
            )
    return "\n".join(lines)


def _held(one: Mapping[str, Any]) -> str:
    """No difference that could be told is no proof that there is none."""
    if one["verdict"] == "better":
        return "carries over"
    if one["verdict"] == "worse" or one["low"] is None:
        return "does not carry over to this task"
    return f"was not seen to carry over to this task (differences up to {one['high']:+.2f} are not excluded)"


def _setup(record: Mapping[str, Any]) -> str:
    size = record["size"]
    return (
        f"{size['seeds']} seeds (each with its own base, data order and sampling), {size['steps']} steps of {BATCH} rollouts, scores on "
        f"{size['questions']} questions about topics that nothing was trained on, {size['samples']} samples each, never scaffolded. "
        "Intervals of arms are over seeds; differences are over seeds and questions."
    )


def _quick() -> str:
    return "**A shortened run that checks the machinery. Its figures say nothing about the method.**"


def _how(record: Mapping[str, Any]) -> str:
    size, machine = record["size"], record["machine"]
    rates = ", ".join(f"{rate:g}" for rate in size["rates"])
    bases = record["bases"]
    told = "; ".join(
        f"{name}: {one['score_when_shown']:.3f} shown, {one['score']:.3f} not, best of 8 {one.get('best_8', float('nan')):.3f}"
        for name, one in bases.items()
    )
    return (
        f"Rates: for each arm the best of {rates} in {size['tuning_steps']} steps on a seed that is not reported, at eps 0.003; used for "
        f"that arm everywhere. Bases (setting/seed: score with the whole rubric shown, without, best of 8): {told}. "
        "The control imitates the scaffolded answers of the base that score above 0.8, for a fifth of the rollouts, two epochs, "
        "and has plain GRPO for the rest. "
        f"Made by `{record['command']}` on {machine['cpu']}, {machine['cores']} cores, {record['seconds_of_runs'] / 3600:.1f} hours of "
        f"runs (one thread each), {', '.join(f'{k} {v}' for k, v in record['versions'].items())}."
    )


def _bounds(found: Mapping[str, Any]) -> str:
    if found["low"] is None:
        return f"{found['difference']:+.3f}"
    return f"{found['difference']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"


def plan(specs: Sequence[Any]) -> str:
    """How many runs of what."""
    counts: dict[str, int] = {}
    for spec in specs:
        counts[spec.setting] = counts.get(spec.setting, 0) + 1
    return ", ".join(f"{count} at {TITLES.get(name, name)}" for name, count in counts.items())


__all__ = ["METHOD", "meaning", "page", "plan", "table", "verdicts"]
