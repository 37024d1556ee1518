"""From a name in a recipe to a Python object: `package.module:object`, `file.py:object`, or a short name of one seam.

A `Use` holds the path, not the object, so it can be sent to a worker process, which builds its own.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from posttrain.errors import Mistake


def resolve_path(use: str, short: Mapping[str, str] | None = None, where: str = "use") -> str:
    """The import path behind `use`; short names are looked up in `short`.

    Raises:
        Mistake: neither a short name nor an import path.
    """
    if ":" in use:
        return use
    names = dict(short or {})
    if use in names:
        return names[use]
    near = get_close_matches(use, names, n=1)
    hint = f'; did you mean "{near[0]}"?' if near else "."
    known = f"one of {', '.join(sorted(names))}, or " if names else ""
    raise Mistake(
        f'{where}: "{use}" is not known{hint} Use {known}an import path (package.module:object or file.py:object)'
    )


def load_object(path: str, where: str = "use") -> Any:
    """The object behind an import path. Files are imported once under a name made of their absolute path.

    Raises:
        Mistake: the module or object does not exist, or importing it fails.
    """
    module_name, _, attribute = path.rpartition(":")
    if not module_name or not attribute:
        raise Mistake(f'{where}: "{path}" is not an import path (package.module:object or file.py:object)')
    module = _module_of_file(module_name, where) if module_name.endswith(".py") else _module(module_name, where)
    target: Any = module
    for part in attribute.split("."):
        if not hasattr(target, part):
            names = [n for n in vars(target) if not n.startswith("_")] if hasattr(target, "__dict__") else []
            near = get_close_matches(part, names, n=1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise Mistake(f'{where}: {module_name} has no "{part}"{hint}')
        target = getattr(target, part)
    return target


def _module(name: str, where: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise Mistake(
            f'{where}: no module "{error.name}" (asked for {name}); is it installed, is the name right?'
        ) from error
    except Exception as error:
        raise Mistake(f"{where}: importing {name} failed: {type(error).__name__}: {_one_line(error)}") from error


def _module_of_file(name: str, where: str) -> Any:
    file = Path(name).expanduser().resolve()
    if not file.is_file():
        raise Mistake(f"{where}: no file {name} (looked in {Path.cwd()})")
    key = f"posttrain_user_{file.stem}_{hashlib.blake2b(str(file).encode(), digest_size=6).hexdigest()}"
    if key in sys.modules:
        return sys.modules[key]
    spec = importlib.util.spec_from_file_location(key, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[key] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[key]
        # sys.exit() at the top of a user's file would otherwise end the run without a word.
        if not isinstance(error, Exception | SystemExit):
            raise
        raise Mistake(f"{where}: {name} could not be imported: {type(error).__name__}: {_one_line(error)}") from error
    return module


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


@dataclass(frozen=True)
class Use:
    """An import path and the arguments beside it. Picklable; `build()` makes the object."""

    path: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    where: str = "use"

    def load(self) -> Any:
        return load_object(self.path, self.where)

    def build(self, **extra: Any) -> Any:
        """A class constructed with the arguments, or a function with them bound. `extra` are the seam's own.

        Raises:
            Mistake: an argument that the signature does not have, one it needs that is missing, or one that is not the
                recipe's to give.
        """
        target = self.load()
        for name in self.arguments:
            if name in extra:
                raise Mistake(f"{self.where}.with.{name}: is given by posttrain; leave it out")
        given = {**extra, **self.arguments}
        if inspect.isclass(target):
            check_arguments(target, given, self.where, complete=True)
            return target(**given)
        if not callable(target):
            if given:
                raise Mistake(f"{self.where}: {self.path} is not callable, so it takes no `with`")
            return target
        check_arguments(target, given, self.where, complete=False)
        if not given:
            return target
        bound = functools.partial(target, **given)
        functools.update_wrapper(bound, target)
        # With it, inspect.signature would show the bound arguments as still wanted.
        del bound.__wrapped__
        return bound

    __call__ = build


def check_arguments(target: Any, given: Mapping[str, Any], where: str, *, complete: bool) -> None:
    """Refuse arguments that `target`'s signature does not have; with `complete`, also missing ones.

    Raises:
        Mistake
    """
    for name, text in wrong_arguments(target, given, complete=complete):
        raise Mistake(f"{where}.with{f'.{name}' if name else ''}: {text}")


def wrong_arguments(target: Any, given: Mapping[str, Any], *, complete: bool) -> list[tuple[str | None, str]]:
    """What is wrong with calling `target(**given)`: (argument, or None for missing ones; what is wrong with it)."""
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        return []
    by_name = {n: p for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    called = getattr(target, "__name__", type(target).__name__)
    wrong: list[tuple[str | None, str]] = []
    for name in given:
        if name not in by_name and not takes_any:
            near = get_close_matches(name, by_name, n=1)
            hint = f'; did you mean "{near[0]}"?' if near else f"; it takes {', '.join(by_name) or 'none'}"
            wrong.append((name, f"unknown argument of {called}{hint}"))
    if complete:
        missing = [n for n, p in by_name.items() if p.default is p.empty and n not in given]
        if missing:
            wrong.append((None, f"{called} needs {', '.join(missing)}"))
    return wrong
