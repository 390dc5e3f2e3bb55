"""Executes runs in this process: those launched here, and those that a job of the queue brings."""

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

import sql
from flowserver.columns import Texts
from flowserver.events import FINAL, Event, encode
from flowserver.execution import Claim, Execution, Resources
from flowserver.leases import Leases
from flowserver.recorder import broken_off
from flowserver.workflows import json
from graphs.compile import Compiled

_QUERIES = sql.queries("runs")
_CLAIM = _QUERIES["claim"]
_END_UNHELD = _QUERIES["end_unheld"]
_DEFER = _QUERIES["defer"]
_PAST = _QUERIES["past_events"]
_POSITION = _QUERIES["position"]
_UNCOUNT = _QUERIES["uncount"]

UNCOUNT_PAUSE = 1.0
"""Seconds between two tries to take the attempt of a run back that was left because the database was away."""

logger = logging.getLogger(__name__)


class Executor:
    """The executions of this process."""

    def __init__(
        self, resources: Resources, dsn: str, *, lease: float, max_runs: int, executes: bool = True
    ) -> None:
        """`executes`: whether this process executes runs at all."""
        self.worker = f"{socket.gethostname()}:{os.getpid()}"
        self.lease = timedelta(seconds=lease)
        self._with = resources
        self._max_runs = max_runs
        self._executes = executes
        self._running: dict[UUID, Execution] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._taking: set[asyncio.Task[asyncio.Task[None] | None]] = set()
        self._uncounting: dict[UUID, asyncio.Task[None]] = {}
        self._freed = asyncio.Event()
        self._watchdog: asyncio.Task[None] | None = None
        self._stopping = False
        loop = asyncio.get_running_loop()
        self._leases = Leases(
            dsn,
            lease,
            lost=lambda run: _call(loop, self._lose, run),
            cancel=lambda run: _call(loop, self._stop, run, "cancelled"),
        )

    @property
    def has_room(self) -> bool:
        return self._executes and not self._stopping and len(self._running) < self._max_runs

    def start(self) -> None:
        if self._executes:
            self._leases.start()
            self._watchdog = asyncio.create_task(self._watch())

    def launch(
        self,
        claim: Claim,
        compiled: Compiled | None = None,
        created: Event | None = None,
        *,
        is_watched: bool = True,
    ) -> asyncio.Task[None]:
        """Execute a run that has been claimed for this process; see `Execution` for the rest."""
        self._with.metrics.claimed(claim.epoch, claim.attempt)
        execution = Execution(claim, self._with, compiled, created, is_watched=is_watched)
        self._running[claim.id] = execution
        self._leases.hold(claim.id, claim.epoch)
        task = asyncio.create_task(execution.go(), name=f"run {claim.id}")
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(execution, done))
        return task

    async def execute(self, run: UUID) -> None:
        """Drive `run` as far as it goes, once there is room; return at once if it is not to be claimed."""
        while not self.has_room:
            if self._stopping:  # whoever else there is shall take it
                async with self._with.pool.connection() as conn:
                    await conn.execute(_DEFER, {"run": run})
                return
            self._freed.clear()
            await self._freed.wait()
        # The claim is not broken off with the job: a run that was claimed must be executed.
        taking = asyncio.create_task(self._take(run))
        self._taking.add(taking)
        taking.add_done_callback(self._taking.discard)
        if (task := await asyncio.shield(taking)) is not None:
            await asyncio.wait([task])

    async def claim(self, run: UUID) -> bool:
        """Take up a run that nobody executes, if there is room; whether it is executed here now."""
        return self.has_room and await self._take(run) is not None

    def cancel(self, run: UUID) -> bool:
        """Cancel `run` if it is executed here."""
        return self._stop(run, "cancelled")

    async def stop(self, grace: float) -> None:
        """Claim no more, let running steps end for `grace` seconds, then hand the rest back to the queue."""
        self._stopping = True
        self._freed.set()
        await asyncio.gather(*self._taking, return_exceptions=True)
        for execution in self._running.values():
            execution.drain()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        for execution in list(self._running.values()):
            execution.stop("drained")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
        for uncounting in self._uncounting.values():
            uncounting.cancel()
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._leases.stop()

    async def _take(self, run: UUID) -> asyncio.Task[None] | None:
        if (uncounting := self._uncounting.get(run)) is not None:
            await asyncio.wait([uncounting])
        values = {"lease": self.lease, "worker": self.worker, "id": run}
        async with self._with.pool.connection() as conn:
            try:
                row = await (await conn.execute(_CLAIM, values)).fetchone()
            except psycopg.errors.UniqueViolation:
                return None  # another process was first with a run of that thread
        return self.launch(msgspec.convert(row, Claim)) if row is not None else None

    def _stop(self, run: UUID, why: Any) -> bool:
        execution = self._running.get(run)
        if execution is not None:
            execution.stop(why)
        return execution is not None

    def _lose(self, run: UUID) -> None:
        if (execution := self._running.get(run)) is not None:
            execution.has_met_outage |= self._leases.is_database_away
            execution.stop("lost")

    def _ended(self, execution: Execution, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        run = execution.claim.id
        if self._running.get(run) is execution:
            del self._running[run]
            self._leases.drop(run)
        if not task.cancelled() and task.exception() is not None:
            logger.error("run %s: execution broke off", run, exc_info=task.exception())
        if execution.has_met_outage and not self._stopping:
            uncounting = asyncio.create_task(self._uncount(execution.claim))
            self._uncounting[run] = uncounting
            uncounting.add_done_callback(lambda _: self._uncounting.pop(run, None))
        self._freed.set()

    async def _uncount(self, claim: Claim) -> None:
        """Take the attempt of a run back that was left because the database was away, once it answers again.

        Until its lease has run out nobody else has the run, and nobody counts this as a process that died.
        """
        while True:
            try:
                async with self._with.pool.connection() as conn:
                    await conn.execute(_UNCOUNT, {"run": claim.id, "epoch": claim.epoch})
                return
            except psycopg.OperationalError:
                await asyncio.sleep(UNCOUNT_PAUSE)

    async def _watch(self) -> None:
        """Give up in time what the heartbeat, which may be stuck on a silent database, could not extend."""
        while True:
            await asyncio.sleep(self.lease.total_seconds() / 10)
            self._leases.expire()


async def end_unheld(
    resources: Resources, run: UUID, epoch: int, status: str, error: dict[str, str] | None = None
) -> bool:
    """Give a run that nobody executes its final status; `False` when somebody does by now.

    Steps that had begun are told to have been broken off.
    """
    async with resources.pool.connection() as conn:
        seen = await (await conn.execute(_POSITION, {"run": run})).fetchone()
        if seen is None:
            return False
        past = await (await conn.execute(_PAST, {"run": run})).fetchall()
        events = [*broken_off(past, error), (FINAL[status], {"error": error} if error else {})]
        values = {
            "id": run,
            "epoch": epoch,
            "next": seen["next_seq"],
            "status": status,
            "error": json(error) if error else None,
            "types": Texts(type for type, _ in events),
            "datas": Texts(encode(data).decode() for _, data in events),
        }
        ended = await (await conn.execute(_END_UNHELD, values)).fetchone() is not None
    if ended:
        resources.feeds.changed(run)
        resources.metrics.runs_finished.labels(status).inc()
    return ended


def _call(loop: asyncio.AbstractEventLoop, function: Any, *values: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: the process is going down
        loop.call_soon_threadsafe(function, *values)
