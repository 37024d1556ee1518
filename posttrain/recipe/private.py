"""What no recipe may hold, wherever it stands: keys and passwords, and leave for code from the hub.

A recipe is copied into the run, onto its page and to other people, so a key in it would be everywhere; and whoever starts a
recipe of someone else's must not give leave by doing so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from posttrain import keys
from posttrain.recipe.text import Path

TRUST = "belongs on the command line (--trust-remote-code), so that no recipe gives leave to run code from the hub"
_VARIABLE = re.compile(r"POSTTRAIN_[A-Z0-9_]{1,80}")
_KEY_ENV = re.compile(r"(?i)(?:key|token|secret|passw(?:or)?d)_env$")
_COLUMNS = (("data", "train", "columns"), ("data", "eval", "columns"))
"""Names of columns are the data's own."""


def forbidden(value: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Every value under `path` that no recipe may hold: its path, and where it belongs. Values are never repeated."""
    if isinstance(value, dict):
        for name, inner in value.items():
            here = (*path, name)
            text = None if path in _COLUMNS else _named(name, inner, path)
            if text is not None:
                yield here, text
            else:
                yield from forbidden(inner, here)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from forbidden(inner, (*path, i))
    elif isinstance(value, str):
        if (kind := keys.kind_of(value)) is not None:
            yield path, f"looks like {kind}; {_where(path)}"
        elif _plain(value.partition("=")[0]) == "trustremotecode":
            yield path, TRUST


def in_text(text: str) -> Iterator[tuple[int, str]]:
    """Lines (from 1) of a recipe's text with something that looks like a key, in a comment say."""
    for number, one in enumerate(text.split("\n"), 1):
        if (kind := keys.kind_of(one)) is not None:
            yield number, f"looks like {kind}; a recipe is copied into the run, comments and all, so take it out"


def _named(name: str, value: Any, path: Path) -> str | None:
    if _plain(name) == "trustremotecode":
        return TRUST
    if value is None or isinstance(value, dict | list | bool):
        return None
    if keys.is_secret(name) and (name.lower() != "token" or path[:2] == ("rollouts", "engine")):
        return f"a key or password does not belong in a recipe, which is copied into the run; {_where((*path, name))}"
    if _KEY_ENV.search(name) and not (isinstance(value, str) and _VARIABLE.fullmatch(value)):
        return (
            "should be the name of an environment variable that begins with POSTTRAIN_ (what it holds is sent to whom the "
            "recipe names, so others are not for a recipe to choose)"
        )
    return None


def _where(path: Path) -> str:
    if path[:2] == ("rollouts", "engine"):
        return "put it into the environment variable POSTTRAIN_VLLM_KEY, or into a file that POSTTRAIN_VLLM_KEY_FILE names"
    if path[:2] == ("trainer", "args"):
        return "set HF_TOKEN, WANDB_API_KEY, ... in the environment, or log in (`hf auth login`)"
    return "let the code read it from the environment (if it is no secret, give it another name)"


def _plain(name: str) -> str:
    return re.sub("[-_]", "", name).lower()
