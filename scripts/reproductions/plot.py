"""The curves with their bands, as a PNG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reproductions.arms import BY_NAME, METHOD, PLAIN
from reproductions.words import TITLES

COLOURS = {PLAIN: "#555555", METHOD: "#c0392b"}
OTHERS = ("C0", "C1", "C2", "C4", "C5", "C6", "C8", "C9")
"""Of matplotlib's cycle, without its red and its grey."""


def draw(record: Mapping[str, Any], file: Path) -> None:
    """A panel a setting: mean held-out score against rollouts, the line its mean over seeds, the band from the lowest to the highest
    seed. Needs matplotlib (in the `dev` extra)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    settings = record["arms"]
    figure, axes = pyplot.subplots(1, len(settings), figsize=(5.2 * len(settings), 4.2), sharey=True, squeeze=False)
    for axis, (setting, arms) in zip(axes[0], settings.items(), strict=True):
        others = [arm for arm in arms if arm not in COLOURS]
        for arm, seeds in arms.items():
            curves = [{x: y for x, y, *_ in one["curve"]} for one in seeds.values()]
            places = sorted(set.intersection(*map(set, curves)))
            if not places:
                continue
            values = [[curve[x] for curve in curves] for x in places]
            colour = COLOURS.get(arm) or OTHERS[others.index(arm) % len(OTHERS)]
            strong = arm in COLOURS
            middle = [sum(v) / len(v) for v in values]
            axis.plot(
                places,
                middle,
                color=colour,
                lw=2.4 if strong else 1.2,
                label=BY_NAME[arm].title,
                zorder=3 if strong else 2,
            )
            axis.fill_between(
                places, [min(v) for v in values], [max(v) for v in values], color=colour, alpha=0.12, lw=0
            )
        axis.set_title(TITLES[setting])
        axis.set_xlabel("rollouts")
        axis.grid(alpha=0.25)
    axes[0][0].set_ylabel("mean score, held out, never scaffolded")
    most = max(axes[0], key=lambda a: len(a.get_lines()))
    figure.legend(*most.get_legend_handles_labels(), loc="lower center", ncols=5, frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0.11, 1, 1))
    figure.savefig(file, dpi=130)
    pyplot.close(figure)
