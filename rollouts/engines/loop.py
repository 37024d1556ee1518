"""An event loop in a thread of its own, for synchronous callers (who may sit inside another running loop)."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class BackgroundLoop:
    def __init__(self, name: str):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], deadline: float) -> T:
        """The result of `work`, run in the loop's thread; an interrupt of the caller cancels it.

        Raises:
            TimeoutError: it took longer than `deadline` seconds.
        """

        async def limited() -> T:
            async with asyncio.timeout(deadline):
                return await work

        future = asyncio.run_coroutine_threadsafe(limited(), self._loop)
        try:
            while True:
                try:
                    # In slices, so that an interrupt is noticed and a dead loop thread is not waited for.
                    return future.result(timeout=1.0)
                except concurrent.futures.TimeoutError:
                    if future.done():
                        return future.result()
                    if not self._thread.is_alive():
                        raise RuntimeError("the event loop's thread has ended") from None
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """End the thread. Twice is harmless."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5.0)
        if not self._thread.is_alive():
            self._loop.close()
