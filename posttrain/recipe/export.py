"""The schema of recipes as JSON Schema, for editors: completion, types and the meaning of every key."""

from __future__ import annotations

from typing import Any

from posttrain.recipe.schema import Recipe

ALWAYS = {"model": "name", "data": "train", "run": "name"}
"""Part of a recipe → the one key that it cannot do without."""


def schema_json() -> dict[str, Any]:
    """JSON Schema (2020-12) of a recipe file.

    A file that `extends` others may leave anything out, so the keys that a whole recipe needs are asked for only where
    there is no `extends`.
    """
    schema = Recipe.model_json_schema(by_alias=True)
    needed = schema.pop("required")
    for part, key in ALWAYS.items():
        schema["$defs"][part.capitalize()]["required"].remove(key)
    schema["properties"]["extends"] = {
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        "title": "Extends",
        "description": "Recipe file, or files from left to right, that this one builds on; relative to this file, else on "
        "the shelf. Mappings merge, lists are replaced whole.",
    }
    schema["if"] = {"required": ["extends"]}
    schema["else"] = {
        "required": needed,
        "properties": {part: {"required": [key]} for part, key in ALWAYS.items()},
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "posttrain recipe"}
