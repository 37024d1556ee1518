"""Strategies by short name. A recipe may give any import path instead."""

STRATEGIES = {
    "single": "rollouts.strategies.single:SingleTurn",
    "scaffold": "rollouts.strategies.scaffold:Scaffold",
}
