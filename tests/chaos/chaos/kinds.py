"""How each kind of fault is given, and what is measured."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from chaos.proxy import Mode, Proxy
from chaos.run import ROOT, Bare, Run
from chaos.world import World

PATIENCE_WITH_BARE = 40.0
"""Seconds that bare TRL is watched for after the fault; then it is ended."""
RETRIES_OF_BARE = 80.0
"""Seconds that its client needs for all its retries, when it is refused."""
RESTART = 25.0
"""Seconds that a vLLM server takes to come up here."""


class Skip(Exception):
    """It cannot be given here; the message says why."""


@dataclass
class Result:
    """What came of a fault. Seconds count from the moment at which it was given."""

    code: int | None
    """Exit code; None = it goes on."""
    seconds: float | None
    """Until the step in flight was done, or until the process ended. None = it did neither while it was watched."""
    line: str = ""
    """What it said about it."""
    steps_lost: int | None = None
    """Steps that were done and are not in what was kept, or that the same command had to do again."""
    rows_lost: int | None = None
    """Rollouts that were made and could not be trained on."""
    asked_twice: int | None = None
    """Completions that were asked for more than once."""
    note: str = ""
    wrong: list[str] = field(default_factory=list)
    """What was found that must never be."""

    def outcome(self) -> str:
        if self.seconds is None:
            return "waits"
        return "goes on" if self.code is None else f"ends, exit {self.code}"


def _rows_are_right(run: Run, rows: int, wrong: list[str], since: int = 0) -> None:
    """Each step has its rollouts, each once, by the policy of that step."""
    for step, count in sorted(Counter(r["step"] for r in run.rollouts()).items()):
        # The last one may be unfinished: it is written as a whole, but the run may have ended before.
        if step >= since and count != rows:
            wrong.append(f"step {step} has {count} rollouts, not {rows}")
    every = [(r["step"], r["row_id"], r["sample"]) for r in run.rollouts()]
    if len(set(every)) != len(every):
        wrong.append(f"{len(every) - len(set(every))} rollouts are there twice")
    if late := [r for r in run.rollouts() if r["version"] != r["step"]]:
        wrong.append(f"{len(late)} rollouts of another policy than their step's")


def _steps_follow(run: Run, wrong: list[str]) -> None:
    steps = [m["step"] for m in run.lines("metrics.jsonl") if m.get("phase") == "train"]
    if steps != list(range(1, len(steps) + 1)):
        wrong.append(f"metrics.jsonl has the steps {steps[:40]}")


# -- servers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Servers:
    """A fault of one server, or of both, in mid-generation: the third request of a generation brings it about."""

    do: Mode | Literal["kill", "stop"]
    """A mode of the proxies; or a signal to the real server: SIGKILL, SIGSTOP."""
    both: bool = False
    lasts: float | None = 4.0
    """Seconds until both are well again; None = never. One server is well again when the run has gone on for two steps."""
    patience: float = 10.0

    def ours(self, world: World) -> Result:
        serving = world.serving(self.patience)
        run, proxies = serving.run, serving.proxies
        hit = proxies if self.both else proxies[:1]
        given: list[float] = []

        def give() -> None:
            given.append(time.monotonic())
            if self.do == "kill":
                for server in set(serving.servers) if self.both else serving.servers[:1]:
                    server.signal(signal.SIGKILL)
            elif self.do == "stop":
                for server in set(serving.servers) if self.both else serving.servers[:1]:
                    server.signal(signal.SIGSTOP)
            else:
                for proxy in hit:
                    proxy.set(self.do)

        run.wait_step(run.step + 2, 120)
        heard = len(run.said())
        hit[0].arm(give)
        until = time.monotonic() + 60
        while not given and run.ended is None and time.monotonic() < until:
            time.sleep(0.005)
        if not given:
            return Result(run.process.poll(), None, note="the fault was never given", wrong=[run.said()[-500:]])
        at, step = given[0], run.step
        wrong: list[str] = []
        if self.both and self.lasts is None:
            code = run.wait(self.patience + 120)
            kept = run.kept()
            line = run.line(r"^posttrain: stopped", heard) or run.line(r"^posttrain: ", heard) or ""
            _rows_are_right(run, 16, wrong)
            return Result(
                code, _since(run.ended, at), line, max(0, step - kept), 0, self._twice(proxies, at), wrong=wrong
            )
        if self.both:
            time.sleep(self.lasts or 0.0)
            self._mend(serving, hit)
            done = run.wait_after(at, 180)
        else:
            done = run.wait_after(at, 180)
            run.wait_step(run.step + 1, 180)
            self._mend(serving, hit)
        line = run.wait_line(r"vllm-server engine: ", heard, 1.0) or ""
        if line:
            back = run.wait_line(r"vllm-server engine: \S+ is back", heard, 60.0)
            if back is None:
                wrong.append("a server that was well again was not taken back")
        run.wait_step(run.step + 2, 120)
        if run.ended is not None:
            wrong.append(f"the run ended: {run.said()[heard:][-500:]}")
        _rows_are_right(run, 16, wrong)
        _steps_follow(run, wrong)
        # Nothing that a spoiled answer said was trained on: sampler and trainer agree on every token.
        gaps = [m.get("sampling/sampling_logp_difference/max") or 0.0 for m in run.lines("metrics.jsonl")]
        if max(gaps, default=0.0) > 1e-3:
            wrong.append(f"sampler and trainer differ by {max(gaps)} nats")
        code = run.process.poll()
        return Result(code, _since(done, at), line, 0, 0, self._twice(proxies, at), wrong=wrong)

    def _mend(self, serving: Any, hit: tuple[Proxy, ...]) -> None:
        mended = set(serving.servers) if self.both else set(serving.servers[:1])
        if self.do == "kill":
            for server in mended:
                server.process.wait()
                server.start()
            for server in mended:
                server.wait()
        elif self.do == "stop":
            for server in mended:
                server.signal(signal.SIGCONT)
        for proxy in hit:
            proxy.set("well")

    @staticmethod
    def _twice(proxies: tuple[Proxy, ...], at: float) -> int:
        asked = Counter(which for proxy in proxies for when, which in list(proxy.asked) if when >= at - 30)
        return sum(n - 1 for n in asked.values())

    def bare(self, world: World) -> Result:
        """TRL's client knows one server, so its server has the fault."""
        server = world.vllm(1)[0]
        proxy = world.proxy(server)
        watched = Bare("bare_client.py", world.folder("client"), url=proxy.url, rounds=100000)
        world.watch(watched)
        if watched.wait_step(3, 120) is None:
            raise RuntimeError(watched.said()[-2000:])
        given: list[float] = []

        def give() -> None:
            given.append(time.monotonic())
            if self.do == "stop":
                server.signal(signal.SIGSTOP)
            else:  # a port at which nobody listens any more is all that a client sees of a killed server
                proxy.set("gone" if self.do == "kill" else self.do)

        def mend() -> None:
            server.signal(signal.SIGCONT)
            proxy.set("well")

        proxy.arm(give)
        while not given and watched.ended is None:
            time.sleep(0.005)
        try:
            if self.lasts is not None and self.both:
                time.sleep(RESTART if self.do == "kill" else self.lasts)
                mend()
            waits = self.do in ("hang", "stop")
            done = watched.wait_after(given[0], PATIENCE_WITH_BARE if waits else RETRIES_OF_BARE)
        finally:
            mend()
        code = watched.process.poll()
        result = Result(code, _since(done or watched.ended, given[0]), note="its client alone, with its one server")
        result.line = watched.last_line() if code is not None else ""
        if code is None:
            watched.kill()
        return result


