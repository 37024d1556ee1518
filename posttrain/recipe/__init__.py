"""Recipes: one YAML file (or the same mapping from Python) that says everything about a run."""

from posttrain.recipe.export import schema_json
from posttrain.recipe.reading import Loaded, load, read
from posttrain.recipe.schema import Recipe
from posttrain.recipe.shelf import copy_recipe, recipes, shelf

__all__ = ["Loaded", "Recipe", "copy_recipe", "load", "read", "recipes", "schema_json", "shelf"]
