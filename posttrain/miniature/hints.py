"""Scaffolds in the words that the miniature of behaviours was taught: `[ACF -BG]`."""

from __future__ import annotations

from collections.abc import Sequence

from posttrain.miniature.behaviours import hint
from rollouts.records import Row
from rollouts.strategies import hints
from rollouts.strategies.scaffold import Scaffold


class Hints(Scaffold):
    """`scaffold` of criteria, told by their codes: those to show, then those to avoid. All its settings are `Scaffold`'s."""

    def text(self, row: Row, shown: Sequence[int]) -> str:
        items = hints.criteria(row, self.column)
        told = [(items[i].text.partition(":")[0], items[i].points) for i in shown]
        return hint([codes for codes, points in told if points > 0], [codes for codes, points in told if points < 0])
