"""Checkpoints as files: which are whole, which is the newest, which stay. Nothing here knows what is in them.

runs/NAME/checkpoints/checkpoint-N holds the state after optimiser step N. It is whole if its manifest, `posttrain.json`, is
there and fits: the manifest is written last, after every other file is on the disk, and lists each with its size and digest. What
was cut off in mid-write has none; what was altered since does not fit. Neither is ever loaded.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import hashlib
import json
import logging
import math
import os
import re
import shutil
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from posttrain import terminal
from posttrain.errors import Mistake
from posttrain.rundir import RunDir, read_lines, write_atomic

MANIFEST = "posttrain.json"
FORMAT = 1
DIGESTED = 256 * 2**20
"""Bytes of the largest file whose content is digested. Of larger ones the size is compared; the trained weights among them are
compared by value when they are loaded (`Manifest.weights`)."""
READ_RESTRICTED = (
    "optimizer.pt",
    "optimizer.bin",
    "scheduler.pt",
    "scaler.pt",
    "rng_state*.pth",
    "pytorch_model_fsdp.bin",
    "training_args.bin",
)
"""Pickles that a checkpoint may hold: states that transformers and accelerate read with `weights_only`, which runs no code, and
the arguments, which are never read."""
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".distcp")

log = logging.getLogger("posttrain.checkpoints")


@dataclass(frozen=True)
class Manifest:
    """What a whole checkpoint says of itself."""

    folder: Path
    step: int
    """Optimiser steps taken."""
    world: int
    """Processes that wrote it."""
    reason: str
    """`schedule`, or `stopped: ...`."""
    created: float
    """Unix seconds."""
    files: dict[str, dict[str, Any]]
    """Path in the folder -> `size` in bytes, `digest` (BLAKE2b as hex; None beyond `DIGESTED`)."""
    weights: str = ""
    """Digest of the values of the trained weights."""
    ledger: dict[str, Any] = field(default_factory=dict)
    metric: float | None = None
    """What the keep rule looks at, measured at this step; None = not measured."""


def folder_of(run: RunDir, step: int) -> Path:
    return run.checkpoints / f"checkpoint-{step}"


def all_of(run: RunDir) -> list[tuple[int, Path]]:
    """(step, folder) of every checkpoint folder, whole or not, oldest first."""
    found = []
    for path in run.checkpoints.glob("checkpoint-*") if run.checkpoints.is_dir() else ():
        if (match := re.fullmatch(r"checkpoint-(\d{1,12})", path.name, re.ASCII)) and path.is_dir():
            found.append((int(match[1]), path))
    return sorted(found)


# Writing


def seal(
    folder: Path,
    *,
    step: int,
    world: int = 1,
    reason: str = "schedule",
    weights: str = "",
    ledger: Mapping[str, Any] | None = None,
    metric: float | None = None,
) -> Manifest:
    """Make the checkpoint in `folder` whole. Call it on the main process, when every process has written its files.

    Raises:
        OSError: a file cannot be brought to the disk (it is full, say); then the folder is not a checkpoint.
        Mistake: a file among them that a resume would refuse.
    """
    (folder / MANIFEST).unlink(missing_ok=True)
    refuse_pickles(folder)
    files = {}
    for name, path in _files(folder):
        _sync(path)
        files[name] = _facts(path)
    for place in [*(p for p in folder.rglob("*") if p.is_dir()), folder]:
        _sync(place)
    manifest = Manifest(
        folder=folder,
        step=step,
        world=world,
        reason=terminal.line(reason, 500),
        created=time.time(),
        files=files,
        weights=weights,
        ledger=dict(ledger or {}),
        metric=metric if metric is not None and math.isfinite(metric) else None,
    )
    write_atomic(folder / MANIFEST, _render(manifest))
    _sync(folder)
    _sync(folder.parent)
    return manifest


def discard(folder: Path) -> None:
    """Remove a checkpoint, whole or not. One that is cut off while it goes is not whole any more."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def rotate(run: RunDir, keep: int, keep_best: int = 0, best: Literal["highest", "lowest"] = "highest") -> list[int]:
    """Remove the whole checkpoints that neither are among the last `keep` nor among the best `keep_best` of all.

    Only whole ones count. The newest always stays. Of equally good ones the newer is better.

    Returns:
        The steps of those that were removed.
    """
    known = [found for _, path in all_of(run) if isinstance(found := _read(path), Manifest)]
    stay = {m.step for m in known[-max(1, keep) :]}
    sign = 1.0 if best == "highest" else -1.0
    measured = [m for m in known if m.metric is not None]
    measured.sort(key=lambda m: (sign * m.metric, m.step), reverse=True)  # type: ignore[operator]
    stay |= {m.step for m in measured[:keep_best]}
    gone = [m for m in known if m.step not in stay]
    for manifest in gone:
        discard(manifest.folder)
    return [m.step for m in gone]


