"""Executes runs in this process: those launched here, and those that wait or that a dead process left."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import psycopg
from psycopg_pool import PoolTimeout, TooManyRequests

import sql
from flowserver.events import FINAL, encode
from flowserver.execution import Claim, Execution, Resources
from flowserver.leases import Leases
from flowserver.questions import BATCH, expire
from flowserver.workflows import json
from graphs.compile import Compiled

_QUERIES = sql.queries("runs")
_CLAIM_NEXT = _QUERIES["claim_next"]
_ABANDONED = _QUERIES["abandoned"]
_END_UNHELD = _QUERIES["end_unheld"]

LOOK = 2.0
"""Seconds between two looks for runs that nobody executes."""

logger = logging.getLogger(__name__)


class Executor:
    """The executions of this process."""

    def __init__(
        self, resources: Resources, dsn: str, *, lease: float, max_runs: int, takes_over: bool = True
    ) -> None:
        """`takes_over`: look for runs of others too, not only execute what is launched here."""
        self.worker = f"{socket.gethostname()}:{os.getpid()}"
        self.lease = timedelta(seconds=lease)
        self._with = resources
        self._max_runs = max_runs
        self._takes_over = takes_over
        self._running: dict[UUID, Execution] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._looker: asyncio.Task[None] | None = None
        self._stopping = False
        loop = asyncio.get_running_loop()
        self._leases = Leases(
            dsn,
            lease,
            lost=lambda run: _call(loop, self._stop, run, "lost"),
            cancel=lambda run: _call(loop, self._stop, run, "cancelled"),
        )

    @property
    def has_room(self) -> bool:
        return not self._stopping and len(self._running) < self._max_runs

    def start(self) -> None:
        self._leases.start()
        if self._takes_over:
            self._looker = asyncio.create_task(self._look())

    def launch(self, claim: Claim, compiled: Compiled | None = None) -> None:
        """Execute a run that has been claimed for this process."""
        execution = Execution(claim, self._with, compiled)
        self._running[claim.id] = execution
        self._leases.hold(claim.id, claim.epoch)
        task = asyncio.create_task(execution.go(), name=f"run {claim.id}")
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(execution, done))

    def wake(self) -> None:
        """Look at once: there is a run to be claimed."""
        self._wake.set()

    def cancel(self, run: UUID) -> bool:
        """Cancel `run` if it is executed here."""
        return self._stop(run, "cancelled")

    async def stop(self, grace: float) -> None:
        """Claim no more, let running steps end for `grace` seconds, then hand the rest back to the queue."""
        self._stopping = True
        if self._looker is not None:
            self._looker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looker
        for execution in self._running.values():
            execution.drain()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        for execution in list(self._running.values()):
            execution.stop("drained")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
        self._leases.stop()

    async def take_next(self, run: UUID | None = None) -> bool:
        """Claim and launch the oldest run that nobody executes, or just `run`; whether there was one."""
        values = {"lease": self.lease, "worker": self.worker, "id": run}
        async with self._with.pool.connection() as conn:
            try:
                row = await (await conn.execute(_CLAIM_NEXT, values)).fetchone()
            except psycopg.errors.UniqueViolation:
                return False  # another process was first with a run of that thread
        if row is None:
            return False
        self.launch(msgspec.convert(row, Claim))
        return True

    def _stop(self, run: UUID, why: Any) -> bool:
        execution = self._running.get(run)
        if execution is not None:
            execution.stop(why)
        return execution is not None

    def _ended(self, execution: Execution, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        run = execution.claim.id
        if self._running.get(run) is execution:
            del self._running[run]
            self._leases.drop(run)
        if not task.cancelled() and task.exception() is not None:
            logger.error("run %s: execution broke off", run, exc_info=task.exception())
        self._wake.set()

    async def _look(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._wake.wait()
            self._wake.clear()
            try:
                if await expire(self._with.pool) == BATCH:
                    self._wake.set()  # there may be more
                while self.has_room and await self.take_next():
                    pass
                await self._end_abandoned()
            except (psycopg.Error, PoolTimeout, TooManyRequests) as exc:
                logger.warning("no look for runs: %s", str(exc).strip() or type(exc).__name__)

    async def _end_abandoned(self) -> None:
        async with self._with.pool.connection() as conn:
            rows = await (await conn.execute(_ABANDONED)).fetchall()
        for row in rows:
            if row["cancel_requested"]:
                await end_unheld(self._with, row["id"], row["epoch"], "cancelled")
            else:
                message = "the processes that executed this run died; it is not tried again"
                error = {"code": "worker_lost", "message": message}
                await end_unheld(self._with, row["id"], row["epoch"], "failed", error)


async def end_unheld(
    resources: Resources, run: UUID, epoch: int, status: str, error: dict[str, str] | None = None
) -> bool:
    """Give a run that nobody executes its final status; `False` when somebody does by now."""
    values = {
        "id": run,
        "epoch": epoch,
        "status": status,
        "error": json(error) if error else None,
        "type": FINAL[status],
        "data": encode({"error": error} if error else {}).decode(),
    }
    async with resources.pool.connection() as conn:
        return await (await conn.execute(_END_UNHELD, values)).fetchone() is not None


def _call(loop: asyncio.AbstractEventLoop, function: Any, *values: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: the process is going down
        loop.call_soon_threadsafe(function, *values)