def _since(moment: float | None, at: float) -> float | None:
    return None if moment is None else max(0.0, moment - at)


# -- rewards ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reward:
    """A reward of the user's that misbehaves on one row in fifty, or at every call."""

    name: str
    """In misrewards.py."""
    kind: str | None
    """What `faults.jsonl` calls it; None = no row is at fault."""
    processes: int = 0
    memory: float | None = None
    skip: bool = True
    """`on_error: skip_row`; else the default, `fail`."""
    words: tuple[str, ...] = ()
    steps: int = 6

    def setting(self) -> str:
        parts = [f"use: misrewards.py:{self.name}", f"name: {self.name}", "timeout: 2"]
        if self.processes:
            parts.append(f"processes: {self.processes}")
        if self.memory is not None:
            parts.append(f"memory: {self.memory}")
        if self.skip:
            parts.append("on_error: {do: skip_row, at_most: 0.3}")
        return "{" + ", ".join(parts) + "}"

    def start(self, world: World, together: list[Reward]) -> Run:
        settings = ", ".join(one.setting() for one in together)
        return world.run(
            world.folder("reward-" + "-".join(one.name for one in together)[:40]), f"rewards=[{settings}]",
            f"trainer.args.max_steps={self.steps}", "trainer.args.per_device_train_batch_size=64",
            "rollouts.sampling.temperature=3", "checkpoints.every=1", *self.words,
        )  # fmt: skip

    def ours(self, world: World, together: list[Reward] | None = None) -> Result:
        key = self.setting() if together is None else "together"
        run = world.rewarding.get(key)
        if run is None:
            run = world.rewarding[key] = self.start(world, together or [self])
        code = run.wait(300)
        wrong: list[str] = []
        faults = [f for f in run.lines("faults.jsonl") if f["reward"] == self.name]
        kinds = {f["kind"] for f in faults}
        if self.kind is not None and kinds != {self.kind}:
            wrong.append(f"the faults are {kinds}, not {self.kind}")
        if self.kind is None and faults:
            wrong.append(f"there are faults: {faults[0]}")
        rows = run.rollouts()
        if bad := [r for r in rows if r["rewards"].get(self.name) is None and not r["faults"]]:
            wrong.append(f"{len(bad)} rows have no number and no fault")
        if code == 0:
            _rows_are_right(run, 64, wrong)
            _steps_follow(run, wrong)
            line = f"{faults[0]['kind']}: {faults[0]['text']}" if faults else ""
            line = line or run.line(r"worker process has grown") or ""
            rows_lost = len({(f["step"], f["row"]) for f in faults})
            return Result(None, self._until_next(run), line, 0, rows_lost, 0, self._usual(run), wrong=wrong)
        line = run.line(r"^posttrain: stopped") or run.line(r"^posttrain: ") or run.said().strip().splitlines()[-1]
        lost = max(0, run.step - run.kept())
        return Result(code, _since(run.ended, self._struck(run)[0]), line, lost, 0, 0, wrong=wrong)

    def _struck(self, run: Any) -> list[float]:
        """When it misbehaved (monotonic); one that does at every call, as the steps were done."""
        file = run.folder / f"struck-{self.name}"
        return [float(x) for x in file.read_text().split()] if file.exists() else run.moments or [run.began]

    def _until_next(self, run: Any) -> float | None:
        """Seconds from there until the step was done: the most of all."""
        struck = self._struck(run)
        return max(
            (next(m for m in run.moments if m > at) - at for at in struck if at < (run.moments or [0.0])[-1]),
            default=None,
        )

    def _usual(self, run: Any) -> str:
        return f"a step takes {run.usual:.1f} s"

    def bare(self, world: World) -> Result:
        if self.name not in world.bare_rewards:
            world.bare_rewards[self.name] = self._bare(world)
        return world.bare_rewards[self.name]

    def _bare(self, world: World) -> Result:
        run = Bare("bare_train.py", world.folder(f"bare-{self.name}"), reward=self.name, steps=self.steps, batch=64)
        world.watch(run)
        run.wait_step(1, 120)
        code = run.wait(PATIENCE_WITH_BARE + 20)
        if "ready" not in run.out.read_text().split():  # it fell for a reason of its own
            raise RuntimeError(run.said()[-2000:])
        if code is None:
            grown = _resident(run.process.pid)
            run.kill()
            return Result(None, None, note=f"after {run.step} of {self.steps} steps; {grown} MiB held")
        if code == 0:
            logs = [json.loads(x) for x in run.out.read_text().splitlines() if x.startswith('{"')]
            broken = sum(any(str(v) in ("nan", "inf", "-inf") for v in x.values()) for x in logs)
            note = f"{broken} of {len(logs)} steps with NaN in their log" if broken else "nothing is said"
            if peak := re.findall(r"^peak (\d+)$", run.out.read_text(), re.MULTILINE):
                note += f"; {peak[-1]} MiB held at the end"
            return Result(0, self._until_next(run), note=note)
        at = self._struck(run)[-1]
        return Result(code, _since(run.ended, at), run.last_line(), run.step, note="no checkpoint is made of it")


