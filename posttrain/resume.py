"""Going on where a run was cut: may it (is it still the same run?), and what must go before anything is appended.

What a launch is made of is its resolved recipe, the local files that the recipe names, and the number of processes. Each launch
leaves a line in `launches.jsonl` with the digests of those files, so the next one can tell what has changed since.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from posttrain import terminal
from posttrain.rundir import RunDir, write_atomic

FREE = (
    "checkpoints",
    "preflight",
    "watch",
    "run.directory",
    "run.report_to",
    "rewards.*.timeout",
    "rewards.*.processes",
    "rewards.*.memory",
    "rollouts.engine.with.urls",
    "rollouts.engine.with.timeout",
    "rollouts.engine.with.retries",
    "rollouts.engine.with.health_interval",
    "rollouts.engine.with.patience",
    "rollouts.engine.with.wait",
    "rollouts.engine.with.concurrency",
    "rollouts.engine.with.path_map",
    "rollouts.engine.with.takeover",
    "rollouts.engine.with.api_key_env",
    "trainer.args.disable_tqdm",
)
"""Settings that may change from launch to launch (with all below them): none of them changes what is trained."""

OURS = ("posttrain", "rewards", "rollouts")
HASHED = 256 * 2**20
"""Bytes up to which a local file is digested whole; of a larger one, its size, its first and its last MiB."""
ABSENT = "(not given)"
MOST_SHOWN = 5

_FILE = re.compile(r"(?P<file>.+\.py):(?P<name>[^:/\\]+)")
_MODULE = re.compile(r"(?P<module>[A-Za-z_][\w.]*):[A-Za-z_][\w.]*", re.ASCII)
_PLUGGED_IN = (
    "*.use",
    "rollouts.engine",
    "rollouts.strategy",
    "trainer.algorithm",
    "evaluation.*.benchmark",
    "model.name",
)
_PATHS = ("model.name", "model.chat_template", "adapter.start_from", "data.*.path", "evaluation.*.path",
          "evaluation.*.adaptive.bank")  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it was: `key` is dotted, as overrides are written."""

    key: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.key}: {self.old} → {self.new}"

    @property
    def free(self) -> bool:
        """True if it changes nothing of what is trained."""
        return any(fnmatchcase(self.key, pattern) or fnmatchcase(self.key, f"{pattern}.*") for pattern in FREE)


def differences(old: Any, new: Any, key: str = "") -> list[Difference]:
    """What differs between two resolved recipes, the whole of it where a part is missing on one side.

    A user's file is known by its name here, not by its folder: whether it was altered, its digest tells.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = [*old, *(name for name in new if name not in old)]
        return [d for n in names for d in differences(old.get(n, _NONE), new.get(n, _NONE), f"{key}.{n}".lstrip("."))]
    if isinstance(old, list) and isinstance(new, list):
        pairs = range(max(len(old), len(new)))
        return [d for i in pairs for d in differences(_at(old, i), _at(new, i), f"{key}.{i}")]
    if isinstance(old, bool) == isinstance(new, bool) and _bare(old) == _bare(new):
        return []
    return [Difference(key, _show(old), _show(new))]


_NONE = object()


def _at(items: list[Any], index: int) -> Any:
    return items[index] if index < len(items) else _NONE


def _bare(value: Any) -> Any:
    if isinstance(value, str) and (match := _FILE.fullmatch(value)):
        return f"{Path(match['file']).name}:{match['name']}"
    return value


def _show(value: Any) -> str:
    if value is _NONE:
        return ABSENT
    return terminal.line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), 80)


# Local files


def digests(resolved: Mapping[str, Any]) -> dict[str, str]:
    """Digest of every local file and folder that a resolved recipe names, by `key (name)`.

    These are user code (`file.py:object` wherever it stands; modules of others that are plugged in), data, chat template, a
    local model and an adapter to start from. What those import or read in turn is not followed.
    """
    found = {}
    for key, value in _texts(resolved):
        if (path := _local(key, value)) is not None and (digest := digest_of(path)) is not None:
            found[f"{key} ({path.name})"] = digest
    return found


def altered(old: Mapping[str, str], new: Mapping[str, str]) -> list[Difference]:
    """Files that both know and that are not the same any more. (A file that only one of them names differs in the recipe.)"""
    return [
        Difference(key, digest[:8], f"{new[key][:8]}, the file was altered")
        for key, digest in old.items()
        if key in new and new[key] != digest
    ]


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _texts(inner, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _texts(inner, f"{key}.{i}")
    elif isinstance(value, str):
        yield key, value


def _matches(key: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _local(key: str, value: str) -> Path | None:
    try:
        if match := _FILE.fullmatch(value):
            return _there(Path(match["file"]))
        if _matches(key, _PLUGGED_IN) and (match := _MODULE.fullmatch(value)):
            return _source_of(match["module"])
        return _there(Path(value)) if _matches(key, _PATHS) else None
    except (OSError, ValueError):
        return None  # a name that no file can have


def _there(path: Path) -> Path | None:
    path = path.expanduser()
    return path if path.exists() else None


def _source_of(module: str) -> Path | None:
    """The file of a module that is not ours."""
    if module.split(".")[0] in OURS:
        return None
    loaded = sys.modules.get(module)
    try:
        origin = loaded.__file__ if loaded is not None else getattr(importlib.util.find_spec(module), "origin", None)
    except Exception:  # finding a module imports the packages around it, which may raise anything
        return None
    return _there(Path(origin)) if isinstance(origin, str) else None


def digest_of(path: Path) -> str | None:
    """Sixteen hexadecimal digits of a file, or of a folder's files with their names; None if it cannot be read."""
    state = hashlib.blake2b(digest_size=8)
    try:
        files = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.is_file() and p.name[0] != ".")
        for file in files:
            size = file.stat().st_size
            state.update(json.dumps(["" if file == path else file.name, size]).encode())
            with file.open("rb") as stream:
                if size <= HASHED:
                    while block := stream.read(2**20):
                        state.update(block)
                else:
                    state.update(stream.read(2**20))
                    stream.seek(size - 2**20)
                    state.update(stream.read(2**20))
    except OSError:
        return None
    return state.hexdigest()


