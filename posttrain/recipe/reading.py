"""A recipe file (or mapping) with its `extends` and overrides → a checked `Recipe`, without torch.

Precedence: defaults < `extends` from left to right < the file < overrides; how they merge: `posttrain.recipe.merging`.

Everything that is wrong is one line: `file:line: key.path: what is wrong`, `override "a.b=1": ...` or `recipe: ...`.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from posttrain import keys as secrets
from posttrain.errors import Mistake
from posttrain.recipe import faults, homes, private, rules
from posttrain.recipe.merging import Mark, Tree, forget, mark_of, marks_of_mapping, merge
from posttrain.recipe.schema import Recipe
from posttrain.recipe.shelf import shelf
from posttrain.recipe.text import MAX_BYTES, dotted, parse, plain, printable, show
from posttrain.recipe.text import Path as Keys

MOST_MISTAKES = 5
MOST_FILES = 100


@dataclass
class Loaded:
    """A checked recipe and where each of its keys came from."""

    recipe: Recipe
    values: dict[str, Any]
    """The merged mapping before defaults."""
    source: str
    """File as it was named, or `recipe` for a mapping."""
    text: str
    """What was given: the text of that file; a mapping as JSON, which is YAML too."""
    overrides: list[str]
    marks: dict[Keys, Mark] = field(repr=False)
    files: dict[str, str] = field(repr=False, default_factory=dict)
    """Every file that was read, by absolute path: its text."""

    def mistake(self, path: Keys | str, text: str) -> Mistake:
        """A `Mistake` about the key at `path` (dotted or a tuple), with its file and line."""
        return Mistake(self.line(path, text))

    def line(self, path: Keys | str, text: str) -> str:
        keys = split(path) if isinstance(path, str) else path
        return faults.line(mark_of(self.marks, keys, self.source).text, keys, text)

    def resolved(self) -> dict[str, Any]:
        """The recipe with every default, ready for JSON; reading it again gives the same recipe."""
        return self.recipe.model_dump(mode="json", by_alias=True)


@dataclass
class _Files:
    """The files that were read: absolute path → text, and how often any was."""

    texts: dict[str, str] = field(default_factory=dict)
    read: int = 0


def load(recipe: Mapping[str, Any] | str | os.PathLike[str], overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file, or in a mapping of the same shape, with `key.path=value` overrides.

    Raises:
        Mistake: one line for each of the first mistakes.
    """
    return read(recipe, overrides).recipe


def read(recipe: Mapping[str, Any] | str | os.PathLike[str], overrides: Sequence[str] = ()) -> Loaded:
    """As `load`, and where every key came from.

    Raises:
        Mistake
    """
    files = _Files()
    if isinstance(recipe, Mapping):
        values = plain(recipe)
        _refuse_private(values, {}, "recipe")
        given = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        source = "recipe"
        tree = _extended(values, marks_of_mapping(values), source, Path.cwd(), (), files)
    else:
        source = os.fspath(recipe)
        tree = _file(source, Path(source), (), files)
        given = files.texts[_absolute(Path(source))]
    for one in overrides:
        _override(tree, one)
    return _checked(tree, source, given, list(overrides), files)


def parse_value(text: str, where: str) -> Any:
    """The value of a word on a command line, read as a recipe's values are. `where` begins the message.

    Raises:
        Mistake
    """
    return parse(text, where)[0]


def split(path: str) -> Keys:
    """`rewards.0.weight` → `("rewards", 0, "weight")`."""
    return tuple(int(part) if part.isdecimal() and part.isascii() else part for part in path.split("."))


# Files and `extends`


def _absolute(path: Path) -> str:
    return os.path.abspath(path)


def _on_the_shelf(path: Path) -> str:
    """A hint for the name of a recipe that comes with posttrain."""
    folder = shelf()
    if folder is None or not any((folder / name).is_file() for name in (path.name, f"{path.name}.yaml")):
        return ""
    return f'; it is on the shelf: "posttrain recipes cp {path.name.removesuffix(".yaml")}" copies it here'


