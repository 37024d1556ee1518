"""Where the recipes that come with posttrain are."""

from __future__ import annotations

from pathlib import Path


def shelf() -> Path | None:
    """The folder of the recipes that come with posttrain: package data of an installation, or `recipes/` of a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "_recipes", package.parent / "recipes"):
        if folder.is_dir() and any(folder.glob("*.yaml")):
            return folder
    return None


def recipes() -> list[Path]:
    """Every recipe on the shelf, by name. (`accelerate/*.yaml` are accelerate's own configuration files.)"""
    folder = shelf()
    return sorted(folder.glob("*.yaml")) if folder else []