def _resident(pid: int) -> int:
    sys.path.insert(0, str(ROOT))
    from rewards.memory import held

    return (held(pid) or 0) >> 20


# -- ranks -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rank:
    """Process 1 of 2 is killed or stopped in mid-run, or the run is told to end."""

    number: int
    target: Literal["rank 1", "launcher"] = "rank 1"
    words: tuple[str, ...] = ()
    lifts: float | None = None

    def ours(self, world: World) -> Result:
        folder = world.folder("ranks")
        words = ("trainer.args.max_steps=100000", "trainer.args.per_device_train_batch_size=8", "checkpoints.every=2",
                 *self.words)  # fmt: skip
        run = world.run(folder, *words, processes=2)
        if run.wait_step(4, 240) is None:
            raise RuntimeError(f"the run did not start: {run.said()[-3000:]}")
        step, at = run.step, self._give(run)
        code = run.wait(240)
        wrong: list[str] = []
        _steps_follow(run, wrong)
        line = run.line(r"posttrain: stopped") or run.line(r"posttrain: ") or ""
        seconds = _since(run.ended, at)
        # Steps that were done when it was given; the process may have done some more before it was hit.
        lost = max(0, step - run.kept())
        if code is None:
            run.kill()
        return Result(code, seconds, line, lost, 0, 0, wrong=wrong)

    def _give(self, run: Any) -> float:
        pid = run.process.pid if self.target == "launcher" else run.ranks()[1]
        time.sleep(0.1)
        os.kill(pid, self.number)
        return time.monotonic()

    def bare(self, world: World) -> Result:
        run = Bare("bare_train.py", world.folder("bare-ranks"), processes=2, steps=100000, batch=8)
        world.watch(run)
        if run.wait_step(4, 240) is None:
            raise RuntimeError(run.said()[-3000:])
        step, at = run.step, self._give(run)
        code = run.wait(PATIENCE_WITH_BARE)
        lines = [x for x in run.said().splitlines() if "Signal" in x or "exitcode" in x]
        note = f"{len(run.said().splitlines())} lines of stderr"
        result = Result(code, _since(run.ended, at), lines[-1].strip() if lines else run.last_line(), step, note=note)
        if code is None:
            result = Result(None, None, steps_lost=step, note="gloo's own limit is 30 min")
            run.kill()
        return result


