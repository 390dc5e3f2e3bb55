"""Puts right what dead processes, lost jobs and passed deadlines leave behind; every worker looks.

Nothing here executes a run: what is left behind is queued again, or ended when it may not be tried any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random

import psycopg
from psycopg_pool import PoolTimeout, TooManyRequests

import sql
from flowserver.execution import Resources
from flowserver.executor import end_unheld
from flowserver.questions import BATCH, expire

_QUERIES = sql.queries("runs")
_DEFER_LEFT = _QUERIES["defer_left"]
_ABANDONED = _QUERIES["abandoned"]
_FORGET_JOBS = _QUERIES["forget_jobs"]

LOOK = 2.0
"""Seconds between two looks, more or less."""

logger = logging.getLogger(__name__)


class Reconciler:
    """Looks, again and again."""

    def __init__(self, resources: Resources) -> None:
        self._with = resources
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
                more = await self.look()
            except (psycopg.Error, PoolTimeout, TooManyRequests) as exc:
                logger.warning("no look for runs: %s", str(exc).strip() or type(exc).__name__)
                more = False
            if not more:
                await asyncio.sleep(LOOK * random.uniform(0.75, 1.25))

    async def look(self) -> bool:
        """Look once; whether there may be more to do at once."""
        expired = await expire(self._with.pool)
        async with self._with.pool.connection() as conn:
            await conn.execute(_DEFER_LEFT)
            await conn.execute(_FORGET_JOBS)
            rows = await (await conn.execute(_ABANDONED)).fetchall()
        for row in rows:
            if row["cancel_requested"]:
                await end_unheld(self._with, row["id"], row["epoch"], "cancelled")
            else:
                message = "the processes that executed this run died; it is not tried again"
                error = {"code": "worker_lost", "message": message}
                await end_unheld(self._with, row["id"], row["epoch"], "failed", error)
        return expired == BATCH
