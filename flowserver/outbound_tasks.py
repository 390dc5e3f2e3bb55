"""Operations of httpcore in tasks of their own, so that cancelling a caller cannot interrupt their cleanup.

httpcore 1.0 shields its cleanup from anyio's cancel scopes, but not from `asyncio.Task.cancel`. LangGraph
cancels the steps beside a failed one twice in a row; the second cancellation would interrupt the cleanup,
and the connection would count as used for ever. Here a cancelled caller returns at once, and its operation is
ended by a cancel scope.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import anyio

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Operations:
    """The operations of one pool."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(
        self, operation: Coroutine[Any, Any, T], discard: Callable[[T | None], Awaitable[None]]
    ) -> T:
        """Return what `operation` returns; a result that a cancelled caller cannot take goes to `discard`."""
        scope = anyio.CancelScope()
        task = self._start(_within(scope, operation))
        try:
            result = await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():  # else the loop itself is being closed
                scope.cancel()
                self.start(_abandoned(task, discard))
            raise
        assert result is not None, "only the scope of a cancelled caller ends it without a result"
        return result[0]

    async def finish(self, operation: Coroutine[Any, Any, None]) -> None:
        """Wait for `operation`, which also continues if the caller is cancelled."""
        await asyncio.shield(self._start(operation))

    def start(self, operation: Coroutine[Any, Any, None]) -> None:
        """Run `operation` in the background."""
        self._start(operation).add_done_callback(_log_failure)

    async def settle(self) -> None:
        """Wait until all are over."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self, operation: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(operation)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _within(scope: anyio.CancelScope, operation: Coroutine[Any, Any, T]) -> tuple[T] | None:
    with scope:
        return (await operation,)
    return None


async def _abandoned(
    task: asyncio.Task[tuple[T] | None], discard: Callable[[T | None], Awaitable[None]]
) -> None:
    await asyncio.wait([task])
    if task.cancelled():
        return
    result = None if task.exception() else task.result()
    await discard(result[0] if result else None)


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (failed := task.exception()) is not None:
        logger.warning("an outgoing connection could not be closed in good order", exc_info=failed)
