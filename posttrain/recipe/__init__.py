"""Recipes: one YAML file (or the same mapping from Python) that says everything about a run."""

from posttrain.recipe.reading import Loaded, load, read
from posttrain.recipe.schema import Recipe
from posttrain.recipe.shelf import shelf

__all__ = ["Loaded", "Recipe", "load", "read", "shelf"]