def _text_of(path: Path, said: str) -> str:
    """The text of a recipe file. `said` begins the message."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise Mistake(f"{said}no such file{_on_the_shelf(path)}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Mistake(f"{said}cannot be read: {printable(str(reason))}") from None
    if len(data) > MAX_BYTES:
        raise Mistake(f"{said}larger than {MAX_BYTES} bytes; a recipe is a page of text, is this the right file?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Mistake(f"{said}not UTF-8 text (byte {error.start}); is this a recipe?") from None


def _file(name: str, path: Path, chain: tuple[str, ...], files: _Files, said: str = "") -> Tree:
    """One file with all that it extends. `chain`: the files that led here, outermost first."""
    name = printable(name, 400)
    files.texts[_absolute(path)] = text = _text_of(path, said or f"{name}: ")
    files.read += 1
    values, lines = parse(text, name)
    if values is None:
        raise Mistake(f"{name}: empty; a recipe needs at least model, data, trainer and run")
    if not isinstance(values, dict):
        raise Mistake(
            f"{name}:1: a recipe is a mapping of keys (model, data, trainer, run, ...), this is {show(values)}"
        )
    folder = Path(_absolute(path)).parent
    _refuse_private(values, {keys: Mark(f"{name}:{line}") for keys, line in lines.items()}, name)
    for line, said in private.in_text(text):
        raise Mistake(f"{name}:{line}: {said}")
    marks = {keys: Mark(f"{name}:{line}", folder) for keys, line in lines.items()}
    return _extended(values, marks, name, folder, (*chain, _absolute(path)), files)


def _extended(
    values: dict[str, Any],
    marks: dict[Keys, Mark],
    name: str,
    folder: Path,
    chain: tuple[str, ...],
    files: _Files,
) -> Tree:
    """`values` laid over the recipes that its `extends` names."""
    own = Tree(
        {k: v for k, v in values.items() if k != "extends"}, {k: m for k, m in marks.items() if k[0] != "extends"}
    )
    if "extends" not in values:
        return own
    bases = values["extends"]
    listed = isinstance(bases, list)
    tree = Tree({}, {})
    for i, base in enumerate(bases if listed else [bases]):
        keys: Keys = ("extends", i) if listed else ("extends",)
        mark = mark_of(marks, keys, name)
        if not isinstance(base, str) or not base:
            raise Mistake(faults.line(mark.text, keys, f"should be a file name or a list of them, got {show(base)}"))
        if files.read >= MOST_FILES:
            raise Mistake(faults.line(mark.text, keys, f"more than {MOST_FILES} files"))
        found = _base(base, folder, mark, keys)
        if _absolute(found) in chain:
            raise Mistake(
                faults.line(mark.text, keys, f"{printable(base, 200)} extends this file in turn; break the circle")
            )
        said = faults.line(mark.text, keys, f"{printable(base, 200)}: ")
        beside = _shown(found, name, base)
        tree = merge(tree, _file(beside, found, chain, files, said))
    return merge(tree, own)


def _base(base: str, folder: Path, mark: Mark, keys: Keys) -> Path:
    """The file that `extends` means: beside the recipe, else on the shelf."""
    if "\0" not in base and (why := _no_file_name(base)) is not None:
        raise Mistake(faults.line(mark.text, keys, f"{show(base)} cannot be the name of a file: {why}"))
    beside = folder / Path(base).expanduser()
    on_shelf = shelf()
    for candidate in [beside, *([on_shelf / base] if on_shelf is not None else [])]:
        if os.path.exists(candidate) if "\0" not in base else False:
            return candidate
    near = (
        faults.did_you_mean(Path(base).name, sorted(p.name for p in folder.glob("*.yaml"))) if folder.is_dir() else ""
    )
    looked = f"{folder}" + (f" and {on_shelf}" if on_shelf is not None and on_shelf != folder else "")
    raise Mistake(faults.line(mark.text, keys, f'no file "{printable(base, 200)}" (looked in {looked}){near}'))


def _shown(found: Path, extending: str, base: str) -> str:
    """How to name an extended file in messages: relative as its extender was named."""
    if os.path.isabs(base) or extending == "recipe":
        return str(found)
    beside = Path(extending).parent / base
    return str(beside) if os.path.exists(beside) else str(found)


# Overrides


def _override(tree: Tree, text: str) -> None:
    """Set one `key.path=value` in `tree`.

    Raises:
        Mistake: no such form, path, index, or value.
    """
    mark = Mark(f'override "{printable(secrets.hide_assignment(text))}"')
    name, equals, value_text = text.partition("=")
    if not equals or not name or any(not part for part in name.split(".")):
        raise Mistake(f"{mark.text}: should be key.path=value, for example trainer.args.learning_rate=1e-5")
    keys = split(name)
    if keys[0] == "extends":
        raise Mistake(f"{mark.text}: `extends` belongs in the file, it cannot be overridden")
    if len(keys) > 20:
        raise Mistake(f"{mark.text}: nested deeper than 20 levels")
    value, _ = parse(value_text, mark.text)
    nested: Any = value
    for key in reversed(keys):
        nested = {str(key): nested}
    _refuse_private(nested, {}, mark.text)
    words = name.split(".")
    here: Any = tree.values
    path: Keys = ()
    for i, key in enumerate(keys):
        last = i == len(keys) - 1
        if isinstance(here, list):
            _index(here, key, path, mark)
        elif isinstance(here, dict):
            key = words[i]  # a mapping's keys are text, whatever they look like
            if not last:
                _step_into(here, key, keys[i + 1], (*path, key), mark, tree.marks)
        else:
            raise Mistake(f"{mark.text}: {dotted(path)} is {show(here)}, it has no key {printable(str(key), 40)}")
        path = (*path, key)
        if last:
            forget(tree.marks, path)
            here[key] = value
            tree.marks[path] = mark
        else:
            here = here[key]


def _step_into(
    here: dict[str, Any], key: str, following: str | int, path: Keys, mark: Mark, marks: dict[Keys, Mark]
) -> None:
    """Make sure that `here[key]` is something that has keys or items, if it may."""
    if key not in here:
        if isinstance(following, int):
            raise Mistake(f"{mark.text}: there is no {dotted(path)} in the recipe, so no item {following}")
        here[key] = {}
        marks[path] = mark
    elif path in {("rollouts", "engine"), ("rollouts", "strategy")} and isinstance(here[key], str):
        here[key] = {"use": here[key]}  # the short form


def _refuse_private(values: Any, marks: dict[Keys, Mark], source: str) -> None:
    """Raises:
    Mistake: there is something in `values` that no recipe may hold.
    """
    found = list(private.forbidden(values))
    if found:
        lines = [faults.line(mark_of(marks, keys, source).text, keys, text) for keys, text in found]
        raise Mistake("\n".join(lines[:MOST_MISTAKES]))


def _index(items: list[Any], key: str | int, path: Keys, mark: Mark) -> None:
    if not isinstance(key, int):
        raise Mistake(f"{mark.text}: {dotted(path)} is a list; give an index, for example {dotted(path)}.0")
    if key >= len(items):
        has = f"{len(items)} item{'s' if len(items) != 1 else ''}" + (f" (0 to {len(items) - 1})" if items else "")
        raise Mistake(f"{mark.text}: {dotted(path)} has {has}, there is no {key}")


# Checking


def _checked(tree: Tree, source: str, given: str, overrides: list[str], files: _Files) -> Loaded:
    def fail(wrong: list[tuple[Keys, str]]) -> Mistake:
        lines = [faults.line(mark_of(tree.marks, keys, source).text, keys, text) for keys, text in wrong]
        more = f" (and {len(lines) - MOST_MISTAKES} more)" if len(lines) > MOST_MISTAKES else ""
        return Mistake("\n".join(lines[:MOST_MISTAKES]) + more)

    if wrong := [*_file_names(tree.values)] or _file_references(tree):
        raise fail(wrong)
    try:
        recipe = Recipe.model_validate(tree.values)
    except ValidationError as error:
        raise fail(faults.translate(error, tree.values)) from None
    if wrong := [*homes.misplaced(recipe), *rules.broken(recipe)]:
        raise fail(wrong)
    return Loaded(recipe, tree.values, source, given, overrides, tree.marks, files.texts)


def _file_names(values: dict[str, Any]) -> Iterator[tuple[Keys, str]]:
    """What cannot be the name of a file, where one may be named."""
    for keys, holder, key in [*_references(values), *_places(values)]:
        name = holder[key].rpartition(":")[0] or holder[key]
        if "\0" not in name and (why := _no_file_name(name)) is not None:
            yield keys, f"{show(holder[key])} cannot be the name of a file: {why}"


def _no_file_name(name: str) -> str | None:
    """Why the system could not even look for a file of that name; None = it could."""
    try:
        os.stat(Path(name).expanduser())
    except RuntimeError:
        return "there is no such user"
    except ValueError as error:
        return printable(str(error))
    except OSError as error:
        return error.strerror if error.errno in (errno.ENAMETOOLONG, errno.ELOOP) else None
    return None


def _file_references(tree: Tree) -> list[tuple[Keys, str]]:
    """Make `file.py:object` absolute in place: beside the recipe that says it, else in the working directory."""
    wrong: list[tuple[Keys, str]] = []
    for keys, holder, key in list(_references(tree.values)):
        value = holder[key]
        file, _, name = value.rpartition(":")
        if not file.endswith(".py") or not name:
            continue
        folder = mark_of(tree.marks, keys, "").folder
        folders = list(dict.fromkeys(f for f in (folder, Path.cwd()) if f is not None))
        candidates = [f / Path(file).expanduser() for f in folders] if "\0" not in file else []
        found = next((c for c in candidates if c.is_file()), None)
        if found is None:
            looked = " and ".join(str(f) for f in folders)
            wrong.append((keys, f"no file {printable(file, 200)} (looked in {looked})"))
        else:
            holder[key] = f"{os.path.abspath(found)}:{name}"
    return wrong


def _places(values: dict[str, Any]) -> Iterator[tuple[Keys, Any, str]]:
    """Every text that names a file or folder and is no import path: (its keys, the mapping that holds it, its key there)."""
    data, evaluation = values.get("data"), values.get("evaluation")
    for path, holder, key in (
        (("model",), values.get("model"), "chat_template"),
        (("adapter",), values.get("adapter"), "start_from"),
        (("run",), values.get("run"), "directory"),
        *((("data", part), data.get(part), "path") for part in ("train", "eval") if isinstance(data, dict)),
        *(
            (("evaluation", i), one, "path")
            for i, one in enumerate(evaluation if isinstance(evaluation, list) else [])
        ),
        *(
            (("evaluation", i, "adaptive"), one.get("adaptive"), "bank")
            for i, one in enumerate(evaluation if isinstance(evaluation, list) else [])
            if isinstance(one, dict)
        ),
    ):
        if isinstance(holder, dict) and isinstance(holder.get(key), str):
            yield (*path, key), holder, key


def _references(values: dict[str, Any]) -> Iterator[tuple[Keys, Any, str]]:
    """Every text that may be an import path: (its keys, the mapping that holds it, its key there)."""

    def of(holder: Any, path: Keys, key: str) -> Iterator[tuple[Keys, Any, str]]:
        if isinstance(holder, dict) and isinstance(holder.get(key), str):
            yield (*path, key), holder, key

    yield from of(values.get("model"), ("model",), "name")
    yield from of(values.get("trainer"), ("trainer",), "algorithm")
    for part in ("engine", "strategy"):
        rollouts = values.get("rollouts")
        yield from of(rollouts, ("rollouts",), part)
        if isinstance(rollouts, dict):
            yield from of(rollouts.get(part), ("rollouts", part), "use")
    for part in ("train", "eval"):
        if isinstance(values.get("data"), dict):
            yield from of(values["data"].get(part), ("data", part), "use")
    for part, key in (("rewards", "use"), ("evaluation", "benchmark")):
        items = values.get(part)
        for i, item in enumerate(items if isinstance(items, list) else []):
            yield from of(item, (part, i), key)
