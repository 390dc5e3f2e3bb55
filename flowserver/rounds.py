"""Something that is looked after again and again, in every worker, for as long as the process lives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable

import psycopg
from psycopg_pool import PoolTimeout, TooManyRequests

OFTEN = 1.0
"""Seconds between two looks for what should not wait."""

logger = logging.getLogger(__name__)


class Rounds:
    """Calls `look`, pauses, and calls it again; at once while it says that there may be more to do."""

    def __init__(self, what: str, look: Callable[[], Awaitable[bool]], pause: float) -> None:
        """`what` is looked for, in words; `pause` is seconds, more or less: not all are to look at once."""
        self._what = what
        self._look = look
        self._pause = pause
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._go())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _go(self) -> None:
        while True:
            try:
                more = await self._look()
            except (psycopg.Error, PoolTimeout, TooManyRequests) as exc:
                logger.warning("no look for %s: %s", self._what, str(exc).strip() or type(exc).__name__)
                more = False
            except Exception:
                # One thing that cannot be dealt with must not stop the rest from being looked after.
                logger.exception("the look for %s failed", self._what)
                more = False
            if not more:
                await asyncio.sleep(self._pause * random.uniform(0.75, 1.25))
