"""A small valid recipe, and a way to write it to a file."""

import copy
import json
from pathlib import Path

import pytest

VALID = json.loads((Path(__file__).parent / "valid.json").read_text())


@pytest.fixture
def valid():
    return copy.deepcopy(VALID)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a file into an empty working directory; its bare name is returned, as a user would type it."""
    monkeypatch.chdir(tmp_path)

    def write(text, name="recipe.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
        return name

    return write