# -- disk and folder -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Disk:
    """The file system of the run is full: all but so many KiB of it."""

    leave: int
    frees: bool = True
    """Room is made again while the run goes on."""

    def ours(self, world: World) -> Result:
        place = world.small_disk("disk", 64)
        if place is None:
            raise Skip("no tmpfs can be mounted here (root is needed)")
        run = world.run(place.parent, "trainer.args.max_steps=100000", "checkpoints.every=2", "checkpoints.keep=1")
        if run.wait_step(4, 240) is None:
            raise RuntimeError(f"the run did not start: {run.said()[-3000:]}")
        step, at = run.step, time.monotonic()
        fill(place, self.leave)
        wrong: list[str] = []
        if self.leave:
            line = run.wait_line(r"was not saved", 0, 60.0) or ""
            said = time.monotonic()
            # Not for long: the third checkpoint in a row that the disk refuses ends the run.
            if run.wait_step(run.step + 1, 60) is None:
                wrong.append(f"it did not go on: {run.said()[-400:]}")
            (place / "filler").unlink(missing_ok=True)
            kept = run.step
            until = time.monotonic() + 60
            while run.kept() <= kept and run.ended is None and time.monotonic() < until:
                time.sleep(0.1)
            if run.kept() <= kept:
                wrong.append("no checkpoint was made after there was room again")
            _steps_follow(run, wrong)
            code = run.process.poll()
            if code is None:
                run.kill()
            return Result(code, said - at, line, 0, 0, 0, wrong=wrong)
        code = run.wait(120)
        line = run.line(r"^posttrain: stopped") or run.line(r"^posttrain: ") or ""
        seconds = _since(run.ended, at)
        # It goes on until the disk has refused three checkpoints in a row, if there is room for lines.
        lost = max(0, run.step - run.kept())
        (place / "filler").unlink(missing_ok=True)
        again = world.run(place.parent, "trainer.args.max_steps=100000", "checkpoints.every=2", "checkpoints.keep=1",
                          name="again")  # fmt: skip
        if again.wait_step(step + 2, 120) is None:
            wrong.append(f"the same command did not go on: {again.said()[-400:]}")
        _steps_follow(again, wrong)
        if again.ended is None:
            again.kill()
        return Result(code, seconds, line, lost, 0, 0, wrong=wrong)

    def bare(self, world: World) -> Result:
        place = world.small_disk("bare-disk", 64)
        if place is None:
            raise Skip("no tmpfs can be mounted here (root is needed)")
        options = {"steps": 40, "save_steps": 2, "output": str(place / "out")}
        run = Bare("bare_train.py", place.parent, **options)
        world.watch(run)
        if run.wait_step(4, 240) is None:
            raise RuntimeError(run.said()[-3000:])
        step, at = run.step, time.monotonic()
        fill(place, self.leave)
        code = run.wait(60)
        result = Result(code, _since(run.ended, at), run.last_line(), note="")
        if code is None:
            run.kill()
            return result
        (place / "filler").unlink(missing_ok=True)
        again = Bare("bare_train.py", place.parent, **options, resume=True)
        world.watch(again)
        back = again.wait_step(1, 120)
        result.note = (
            f"resume=True: goes on at step {again.step}" if back else f"resume=True: {again.last_line() or 'nothing'}"
        )
        result.steps_lost = None if back else step
        if again.ended is None:
            again.kill()
        return result


