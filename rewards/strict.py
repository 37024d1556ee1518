"""YAML and JSON in which a key that stands twice is an error: the readers take the last one without a word."""

from __future__ import annotations

import json
from collections.abc import Hashable
from typing import Any


def from_json(text: str) -> Any:
    """
    Raises:
        ValueError: it is not JSON, or has a key twice in one object.
        RecursionError: it is nested too deeply.
    """
    return json.loads(text, object_pairs_hook=_once)


def from_yaml(text: str) -> Any:
    """
    Raises:
        yaml.YAMLError: it is not YAML, or has a key twice in one mapping.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
            seen = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    if key.value in seen:
                        raise yaml.constructor.ConstructorError(
                            problem=f"{key.value!r:.60} stands twice", problem_mark=key.start_mark
                        )
                    seen.add(key.value)
            return super().construct_mapping(node, deep)

    return yaml.load(text, Loader)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r:.60} stands twice")
    return found
