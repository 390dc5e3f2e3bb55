"""Threads for work that has an end but not a short one: few at a time, and no process waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, TypeVarTuple

Result = TypeVar("Result")
Given = TypeVarTuple("Given")


class Threads:
    """Runs functions in threads that do not keep the process from ending."""

    def __init__(self, most: int) -> None:
        """`most` work at a time; one that is given up keeps its place until it has really ended."""
        self._free = most
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def call(self, seconds: float, function: Callable[[*Given], Result], *arguments: *Given) -> Result:
        """The result of `function`.

        Raises:
            TimeoutError: There is none after `seconds`, for which it may have had to wait for a thread.
        """
        async with asyncio.timeout(seconds):
            await self._place()
            return await self._started(lambda: function(*arguments))

    async def _place(self) -> None:
        while not self._free:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            finally:
                self._waiting.remove(turn)
        self._free -= 1

    def _started(self, work: Callable[[], Result]) -> asyncio.Future[Result]:
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Result] = loop.create_future()

        def ended(value: Any, failed: Exception | None) -> None:
            self._free += 1
            if turn := next((each for each in self._waiting if not each.done()), None):
                turn.set_result(None)
            if result.done():
                return
            if failed is not None:
                result.set_exception(failed)
            else:
                result.set_result(value)

        def run() -> None:
            value, failed = None, None
            try:
                value = work()
            except Exception as exc:
                failed = exc
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(ended, value, failed)

        threading.Thread(target=run, daemon=True).start()
        return result


class UnjoinedExecutor(ThreadPoolExecutor):
    """An executor for `loop.set_default_executor` whose shutdown waits for no thread."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=True)


def unfinished(seconds: float) -> list[str]:
    """Wait up to `seconds` for threads that would keep this process from ending; the names of the rest."""
    deadline = time.monotonic() + seconds
    mine = (threading.main_thread(), threading.current_thread())
    lasting = [each for each in threading.enumerate() if each not in mine and not each.daemon]
    for each in lasting:
        each.join(max(0.0, deadline - time.monotonic()))
    return [each.name for each in lasting if each.is_alive()]
