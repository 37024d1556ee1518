"""Verdicts on disk: what was judged once is not asked again. One SQLite file in WAL mode, shared by any number of processes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

BUSY = 30.0
"""Seconds that a process waits for another one's write."""
MANY = 500
"""Keys in one query."""
_TABLE = (
    "CREATE TABLE IF NOT EXISTS verdicts "
    "(key BLOB PRIMARY KEY, met INTEGER NOT NULL, explanation TEXT NOT NULL, made REAL NOT NULL) WITHOUT ROWID"
)

Entry = tuple[bool, str]
"""(met, explanation)"""


def key_of(parts: Sequence[Any]) -> bytes:
    """16 bytes that stand for conversation, response, criterion, judge, sampling, template and vote."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode("ascii"), digest_size=16).digest()


class Cache:
    """The file, made with its first verdict. Failures are never in it: only verdicts are put. One that cannot be read or written
    later is done without, once said in the log.

    Raises:
        ValueError: it cannot be opened, or is no such file; one line.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path).expanduser()
        self._lock = threading.Lock()
        self._open: tuple[int, sqlite3.Connection] | None = None
        self._said = False
        try:
            if self.path.exists():
                with self._lock:
                    self._connection()
            else:
                _can_be_made(self.path)
        except (OSError, sqlite3.Error) as error:
            raise ValueError(f"judge.cache: {self.path} cannot be used: {error}") from error

    def get(self, keys: Iterable[bytes]) -> dict[bytes, Entry]:
        """Those of the keys that have a verdict."""
        wanted = list(dict.fromkeys(keys))
        found: dict[bytes, Entry] = {}
        try:
            if not self.path.exists():
                return found
            with self._lock:
                for at in range(0, len(wanted), MANY):
                    part = wanted[at : at + MANY]
                    marks = ",".join("?" * len(part))
                    rows = self._connection().execute(
                        f"SELECT key, met, explanation FROM verdicts WHERE key IN ({marks})", part
                    )
                    found.update((key, (bool(met), why)) for key, met, why in rows)
        except (OSError, sqlite3.Error) as error:
            self._say(error)
        return found

    def put(self, entries: Iterable[tuple[bytes, Entry]]) -> None:
        """Keep verdicts, at once and for good. The first verdict of a key stays."""
        # A lone surrogate, which a model can write, has no place in SQLite's text.
        rows = [(key, int(met), why.encode("utf-8", "replace").decode(), time.time()) for key, (met, why) in entries]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._lock, self._connection() as connection:
                connection.executemany("INSERT OR IGNORE INTO verdicts VALUES (?, ?, ?, ?)", rows)
        except (OSError, sqlite3.Error) as error:
            self._say(error)

    def close(self) -> None:
        with self._lock:
            if self._open is not None and self._open[0] == os.getpid():
                self._open[1].close()
            self._open = None

    def _connection(self) -> sqlite3.Connection:
        # A connection must not be carried over a fork.
        if self._open is None or self._open[0] != os.getpid():
            connection = sqlite3.connect(self.path, timeout=BUSY, check_same_thread=False)
            _write_ahead(connection)
            connection.execute("PRAGMA synchronous=NORMAL")
            with connection:
                connection.execute(_TABLE)
            self._open = (os.getpid(), connection)
        return self._open[1]

    def _say(self, error: OSError | sqlite3.Error) -> None:
        if not self._said:
            self._said = True
            log.warning(
                "rewards: the judge's cache %s cannot be used (%s); verdicts are asked for anew", self.path, error
            )


def _write_ahead(connection: sqlite3.Connection) -> None:
    """For this one change SQLite does not wait by itself while another process has the file that both have just made."""
    until = time.monotonic() + BUSY
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF in (
                sqlite3.SQLITE_BUSY,
                sqlite3.SQLITE_LOCKED,
            )  # the rest says of what kind
            if not busy or time.monotonic() > until:
                raise
            time.sleep(0.01)


def _can_be_made(path: Path) -> None:
    """Nothing is made here: whoever only plans a run leaves nothing behind.

    Raises:
        OSError: the file could not be made.
    """
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"nothing may be written to {folder}")
