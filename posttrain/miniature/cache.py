"""Things that take a minute to make and are the same each time: made once, kept by a hash of all that made them.

    ~/.cache/posttrain/miniature/arithmetic-base-3f2a…/    ($POSTTRAIN_CACHE, $XDG_CACHE_HOME/posttrain)

An entry appears whole or not at all. Of several processes that want one, the first makes it and the others wait.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from posttrain.errors import Mistake

MADE = "made.json"
"""In each entry: what it was made of, when, and in how many seconds."""


def folder() -> Path:
    """Where entries are kept: `$POSTTRAIN_CACHE`, else the user's cache directory."""
    if given := os.environ.get("POSTTRAIN_CACHE"):
        return Path(given).expanduser()
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "posttrain"
    base = "~/Library/Caches" if sys.platform == "darwin" else "~/.cache"
    return Path(base).expanduser() / "posttrain"


def fingerprint(*modules: ModuleType) -> str:
    """A hash of what the modules' code does: comments, docstrings and layout do not count."""
    digest = hashlib.blake2b(digest_size=8)
    for module in modules:
        assert module.__file__ is not None
        tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list):
                node.body = [line for line in body if not _is_text(line)]  # type: ignore[attr-defined]
        digest.update(f"{module.__name__}\n{ast.dump(tree)}\n".encode())
    return digest.hexdigest()


def _is_text(line: ast.AST) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


def versions() -> dict[str, str]:
    """Versions of the libraries whose arithmetic goes into an entry; looked up without importing them."""
    return {name: version(name) for name in ("torch", "transformers", "tokenizers")}


def key(ingredients: Mapping[str, Any]) -> str:
    """16 hex digits that stand for `ingredients` (JSON values)."""
    text = json.dumps(ingredients, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def cached(name: str, ingredients: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
    """The directory of the entry made of `ingredients`; if there is none, `make(directory)` fills it.

    Args:
        name: the readable part of the directory's name.
        ingredients: everything that decides the content, as JSON values.

    Raises:
        Mistake: the cache directory cannot be written.
    """
    from filelock import FileLock, Timeout

    home = folder() / "miniature"
    entry = home / f"{name}-{key(ingredients)}"
    if (entry / MADE).exists():
        return entry
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = FileLock(home / f".{entry.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _say(f"{name}: another process is making it; waiting")
            lock.acquire()
    except OSError as error:
        raise Mistake(
            f"{home}: the cache directory cannot be written ({error.strerror or error}); "
            "set POSTTRAIN_CACHE to one that can"
        ) from error
    try:
        if (entry / MADE).exists():
            return entry
        # Under the lock, whatever lies here unfinished belongs to a process that died.
        for left in [entry, *home.glob(f".{entry.name}.tmp-*")]:
            shutil.rmtree(left, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(dir=home, prefix=f".{entry.name}.tmp-"))
        try:
            begun = time.monotonic()
            make(draft)
            made = {"made_of": dict(ingredients), "seconds": round(time.monotonic() - begun, 1), "at": time.time()}
            (draft / MADE).write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            draft.chmod(0o755)
            os.replace(draft, entry)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        return entry
    finally:
        lock.release()


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)
