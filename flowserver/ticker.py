"""Fires what is due: each instant of a schedule once, however many processes look.

A firing, its run and the schedule's next instant are one transaction, which locks the schedule. Time is the
database's clock.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow
from psycopg_pool import PoolTimeout, TooManyRequests

import sql
from flowserver.arming import due, is_over, timing_of
from flowserver.db import Pool
from flowserver.errors import FlowserverError
from flowserver.runs import Runs
from flowserver.schedules import about
from flowserver.starts import Start
from flowserver.workflows import PUBLISHED, Workflows
from graphs.compile import Compiled
from graphs.problems import InvalidWorkflow
from nodes.timing import Timing

_QUERIES = sql.queries("schedules")

MOST = 50
"""How many schedules are dealt with in one look."""
GRACE = timedelta(seconds=60)
"""How late a firing may be without counting as missed."""
MOST_WAITING = 1000
"""How many firings of a schedule may wait for their turn."""

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Round:
    """What has become of a schedule's firings in one look."""

    open: int
    """Its runs that are not over."""
    waiting: int
    counted: int = 0


class Ticker:
    """Looks for schedules that are due, and for firings whose turn has come."""

    def __init__(self, pool: Pool, workflows: Workflows, runs: Runs) -> None:
        self._pool = pool
        self._workflows = workflows
        self._runs = runs

    async def look(self) -> bool:
        """Look once; whether there may be more to do at once."""
        async with self._pool.connection() as conn:
            rows = await (await conn.execute(_QUERIES["due"], {"most": MOST})).fetchall()
            turns = await (await conn.execute(_QUERIES["next_waiting"], {"most": MOST})).fetchall()
        done = [await self._one(self._fire(row["org_id"], row["id"], row["workflow_id"])) for row in rows]
        done += [
            await self._one(self._begin(row["org_id"], row["schedule_id"], row["workflow_id"]))
            for row in turns
        ]
        return all(done) and MOST in (len(rows), len(turns))

    async def _one(self, doing: Awaitable[None]) -> bool:
        """Whether one thing could be dealt with; the others do not wait for it."""
        try:
            await doing
        except (psycopg.Error, PoolTimeout, TooManyRequests):
            raise
        except Exception:
            logger.exception("a schedule could not be dealt with")
            return False
        return True

    async def _fire(self, org: UUID, schedule: UUID, workflow: UUID) -> None:
        runnable = await self._runnable(org, workflow)
        superseded: list[DictRow] = []
        async with self._pool.connection() as conn, conn.transaction():
            row = await (await conn.execute(_QUERIES["take"], {"id": schedule})).fetchone()
            if row is None:
                return  # another process has it, or has done it
            timing = timing_of(row["timing"])
            instants, newest = _to_fire(timing, row)
            done = _Round(row["open"], row["waiting"])
            for instant in instants:
                superseded += await self._deal_with(conn, org, row, timing, instant, runnable, done)
            if not instants:
                await _record(conn, schedule, newest, "skipped", "it came due while nobody could start it")
            await _advance(conn, row, timing, newest, done.counted)
        await self._runs.make_way(superseded)

    async def _deal_with(
        self,
        conn: AsyncConnection[DictRow],
        org: UUID,
        row: Mapping[str, Any],
        timing: Timing,
        instant: datetime,
        runnable: tuple[Compiled, Any] | str,
        done: _Round,
    ) -> list[DictRow]:
        """Start a run for one instant, or not; return the runs that are to end for it."""
        superseded: list[DictRow] = []
        if timing.overlap == "skip" and done.open:
            await _record(conn, row["id"], instant, "skipped", "a run of an earlier firing is not over")
            return []
        if timing.overlap == "queue" and (done.open or done.waiting):
            if done.waiting >= MOST_WAITING:
                await _record(conn, row["id"], instant, "skipped", f"{MOST_WAITING} firings wait already")
            elif await _record(conn, row["id"], instant, "waiting"):
                done.waiting += 1
                done.counted += 1
            return []
        if timing.overlap == "cancel_previous" and done.open:
            values = {"schedule": row["id"]}
            superseded = await (await conn.execute(_QUERIES["supersede_runs"], values)).fetchall()
        if await _record(conn, row["id"], instant, "waiting"):
            done.open += await self._start(conn, org, row, instant, runnable)
            done.counted += 1
        return superseded

    async def _begin(self, org: UUID, schedule: UUID, workflow: UUID) -> None:
        """Start the run of a firing that has waited for its turn."""
        runnable = await self._runnable(org, workflow)
        async with self._pool.connection() as conn, conn.transaction():
            row = await (await conn.execute(_QUERIES["take_waiting"], {"id": schedule})).fetchone()
            if row is None or row["open"] or row["at"] is None:
                return
            if row["may_fire"]:
                await self._start(conn, org, row, row["at"], runnable)
            else:
                await _settle(conn, schedule, row["at"], "skipped", None, "the workflow is not published")

    async def _start(
        self,
        conn: AsyncConnection[DictRow],
        org: UUID,
        row: Mapping[str, Any],
        instant: datetime,
        runnable: tuple[Compiled, Any] | str,
    ) -> bool:
        """Whether a run has begun for a firing; why not, its row says."""
        if isinstance(runnable, str):
            await _settle(conn, row["id"], instant, "failed", None, runnable)
            return False
        compiled, keeps = runnable
        start = Start(
            compiled=compiled,
            flow_data=keeps,
            workflow_id=row["workflow_id"],
            input=row["input"],
            trigger=row["step"],
            kind="schedule",
            about=about(row["id"], instant),
            now=False,
            is_watched=False,
        )
        try:
            run = await self._runs.enlist(conn, org, start)
        except FlowserverError as exc:  # refused before anything is written
            await _settle(conn, row["id"], instant, "failed", None, str(exc))
            return False
        await _settle(conn, row["id"], instant, "started", run)
        return True

    async def _runnable(self, org: UUID, workflow: UUID) -> tuple[Compiled, Any] | str:
        """What a schedule starts, or why it cannot."""
        try:
            return await self._workflows.runnable(org, workflow, PUBLISHED)
        except (InvalidWorkflow, FlowserverError) as exc:
            logger.warning("workflow %s has a schedule and cannot run: %s", workflow, exc)
            return str(exc)[:2000]