def measure(run: RunDir, metric: str | None, step: int) -> float | None:
    """What the keep rule looks at, for the checkpoint of `step`: the accuracy of the benchmark of that name if it was asked
    at that step, else the metric that was logged at it (`eval_...` of the held-out rows). None if there is neither."""
    if metric is None:
        return None
    for path in (run.root / "evaluation").glob(f"step-{step:06d}-*/result.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            result = json.loads(path.read_bytes())
            if metric in (result["benchmark"], path.parent.name.removeprefix(f"step-{step:06d}-")):
                return float(result["metrics"]["accuracy"]["value"])
    phase, name = ("eval", metric[5:]) if metric.startswith("eval_") else ("train", metric)
    value = None
    for record in read_lines(run.metrics):
        if record.get("step") == step and record.get("phase") == phase:
            value = record.get(name, value)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    log.warning(
        "the checkpoint of step %d counts as unmeasured: there is no %s of that step", step, terminal.line(metric)
    )
    return None


def disk_trouble(error: BaseException) -> str | None:
    """Why the disk did not take what was written, if that is what `error` says: `the disk is full`, ...; else None.

    safetensors and torch do not raise `OSError`; their messages are read instead.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _TROUBLE:
            return _TROUBLE[seen.errno]
        text = str(seen)
        for code, words in _TROUBLE.items():
            if f"(os error {code})" in text or os.strerror(code) in text:
                return words
        if "PytorchStreamWriter" in text or "inline_container" in text:
            return "the disk is full"  # all that torch.save says of it
        seen = seen.__cause__ or seen.__context__
    return None


_TROUBLE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than is allowed here",
    errno.EIO: "the disk does not work (I/O error)",
    errno.EROFS: "the disk is read-only",
}


# Reading


def whole(folder: Path) -> Manifest | None:
    """The manifest of `folder` if the checkpoint in it is whole, else None."""
    found = examine(folder)
    return found if isinstance(found, Manifest) else None


def examine(folder: Path) -> Manifest | str:
    """The manifest of `folder`, or what is wrong with the checkpoint in it."""
    manifest = _read(folder)
    if isinstance(manifest, str):
        return manifest
    for name, facts in manifest.files.items():
        try:
            path = folder / name
            if path.is_symlink() or not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != facts["size"]:
                return f"{name} has {path.stat().st_size} bytes instead of {facts['size']}"
            if facts["digest"] is not None and _digest(path) != facts["digest"]:
                return f"{name} was altered"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return manifest


def newest(run: RunDir) -> Manifest | None:
    """The newest whole checkpoint of a run. Newer ones that are not whole are named in the log and left alone.

    Raises:
        Mistake: it holds pickled weights.
    """
    for _, folder in reversed(all_of(run)):
        found = examine(folder)
        if isinstance(found, Manifest):
            refuse_pickles(folder)
            return found
        log.warning("%s is not whole and is not used: %s", terminal.line(folder), terminal.line(found))
    return None


def sweep(run: RunDir) -> None:
    """Make way for what will be written: what was cut off is removed, what was whole once and is not now is moved aside
    (as damaged-N). Call it when the run is claimed, on the main process."""
    for step, folder in all_of(run):
        if isinstance(examine(folder), Manifest):
            continue
        if not (folder / MANIFEST).exists():
            discard(folder)
            continue
        aside, serial = folder.with_name(f"damaged-{step}"), 1
        while aside.exists():
            serial += 1
            aside = folder.with_name(f"damaged-{step}~{serial}")
        os.rename(folder, aside)


def refuse_pickles(folder: Path) -> None:
    """Raises:
    Mistake: `folder` holds a pickle that is not one of those which are read without running code.
    """
    for name, path in _files(folder):
        if not any(fnmatch.fnmatch(name, allowed) for allowed in READ_RESTRICTED) and is_pickle(path):
            raise Mistake(
                f"{folder}: {terminal.line(name)} is pickled, and a pickle can run code; checkpoints hold weights as safetensors "
                "only. Remove the folder to go on from an older one, or begin anew with --restart"
            )


def is_pickle(path: Path) -> bool:
    """True if reading the file as weights would unpickle it: by its name, and by what is in it."""
    if path.suffix.lower() in PICKLED:
        return True
    try:
        with path.open("rb") as file:
            head = file.read(9)
        # safetensors begin with the size of their header, which may look like the beginning of a pickle, and with the header.
        if (
            path.suffix == ".safetensors"
            and head[8:] == b"{"
            and int.from_bytes(head[:8], "little") < path.stat().st_size
        ):
            return False
        if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
            return True
        if head[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(path) as archive:
                return any(name.endswith(".pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile, ValueError):
        return False
    return False


# Inside


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """(path in the folder, path) of every file but the manifest and files that are still being written, by name."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        name = path.relative_to(folder).as_posix()
        if name != MANIFEST and not name.startswith(f".{MANIFEST}."):
            yield name, path


def _facts(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    return {"size": size, "digest": _digest(path) if size <= DIGESTED else None}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL or not path.is_dir():  # some file systems cannot sync a folder
            raise
    finally:
        os.close(handle)


def _record(manifest: Manifest) -> dict[str, Any]:
    names = ("step", "world", "reason", "created", "files", "weights", "ledger", "metric")
    return {"format": FORMAT, **{name: getattr(manifest, name) for name in names}}


def _render(manifest: Manifest) -> str:
    """The manifest's text. Its last entry is a digest of the rest, so that a manifest which was altered fits nothing."""
    record = _record(manifest)
    text = json.dumps(record, indent=1, allow_nan=False)
    digest = hashlib.blake2b(text.encode(), digest_size=32).hexdigest()
    return json.dumps({**record, "seal": digest}, indent=1, allow_nan=False) + "\n"


def _is_shaped(manifest: Manifest) -> bool:
    """True if every value is of its kind: a manifest can be written by anyone."""

    def number(value: Any, *kinds: type) -> bool:
        return isinstance(value, kinds) and not isinstance(value, bool)

    def facts(value: Any) -> bool:
        return (
            isinstance(value, dict)
            and set(value) == {"size", "digest"}
            and number(value["size"], int)
            and isinstance(value["digest"], str | None)
        )

    return (
        number(manifest.step, int)
        and number(manifest.world, int)
        and number(manifest.created, int, float)
        and (manifest.metric is None or number(manifest.metric, int, float))
        and isinstance(manifest.reason, str)
        and isinstance(manifest.weights, str)
        and isinstance(manifest.ledger, dict)
        and isinstance(manifest.files, dict)
        and all(map(facts, manifest.files.values()))
    )


def _read(folder: Path) -> Manifest | str:
    """The manifest alone, or what is wrong with it; the files that it lists are not looked at."""
    try:
        text = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        return "it was never finished"
    except OSError as error:
        return f"{MANIFEST} cannot be read ({error.strerror})"
    try:
        record = json.loads(text)
        if record["format"] != FORMAT:
            return f"{MANIFEST} has format {record['format']!r:.20}, this posttrain reads {FORMAT}"
        del record["format"], record["seal"]
        manifest = Manifest(folder=folder, **record)
        fits = _render(manifest).encode() == text
        match = re.fullmatch(r"checkpoint-(\d+)", folder.name)
        if not fits or not _is_shaped(manifest) or match is None or int(match[1]) != manifest.step:
            return f"{MANIFEST} was altered"
    except (ValueError, TypeError, KeyError, RecursionError):
        return f"{MANIFEST} was altered"
    return manifest
