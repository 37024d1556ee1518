"""What the faults happen to: folders, servers, runs. Made when first asked for, shared where that saves time, ended together."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos.proxy import Proxy
from chaos.run import Run, Watched
from chaos.served import KEY, VLLM, engine

HERE = Path(__file__).parent


@dataclass
class ServerRun:
    """A run that samples from two servers, each behind a proxy."""

    run: Run
    proxies: tuple[Proxy, Proxy]
    servers: tuple[VLLM, ...]
    """What is behind them: two, or one behind both."""
    patience: float
    """Seconds that it waits for a server when none is left."""


class World:
    """
    Args:
        long: no hurry: two real servers, time limits nearer to the defaults, each reward in a run of its own.
    """

    def __init__(self, folder: Path | None = None, long: bool = False):
        self.long = long
        self.root = Path(tempfile.mkdtemp(prefix="posttrain-chaos-")) if folder is None else folder
        self._own = folder is None
        self._serial = 0
        self._servers: list[VLLM] = []
        self._proxies: list[Proxy] = []
        self._made: list[Watched] = []
        self._mounts: list[Path] = []
        self._serving: ServerRun | None = None
        self.rewarding: dict[str, Run] = {}
        """Runs whose rewards misbehave, by what they are asked to do."""
        self.bare_rewards: dict[str, Any] = {}
        """What bare TRL came to with a reward, by its name: settings of ours make no difference to it."""

    def folder(self, name: str) -> Path:
        """A new one, with the misbehaving rewards in it."""
        self._serial += 1
        made = self.root / f"{self._serial:02d}-{name}"
        made.mkdir(parents=True)
        shutil.copy(HERE / "misrewards.py", made)
        return made

    def watch(self, made: Watched) -> Watched:
        """End it when the world ends, whatever happens."""
        self._made.append(made)
        return made

    def run(self, folder: Path, *words: str, **options) -> Run:
        return self.watch(Run(folder, *words, **options))  # type: ignore[return-value]

    def vllm(self, count: int = 1) -> list[VLLM]:
        """So many real servers, up."""
        while len(self._servers) < count:
            self._servers.append(VLLM(self.root, f"vllm{len(self._servers)}"))
        for server in self._servers[:count]:
            if server.process is not None and server.process.poll() is not None:
                server.start()
            server.wait()
        return self._servers[:count]

    def proxy(self, server: VLLM, **options) -> Proxy:
        self._proxies.append(Proxy(server.url, KEY, **options))
        return self._proxies[-1]

    def serving(self, patience: float = 10.0) -> ServerRun:
        """The run that samples from servers; a new one if the last has ended, or has another patience."""
        now = self._serving
        if now is not None and now.run.ended is None and now.patience != patience:
            now.run.kill()
            now.run.wait(30)
        if now is not None and now.run.ended is None:
            for proxy in now.proxies:
                proxy.set("well")
            return now
        servers = self.vllm(2 if self.long else 1)
        proxies = (self.proxy(servers[0]), self.proxy(servers[-1]))
        limits = {"timeout": 30 if self.long else 20, "health_interval": 1, "patience": patience, "retries": 8}
        limits["takeover"] = "true"  # a run that was ended here may have left its adapter there
        run = self.run(
            self.folder("servers"),
            engine([p.url for p in proxies], **limits),
            "trainer.args.max_steps=100000",
            "checkpoints.every=1",
        )
        self._serving = ServerRun(run, proxies, tuple(servers), patience)
        if run.wait_step(3) is None:
            raise RuntimeError(f"the run did not start: {run.said()[-3000:]}")
        return self._serving

    def small_disk(self, name: str, mib: int) -> Path | None:
        """A file system of so many MiB; None where none can be mounted."""
        place = self.folder(name) / "runs"
        place.mkdir()
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(place)], capture_output=True, check=False
        )
        if made.returncode != 0:
            return None
        self._mounts.append(place)
        return place

    def close(self) -> None:
        for made in self._made:
            if made.process.poll() is None:
                made.kill()
        for proxy in self._proxies:
            with suppress(OSError):
                proxy.close()
        for server in self._servers:
            server.kill()
        for place in self._mounts:
            subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)
        if self._own:
            shutil.rmtree(self.root, ignore_errors=True)