def _to_fire(timing: Timing, row: Mapping[str, Any]) -> tuple[list[datetime], datetime]:
    """The instants of a schedule that get a run, and the newest that is due."""
    now, since, id = row["now"], row["next_at"], row["id"]
    most = timing.misfire_limit if timing.misfire == "all" else 1
    found = timing.latest(most + 1, since, now, row["anchor"])
    came = [instant for instant in found if (due(timing, id, instant) or now) <= now] or [since]
    newest = came[-1]
    if timing.misfire == "skip" and now - (due(timing, id, newest) or now) > GRACE:
        return [], newest
    left = most if timing.max_count is None else min(most, timing.max_count - row["fired"])
    return came[-most:][:left], newest


async def _record(
    conn: AsyncConnection[DictRow], schedule: UUID, at: datetime, status: str, because: str | None = None
) -> bool:
    """Keep what becomes of an instant; whether nobody has done so before."""
    values = {"schedule": schedule, "at": at, "run": None, "status": status, "because": because}
    found = await conn.execute(_QUERIES["insert_firing"], {**values, "is_manual": False})
    return await found.fetchone() is not None


async def _settle(
    conn: AsyncConnection[DictRow],
    schedule: UUID,
    at: datetime,
    status: str,
    run: UUID | None,
    because: str | None = None,
) -> None:
    values = {"schedule": schedule, "at": at, "status": status, "run": run, "because": because}
    await conn.execute(_QUERIES["start_waiting"], values)


async def _advance(
    conn: AsyncConnection[DictRow], row: Mapping[str, Any], timing: Timing, newest: datetime, count: int
) -> None:
    following = next(timing.following(newest, row["anchor"]), None)
    if is_over(timing, row["fired"] + count):
        following = None
    values = {"id": row["id"], "count": count, "last": newest if count else None, "next": following}
    await conn.execute(_QUERIES["fired"], {**values, "due": due(timing, row["id"], following)})
