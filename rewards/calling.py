"""One call of a reward function, whatever kind of callable it is, and what its results are worth: the inside of a `Guard`."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import math
import numbers
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from rewards.workers import Allowance, one_line


@dataclass(frozen=True, slots=True)
class Bad:
    """A row or a part without a number, and why. Beside the kinds of a fault: `unrun` (no time to ask), `unfit` (wrong columns)."""

    kind: Any
    text: str


Cell = float | None | Bad


@dataclass(frozen=True, slots=True)
class Answer:
    """One cell a row, and what was told to the loggers: (`log_extra` | `log_metric`, name, value)."""

    cells: list[Cell]
    logs: list[tuple[str, str, Any]] = field(default_factory=list)


class Unfit(Exception):
    """The batch and the function do not fit together; one line."""


class Callee:
    """The function in the process that runs it; in a worker process this object is what runs."""

    def __init__(self, make: Callable[..., Any]):
        self.function = _function_of(make)
        inner = self.function
        while isinstance(inner, functools.partial):
            inner = inner.func
        self.is_async = inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(type(inner).__call__)
        self._loop: _Loop | None = None
        self.wanted: set[str] | None = None
        self.required: list[str] = []
        with contextlib.suppress(TypeError, ValueError):
            # As called, not as wrapped: a partial that looks like its function has fewer parameters left to give.
            parameters = inspect.signature(self.function, follow_wrapped=False).parameters
            named = [p for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
            self.required = [p.name for p in named if p.default is p.empty]
            if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
                self.wanted = {p.name for p in named}

    def __call__(self, rows: dict[str, Any], n: int, logging: tuple[str, ...]) -> Answer | Bad:
        """In a worker: exceptions go up, the pool reports them."""
        try:
            answer, logs = self._called(rows, dict.fromkeys(logging))
        except Unfit as error:
            return Bad("unfit", str(error))
        if inspect.isawaitable(answer):
            answer = self._event_loop().run(answer, None)
        return _read(answer, n, logs)

    def guarded(
        self, rows: dict[str, Any], n: int, extras: dict[str, Any], allowance: Allowance
    ) -> tuple[Answer | Bad, float]:
        """In the caller's process: whatever happens becomes an answer (and its seconds), but for the caller's own interrupts."""
        allowed = allowance.next()
        if allowed <= 0:
            return Bad("unrun", ""), 0.0
        began = time.monotonic()
        found: Answer | Bad
        try:
            answer, logs = self._called(rows, extras)
            if inspect.isawaitable(answer):
                answer = self._event_loop().run(answer, allowed)
            found = _read(answer, n, logs)
        except (Unfit, KeyboardInterrupt, GeneratorExit):
            raise
        except _Overrun:
            found = Bad("timeout", f"cancelled after {allowed:.1f} s")
        except BaseException as error:
            found = Bad("exception", one_line(error))
        seconds = time.monotonic() - began
        allowance.spent(seconds)
        return found, seconds

    def together(
        self, jobs: list[tuple[dict[str, Any], int, dict[str, Any]]], allowed: float
    ) -> list[tuple[Bad | Answer, float]]:
        """Async only: all jobs at once."""

        async def one(rows: dict[str, Any], n: int, extras: dict[str, Any]) -> tuple[Bad | Answer, float]:
            began = time.monotonic()
            found: Answer | Bad
            try:
                answer, logs = self._called(rows, extras)
                found = _read(await asyncio.wait_for(answer, allowed), n, logs)
            except BaseException as error:
                found = Bad("exception", one_line(error))
                if isinstance(error, TimeoutError) and time.monotonic() - began >= allowed:
                    found = Bad("timeout", f"cancelled after {allowed:.1f} s")
            return found, time.monotonic() - began

        async def every() -> list[tuple[Bad | Answer, float]]:
            return await asyncio.gather(*(one(*job) for job in jobs))

        try:
            return self._event_loop().run(every(), allowed + 1.0)
        except _Overrun:
            return [(Bad("timeout", f"blocked the event loop for {allowed:.1f} s"), allowed)] * len(jobs)

    def _called(self, rows: dict[str, Any], extras: dict[str, Any]) -> tuple[Any, list[tuple[str, str, Any]]]:
        logs: list[tuple[str, str, Any]] = []
        given = dict(rows) | extras
        if "log_extra" in extras:
            given["log_extra"] = lambda name, values: logs.append(("log_extra", str(name), list(values)))
        if "log_metric" in extras:
            given["log_metric"] = lambda name, value: logs.append(("log_metric", str(name), float(value)))
        missing = [name for name in self.required if name not in given]
        if missing:
            raise Unfit(f"needs {', '.join(missing)}, which the data does not have (it has {', '.join(sorted(rows))})")
        if self.wanted is not None:
            given = {k: v for k, v in given.items() if k in self.wanted}
        return self.function(**given), logs

    def _event_loop(self) -> _Loop:
        if self._loop is None or self._loop.stuck:
            self._loop = _Loop()
        return self._loop

    def close(self) -> None:
        if self._loop is not None:
            self._loop.close()
            self._loop = None


class _Overrun(TimeoutError):
    pass


class _Loop:
    """An event loop in a thread of its own, kept between calls (clients are bound to the loop they were made in)."""

    def __init__(self) -> None:
        self.stuck = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="reward-loop", daemon=True)
        self._thread.start()
        weakref.finalize(self, _stop, self._loop)

    def run(self, awaitable: Any, allowed: float | None) -> Any:
        async def wait() -> Any:
            return await awaitable

        future = asyncio.run_coroutine_threadsafe(wait(), self._loop)
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        if done.wait(allowed):
            return future.result()
        future.cancel()
        # Cancelling must reach the loop; one that does not answer is blocked and left to itself.
        answered = threading.Event()
        self._loop.call_soon_threadsafe(answered.set)
        self.stuck = not answered.wait(1.0)
        raise _Overrun

    def close(self) -> None:
        _stop(self._loop)


def _stop(loop: asyncio.AbstractEventLoop) -> None:
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(loop.stop)


def _read(answer: Any, n: int, logs: list[tuple[str, str, Any]]) -> Answer | Bad:
    """Results as cells. Any iterable but a text, a mapping or a set will do; at most one too many is looked at."""
    if isinstance(answer, (str, bytes, Mapping, set, frozenset)) or not isinstance(answer, Iterable):
        return Bad("length", f"returned {_shown(answer)}, not a list of {n} numbers")
    if getattr(answer, "ndim", 1) == 0:
        return Bad("length", f"returned a single number, not a list of {n}")
    results = list(islice(iter(answer), n + 1))
    if len(results) != n:
        got = f"more than {n}" if len(results) > n else str(len(results))
        return Bad("length", f"returned {got} results for {n} rows")
    return Answer([_number(result) for result in results], logs)


def _number(result: Any) -> Cell:
    if result is None:
        return None
    if not isinstance(result, (str, bytes, numbers.Number)) and getattr(result, "ndim", None) == 0:
        try:  # a scalar of numpy, torch or the like
            result = result.item()
        except Exception as error:
            return Bad("not_a_number", f"returned {_shown(result)}: {one_line(error)}")
    if not isinstance(result, numbers.Real):
        return Bad("not_a_number", f"returned {_shown(result)}, not a number")
    try:
        value = float(result)
    except OverflowError:
        return Bad("not_finite", "returned a number that no float can hold")
    except Exception as error:
        return Bad("not_a_number", one_line(error))
    return value if math.isfinite(value) else Bad("not_finite", f"returned {value}")


def _shown(value: Any) -> str:
    kind = type(value).__name__
    if isinstance(value, str):
        return f"the text {value[:60]!r}"
    shape = getattr(value, "shape", None)
    return f"a {kind} of shape {tuple(shape)}" if isinstance(shape, (tuple, list)) else f"a {kind}"


def _function_of(make: Callable[..., Any]) -> Callable[..., Any]:
    """See `Guard`: `make` itself, or what it gives."""
    if _is_reward(make):
        return make
    try:
        made = make()
    except (KeyError, AttributeError, TypeError):  # `def f(**kwargs)` that misses its columns
        if _has_any_keyword(make):
            return make
        raise
    if callable(made):
        return made
    if _has_any_keyword(make):
        return make
    raise TypeError(f"{name_of(make)} gave {_shown(made)}, not a reward function")


def _is_reward(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return True
    taken = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY, p.POSITIONAL_ONLY)]
    return any(p.default is p.empty or p.name in ("prompts", "completions", "completion_ids") for p in taken)


def _has_any_keyword(function: Callable[..., Any]) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


def name_of(make: Any) -> str:
    while isinstance(make, functools.partial):
        make = make.func
    name = getattr(make, "__name__", None) or type(make).__name__
    return name if name.isidentifier() else "reward"
