"""What is installed is what is here."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_is_listed():
    found = {
        ".".join(p.parent.relative_to(ROOT).parts)
        for top in ("posttrain", "rewards", "rollouts")
        for p in (ROOT / top).rglob("*.py")
        if "__pycache__" not in p.parts
    }
    assert set(SETTINGS["tool"]["setuptools"]["packages"]) == found | {"posttrain._recipes"}


def test_files_that_are_not_python_are_listed_too():
    data = SETTINGS["tool"]["setuptools"]["package-data"]
    for top in ("posttrain", "rewards", "rollouts"):
        for path in (ROOT / top).rglob("*"):
            if path.is_file() and path.suffix not in (".py", ".pyc", ".md"):
                package = ".".join(path.parent.relative_to(ROOT).parts)
                assert any(path.match(pattern) for pattern in data.get(package, [])), path
    shelf = ROOT / "recipes"
    for path in shelf.rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            assert any(path.relative_to(shelf).match(p) for p in data["posttrain._recipes"]), path


def test_nothing_but_the_agreed_folders_at_the_top():
    allowed = {"posttrain", "recipes", "rewards", "rollouts", "tests", "scripts"}
    known = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md"}
    made = {"runs", "evaluations", "build", "dist"}
    for path in ROOT.iterdir():
        if path.name.startswith(".") or path.name.endswith(".egg-info") or path.name in made | {"__pycache__"}:
            continue
        assert path.name in (allowed if path.is_dir() else known), path.name