def fill(place: Path, leave: int) -> None:
    """Take all room of the file system but so many KiB."""
    filler = place / "filler"
    # Unbuffered: what a buffer still held would be refused once more when the file is closed.
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * 65536)
    if leave:
        os.truncate(filler, max(0, filler.stat().st_size - leave * 1024))


@dataclass(frozen=True)
class Removed:
    """`rm -rf` of the run's folder in mid-run."""

    def ours(self, world: World) -> Result:
        run = world.run(world.folder("removed"), "trainer.args.max_steps=100000", "checkpoints.every=1")
        if run.wait_step(4, 240) is None:
            raise RuntimeError(f"the run did not start: {run.said()[-3000:]}")
        step, at = run.step, time.monotonic()
        shutil.rmtree(run.root, ignore_errors=True)
        code = run.wait(120)
        wrong = []
        if (run.root / "metrics.jsonl").exists() and run.root.exists():
            wrong.append("it goes on writing into a new folder of that name")
        return Result(
            code,
            _since(run.ended, at),
            run.line(r"^posttrain: ") or "",
            step,
            note="all of it, by the user",
            wrong=wrong,
        )

    def bare(self, world: World) -> Result:
        folder = world.folder("bare-removed")
        run = Bare("bare_train.py", folder, steps=12, save_steps=1, output=str(folder / "out"))
        world.watch(run)
        if run.wait_step(4, 240) is None:
            raise RuntimeError(run.said()[-3000:])
        at = time.monotonic()
        shutil.rmtree(folder / "out", ignore_errors=True)
        code = run.wait(PATIENCE_WITH_BARE)
        left = sorted(p.name for p in (folder / "out").glob("*")) if (folder / "out").exists() else []
        line = run.last_line() if code else ""
        return Result(code, _since(run.ended, at), line, note=f"left: {', '.join(left) or 'nothing'}")


