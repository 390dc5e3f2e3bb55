"""The queue: Procrastinate as a thin dispatcher, at least once, of runs that nobody waits for here.

A job says "somebody, execute this run" and nothing else. Whether there is anything to execute, only the run's
row knows: a job too many is let go, one that is lost is made again by the reconciler. So nothing depends on
what Procrastinate remembers of a job: no locks, no retries, no future dates, one queue.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import procrastinate
import psycopg
from procrastinate.exceptions import ConnectorException
from psycopg_pool import PoolTimeout

from flowserver.db import PATIENCE

QUEUE = "runs"
"""As in the SQL function `defer_run`."""
MAINTENANCE = "maintenance"
OFTEN = "*/5 * * * *"
"""When what is due is forgotten: every five minutes, once, however many processes there are."""
POLL = 5.0
"""Seconds between two looks for jobs whose notification was lost."""
PAUSES = (0.2, 1.0, 3.0)
"""Seconds before a broken worker is started again; the last one from then on."""
STOP = 5.0
"""Seconds that a worker may take to stop."""
STALLED = 30.0
"""Seconds after which a worker that gives no sign of life is forgotten."""

logger = logging.getLogger(__name__)


class Dispatcher:
    """Takes jobs from the queue, as many at a time as this process may execute runs."""

    def __init__(
        self,
        dsn: str,
        most: int,
        execute: Callable[[UUID], Awaitable[None]],
        maintain: Callable[[], Awaitable[Any]],
    ) -> None:
        """`execute` drives a run as far as it goes; `maintain` is called now and then by one of all."""
        connector = procrastinate.PsycopgConnector(
            conninfo=dsn, min_size=1, max_size=4, timeout=5, kwargs=dict(PATIENCE)
        )
        self._app = procrastinate.App(connector=connector)
        self._most = most
        self._execute = execute
        self._maintain = maintain
        self._app.task(name="execute", queue=QUEUE)(self._job)
        tick = self._app.task(name="maintain", queue=MAINTENANCE, queueing_lock="maintain")(self._tick)
        self._app.periodic(cron=OFTEN)(tick)
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    def start(self) -> None:
        self._task = asyncio.create_task(self._supervise())

    async def stop(self) -> None:
        """Take no more jobs; runs that are executed already go on."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=STOP)

    async def _job(self, run: str) -> None:
        await self._execute(UUID(run))

    async def _tick(self, timestamp: int) -> None:
        await self._maintain()

    async def _supervise(self) -> None:
        """Keep a worker at work: a restart of the database may end it."""
        broken = 0
        while not self._stopping:
            try:
                async with self._app.open_async():
                    broken = 0
                    await self._app.run_worker_async(
                        queues=[QUEUE, MAINTENANCE],
                        concurrency=self._most,
                        fetch_job_polling_interval=POLL,
                        delete_jobs="always",
                        install_signal_handlers=False,
                        # Runs go on without the jobs that brought them: a broken worker is replaced at once.
                        shutdown_graceful_timeout=0,
                        stalled_worker_timeout=STALLED,
                    )
            except (ConnectorException, psycopg.Error, PoolTimeout) as exc:
                logger.warning("the queue's worker broke off (%s); it is started again", type(exc).__name__)
            if not self._stopping:
                await asyncio.sleep(PAUSES[min(broken, len(PAUSES) - 1)])
                broken += 1
