"""The recipes that come with posttrain: where they are, and copies of them to edit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from posttrain.errors import Mistake


def shelf() -> Path | None:
    """The folder of the recipes: package data of an installation, or `recipes/` of a checkout; None = neither."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "_recipes", package.parent / "recipes"):
        if folder.is_dir() and any(folder.glob("*.yaml")):
            return folder
    return None


def recipes() -> list[Path]:
    """Every recipe on the shelf, by name. (`accelerate/*.yaml` beside them are accelerate's own configuration files.)"""
    folder = shelf()
    return sorted(folder.glob("*.yaml")) if folder else []


def copy_recipe(name: str, to: Path) -> list[Path]:
    """Copy a recipe (or another file of the shelf) into the folder `to`, with the files that it extends and uses.

    Returns:
        The new files. Files that are there already with the same content are left alone.

    Raises:
        Mistake: no such recipe, or a different file of that name is there.
    """
    folder = shelf()
    if folder is None:
        raise Mistake("there are no recipes in this installation of posttrain")
    first = next((folder / n for n in (name, f"{name}.yaml") if _inside(folder, folder / n)), None)
    if first is None:
        from posttrain.recipe.faults import did_you_mean

        known = [p.stem for p in recipes()]
        raise Mistake(f'{name}: no such recipe{did_you_mean(name, known)} ("posttrain recipes ls" shows all)')
    made = []
    for source in dict.fromkeys([first, *_companions(first, folder)]):
        target = to / source.relative_to(folder)
        text = source.read_text(encoding="utf-8")
        if target.exists():
            if target.read_text(encoding="utf-8") != text:
                raise Mistake(f"{target}: is there already, with other content; move it or choose another folder")
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        made.append(target)
    return made


def _inside(folder: Path, path: Path) -> bool:
    return path.is_file() and path.resolve().is_relative_to(folder.resolve())


def _companions(path: Path, folder: Path) -> Iterator[Path]:
    """The other files of the shelf that a recipe names: what it extends, and `file.py:object`."""
    if path.suffix != ".yaml" or path.parent != folder:
        return
    from posttrain.recipe.text import parse

    values, _ = parse(path.read_text(encoding="utf-8"), path.name)
    bases = values.get("extends", [])
    for base in [bases] if isinstance(bases, str) else bases:
        yield folder / base
        yield from _companions(folder / base, folder)
    for text in _texts(values):
        file = folder / text.rpartition(":")[0]
        if file.suffix == ".py" and _inside(folder, file):
            yield file


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
