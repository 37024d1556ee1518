"""Where the processes of a run leave their beats for each other: the store of the launch, or files in the run's folder.

Everything here may block for as long as a network or a file system likes, so it runs in a thread of its own, and whoever
needs a beat takes the last one that came.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

PREFIX = "posttrain/watch/"


class StoreBoard:
    """The TCP store that torch's processes met at; a connection of our own, so that nothing waits behind a collective."""

    fresh = True
    """Beats here are of this launch: each has a store of its own."""

    def __init__(self, address: str, port: int, world: int):
        from torch.distributed import TCPStore

        self.where = f"{address}:{port}"
        self._store = TCPStore(address, port, None, False, timedelta(seconds=20), wait_for_workers=False)
        self._missing = set(range(world))

    def put(self, rank: int, text: str) -> None:
        self._store.set(f"{PREFIX}{rank}", text)

    def read(self, ranks: list[int]) -> dict[int, str]:
        """Rank -> text, for those that have left one."""
        self._missing -= {r for r in list(self._missing) if self._store.check([f"{PREFIX}{r}"])}
        there = [r for r in ranks if r not in self._missing]
        if not there:
            return {}
        texts = self._store.multi_get([f"{PREFIX}{r}" for r in there])
        return {r: text.decode(errors="replace") for r, text in zip(there, texts, strict=True)}


class FileBoard:
    """Files in the run's folder, which all processes share."""

    fresh = False

    def __init__(self, folder: Path):
        self.folder = folder

    def put(self, rank: int, text: str) -> None:
        self.folder.mkdir(exist_ok=True)  # not its parents: a run's folder that was removed stays away
        part = self.folder / f".r{rank}"
        part.write_text(text)
        os.replace(part, self.folder / f"r{rank}.json")

    def read(self, ranks: list[int]) -> dict[int, str]:
        found = {}
        for rank in ranks:
            try:
                found[rank] = (self.folder / f"r{rank}.json").read_text(errors="replace")
            except OSError:
                continue
        return found

    def remove(self, rank: int) -> None:
        for name in (f"r{rank}.json", f".r{rank}"):
            (self.folder / name).unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()


class Courier:
    """Carries this process's beat out and the others' in, again and again.

    Args:
        mine: text of this process's beat now.
        heard: called with rank, text and whether it is fresh, for every beat that is there.
        pause: seconds between two rounds, asked anew each time.
    """

    def __init__(
        self,
        rank: int,
        world: int,
        mine: Callable[[], str],
        heard: Callable[[int, str, bool], None],
        pause: Callable[[], float],
    ):
        self.rank = rank
        self.others = [r for r in range(world) if r != rank]
        self.world = world
        self.trouble = ""
        """Why the store is not used; empty if it is."""
        self._mine, self._heard, self._pause = mine, heard, pause
        self._store: StoreBoard | None = None
        self._files: FileBoard | None = None
        self._closing = threading.Event()
        self._soon = threading.Event()
        self._round = threading.Condition()
        self._rounds = 0
        self.last = time.monotonic()
        """When the last round was finished."""
        self._thread = threading.Thread(target=self._work, name="watch-courier", daemon=True)
        self._thread.start()

    def use_files(self, folder: Path) -> None:
        files = FileBoard(folder)
        with suppress(OSError):
            files.remove(self.rank)  # of an earlier launch that was cut off
        self._files = files

    def flush(self, timeout: float) -> bool:
        """Wait until a beat that is made from now on has gone out; False if that took longer than `timeout` seconds."""
        self.hurry()
        with self._round:
            wanted = self._rounds + 2  # the round that is under way may have taken the beat before
            return self._round.wait_for(lambda: self._rounds >= wanted, timeout)

    def hurry(self) -> None:
        """The next round is now."""
        self._soon.set()

    def close(self, timeout: float = 5.0) -> None:
        """End the thread. One that is in the store's C++ when the interpreter ends would take the process down with SIGABRT."""
        self._closing.set()
        self._soon.set()
        self._thread.join(timeout)

    def _work(self) -> None:
        self._connect()
        while True:
            self._exchange()
            self.last = time.monotonic()
            with self._round:
                self._rounds += 1
                self._round.notify_all()
            if self._closing.is_set():
                break
            self._soon.wait(self._pause())
            self._soon.clear()
        if self._files is not None:
            with suppress(OSError):
                self._files.remove(self.rank)

    def _connect(self) -> None:
        address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT", "")
        if not address or not port.isdigit():
            self.trouble = "no MASTER_ADDR and MASTER_PORT"
            return
        try:
            self._store = StoreBoard(address, int(port), self.world)
        except Exception as error:
            self.trouble = f"the store at {address}:{port} does not answer ({type(error).__name__})"

    def _exchange(self) -> None:
        text = self._mine()
        board: Any = self._store
        if board is not None:
            try:
                board.put(self.rank, text)
                for rank, found in board.read(self.others).items():
                    self._heard(rank, found, True)
            except Exception as error:
                # It lives in the launcher or in process 0; if that is gone, the files go on.
                self.trouble = f"the store at {board.where} does not answer ({type(error).__name__})"
                self._store = None
        if self._files is None:
            return
        try:
            if self._store is None:
                self._files.put(self.rank, text)
            for rank, found in self._files.read(self.others).items():
                self._heard(rank, found, False)
        except OSError:
            return  # a full disk, or the folder is gone: the next round tries again