# Launches


def last_launch(run: RunDir) -> dict[str, Any]:
    """The last line of `launches.jsonl` that can be read; empty if there is none."""
    last: dict[str, Any] = {}
    for _, record in _records(run.launches):
        if record is not None:
            last = record
    return last


def since(launch: Mapping[str, Any], now: Mapping[str, Any], old: Any, new: Any) -> list[Difference]:
    """All that has changed since a launch: in the recipe, in the files that it names, in the number of processes.

    Args:
        launch: the line of the earlier launch (empty = there is none).
        now: the line of this one.
        old: the resolved recipe of the earlier one; None = there is none, so nothing is known of it.
        new: this one's.
    """
    found = [] if old is None else differences(old, new)
    was, files = launch.get("files"), now["files"]
    if isinstance(was, Mapping):
        found += altered({k: v for k, v in was.items() if isinstance(v, str)}, files)
    before = launch.get("processes")
    if isinstance(before, int) and before != now["processes"]:
        found.append(Difference("processes", str(before), str(now["processes"])))
    return found


def other_versions(launch: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`torch 2.12.0 → 2.13.0` for each package whose version is not that of the earlier launch."""
    was, are = launch.get("versions"), now["versions"]
    if not isinstance(was, Mapping):
        return []
    names = [*was, *(n for n in are if n not in was)]
    return [
        terminal.line(f"{n} {was.get(n, 'none')} → {are.get(n, 'none')}", 80)
        for n in names
        if was.get(n) != are.get(n)
    ]


def refusal(run: RunDir, found: list[Difference]) -> str:
    """The line that refuses to go on with another recipe."""
    shown = "; ".join(map(str, found[:MOST_SHOWN]))
    more = f" (and {len(found) - MOST_SHOWN} more)" if len(found) > MOST_SHOWN else ""
    return (
        f"{run.root}: this would go on with something else than it began with: {shown}{more}. Begin anew with --restart, go "
        "on all the same with --resume-anyway (it is recorded), or give another name (run.name=...)"
    )


# Cutting back


def cut_back(run: RunDir, step: int) -> None:
    """Take out of the run what was written after the state of `step`, which it goes on from. Main process only.

    Stays: metrics up to `step`; faults and rollouts of generations before it (those made from the state of `step` itself are
    made again; the held-out rows were asked before the state was saved); evaluations of steps up to it; `before`. Each file
    is replaced whole or not at all, and doing it twice changes nothing.
    """
    _keep_lines(run.launches, lambda r: True)
    _keep_lines(run.metrics, lambda r: _step(r) <= step and r.get("phase") != "summary")
    _keep_lines(run.faults, lambda r: _step(r) < step)
    for path in sorted(run.rollouts.glob("*.jsonl")) if run.rollouts.is_dir() else ():
        if match := re.fullmatch(r"(\d{1,12})-r\d+", path.stem, re.ASCII):
            made = int(match[1])
            if made > step:
                path.unlink()
            elif made == step:
                _keep_lines(path, lambda r: r.get("phase") == "eval")
                if not path.stat().st_size:
                    path.unlink()
    for folder in sorted((run.root / "evaluation").glob("*")) if (run.root / "evaluation").is_dir() else ():
        if folder.is_dir() and _made_after(folder, step):
            shutil.rmtree(folder)
    for folder in sorted(run.adapters.glob("v*")) if run.adapters.is_dir() else ():
        if re.fullmatch(r"v\d{1,12}", folder.name, re.ASCII) and int(folder.name[1:]) > step:
            shutil.rmtree(folder)
    for result in (run.adapter, run.model):
        if result.is_dir():
            shutil.rmtree(result)


def cut_lines(run: RunDir, step: int, count: int) -> None:
    """Of the metrics of `step`, leave the first `count` lines. Main process only."""
    left = iter(range(count))
    _keep_lines(run.metrics, lambda r: _step(r) < step or (_step(r) == step and next(left, None) is not None))


def _made_after(folder: Path, step: int) -> bool:
    """True for an evaluation of a policy that the run has not reached yet at `step`."""
    if match := re.match(r"step-(\d{1,12})-", folder.name, re.ASCII):
        return int(match[1]) > step
    if not folder.name.startswith("after-"):
        return False
    versions = [r.get("version") for _, r in _records(folder / "samples.jsonl") if r is not None]
    return any(version != step for version in versions)


def _step(record: Mapping[str, Any]) -> float:
    step = record.get("step")
    return step if isinstance(step, int | float) and not isinstance(step, bool) else float("inf")


def _records(path: Path) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    """(line, its object or None if it holds none) of a file that may be cut or damaged; nothing if it is not there."""
    try:
        file = path.open("rb")
    except OSError:
        return
    with file:
        for line in file:
            try:
                record = json.loads(line) if line.endswith(b"\n") else None
            except (ValueError, RecursionError):
                record = None
            yield line, record if isinstance(record, dict) else None


def _keep_lines(path: Path, keep: Any) -> None:
    """Rewrite a file of JSON lines with those that `keep` says; lines that are none go."""
    if not path.exists():
        return
    kept, dropped = [], False
    for line, record in _records(path):
        if record is not None and keep(record):
            kept.append(line)
        else:
            dropped = True
    if dropped:
        write_atomic(path, b"".join(kept).decode("utf-8", errors="replace"))
