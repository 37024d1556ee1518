"""RL and preference-optimization post-training for LLMs. Importing this imports nothing else."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def load(recipe: dict[str, Any] | str, overrides: list[str] | None = None) -> Any:
    """A checked recipe from a mapping or a file, as `posttrain.recipe.load` gives it."""
    from posttrain.recipe import load as load_recipe

    return load_recipe(recipe, overrides or [])