# -- clock and page --------------------------------------------------------------------------------------------------

CLOCK = '''
"""time.time() is off by so many seconds as soon as the file that JUMP_FILE names is there and says so."""
import os, time
_true, _file = time.time, os.environ["JUMP_FILE"]
def _time():
    try:
        with open(_file) as file:
            return _true() + float(file.read())
    except (OSError, ValueError):
        return _true()
time.time = _time
'''


@dataclass(frozen=True)
class Clock:
    """The wall clock jumps by `seconds` in mid-run."""

    by: float

    def ours(self, world: World) -> Result:
        folder = world.folder("clock")
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(CLOCK)
        jump = folder / "jump"
        run = world.run(
            folder, "trainer.args.max_steps=12", "watch.stall=60", "watch.deadline=120", "checkpoints.every=3",
            env={"PYTHONPATH": f"{folder / 'site'}:{ROOT}", "JUMP_FILE": str(jump)},
        )  # fmt: skip
        if run.wait_step(4, 240) is None:
            raise RuntimeError(f"the run did not start: {run.said()[-3000:]}")
        at = time.monotonic()
        jump.write_text(str(self.by))
        done = run.wait_after(at, 120)
        code = run.wait(120)
        wrong: list[str] = []
        _steps_follow(run, wrong)
        _rows_are_right(run, 16, wrong)
        if run.step != 12:
            wrong.append(f"{run.step} of 12 steps")
        if not (run.root / "report.html").exists():
            wrong.append("no page")
        status = run.status()
        if not 0 <= (status.get("seconds") or -1) < 600:
            wrong.append(f"status.json says {status.get('seconds')} seconds")
        times = [m["time"] for m in run.lines("metrics.jsonl") if "time" in m]
        if not any(abs(b - a) > abs(self.by) / 2 for a, b in pairwise(times)):
            wrong.append("the clock did not jump")
        return Result(
            None if code == 0 else code, _since(done, at), run.line(r"^posttrain: ") or "", 0, 0, 0, wrong=wrong
        )

    bare = None


@dataclass(frozen=True)
class Page:
    """The page is asked for again and again while the run writes."""

    steps: int = 15

    def ours(self, world: World) -> Result:
        from posttrain import report

        run = world.run(world.folder("page"), f"trainer.args.max_steps={self.steps}", "checkpoints.every=3")
        if run.wait_step(1, 240) is None:
            raise RuntimeError(f"the run did not start: {run.said()[-3000:]}")
        wrong: list[str] = []
        times, pages = [], 0
        while run.ended is None:
            began = time.monotonic()
            try:
                text = report.build(run.root).read_text()
            except Exception as error:
                wrong.append(f"{type(error).__name__}: {error}")
                break
            times.append(time.monotonic() - began)
            pages += 1
            if not text.rstrip().endswith("</html>"):
                wrong.append("a part of a page")
                break
        code = run.wait(60)
        _steps_follow(run, wrong)
        note = f"{pages} pages while {run.step} steps were made"
        return Result(
            None if code == 0 else code,
            max(times, default=0.0),
            "",
            0,
            0,
            0,
            note=f"seconds: the slowest page; {note}",
            wrong=wrong,
        )

    bare = None


Kind = Servers | Reward | Rank | Disk | Removed | Clock | Page
