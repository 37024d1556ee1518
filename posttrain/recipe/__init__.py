"""Recipes: one YAML file (or the same mapping from Python) that says everything about a run."""

from posttrain.recipe.reading import load
from posttrain.recipe.schema import Recipe

__all__ = ["Recipe", "load"]
