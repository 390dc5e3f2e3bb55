"""Schedules in Postgres: those of drawings, and those made by the API."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Literal
from uuid import UUID

import msgspec
from psycopg.rows import DictRow
from psycopg.types.json import Json

import sql
from flowserver.arming import arm, is_over, timing_of
from flowserver.db import Pool, row_of
from flowserver.errors import BadRequest, DrawnElsewhere, NotFound, NotPublished
from flowserver.events import encode
from flowserver.ids import new_id
from flowserver.runs import Runs
from flowserver.starts import Start
from flowserver.workflows import PUBLISHED, Workflows
from graphs.values import UnsafeValue, clean
from nodes.timing import Timing

_QUERIES = sql.queries("schedules")
_TO_ARM = _QUERIES["one_to_arm"]

SHOWN = 10
"""How many firings ahead are told."""


class ScheduleEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as clients see it."""

    id: UUID
    workflow_id: UUID
    step: str | None
    """The trigger that its runs start with."""
    source: Literal["drawing", "api"]
    name: str
    timing: Timing
    input: Any
    """What its runs start with."""
    is_paused: bool
    is_live: bool
    """Whether it is one of a published workflow; only then it fires."""
    next: tuple[datetime, ...]
    """The next ten firings, without jitter; none while it does not fire."""
    last_at: datetime | None
    """The instant of the last firing."""
    fired: int
    created_at: datetime
    updated_at: datetime


class Firing(msgspec.Struct, frozen=True, kw_only=True):
    """One instant of a schedule, and what came of it."""

    at: datetime
    run_id: UUID | None
    run_status: str | None
    status: Literal["started", "waiting", "skipped", "failed"]
    because: str | None
    """Why it was skipped, or failed."""
    is_manual: bool
    fired_at: datetime
    """When it was dealt with."""


class Schedules:
    """Make, read, change, pause and delete schedules, and fire one by hand."""

    def __init__(self, pool: Pool, workflows: Workflows, runs: Runs) -> None:
        self._pool = pool
        self._workflows = workflows
        self._runs = runs

    async def add(
        self,
        org: UUID,
        workflow: UUID,
        timing: Timing,
        *,
        step: str | None = None,
        name: str = "",
        input: Any = None,
        is_paused: bool = False,
    ) -> ScheduleEntry:
        """Make a schedule that starts a workflow, once that is published.

        Raises:
            NotFound: There is no such workflow in `org`.
            BadRequest: The workflow has no such trigger, or the input cannot be kept.
        """
        found = await self._workflows.get(org, workflow)
        plan = (await self._workflows.check(org, found.flow_data)).plan
        if step is not None and plan is not None and step not in plan.triggers:
            known = ", ".join(plan.triggers) or "none"
            raise BadRequest(f"{step!r} is not a trigger of this workflow; its triggers: {known}")
        id = new_id()
        values = {
            "id": id,
            "org": org,
            "workflow": workflow,
            "step": step,
            "name": name or found.name,
            "timing": Json(timing, dumps=encode),
            "input": _kept(input),
            "is_paused": is_paused,
        }
        async with self._pool.connection() as conn, conn.transaction():
            if await (await conn.execute(_QUERIES["insert_schedule"], values)).fetchone() is None:
                raise NotFound("workflow", workflow)
            await arm(conn, row_of(await (await conn.execute(_TO_ARM, {"org": org, "id": id})).fetchone()))
        return await self.get(org, id)

    async def get(self, org: UUID, id: UUID) -> ScheduleEntry:
        """
        Raises:
            NotFound: There is none of this id in `org`.
        """
        async with self._pool.connection() as conn:
            row = await (await conn.execute(_QUERIES["get_schedule"], {"org": org, "id": id})).fetchone()
        if row is None:
            raise NotFound("schedule", id)
        return _entry(row)

    async def page(
        self, org: UUID, *, workflow: UUID | None, before: UUID | None, limit: int
    ) -> list[ScheduleEntry]:
        """The newest schedules, or those older than `before`; with `workflow` only its own."""
        values = {"org": org, "workflow": workflow, "before": before, "limit": limit}
        async with self._pool.connection() as conn:
            rows = await (await conn.execute(_QUERIES["list_schedules"], values)).fetchall()
        return [_entry(row) for row in rows]

    async def change(
        self,
        org: UUID,
        id: UUID,
        *,
        name: str | None = None,
        timing: Timing | None = None,
        input: Any = msgspec.UNSET,
        is_paused: bool | None = None,
    ) -> ScheduleEntry:
        """Change what is given. What came due while it was paused is not made up for.

        Raises:
            NotFound: There is none of this id in `org`.
            DrawnElsewhere: It stands in a drawing, which says all but whether it is paused.
        """
        values = {
            "org": org,
            "id": id,
            "name": name,
            "timing": Json(timing, dumps=encode) if timing else None,
            "sets_input": input is not msgspec.UNSET,
            "input": None if input is msgspec.UNSET else _kept(input),
            "is_paused": is_paused,
        }
        async with self._pool.connection() as conn, conn.transaction():
            if await (await conn.execute(_QUERIES["change_schedule"], values)).fetchone() is None:
                await self.get(org, id)  # raises NotFound
                raise DrawnElsewhere("schedule", id)
            if timing is not None or is_paused is not None:
                row = await (await conn.execute(_TO_ARM, {"org": org, "id": id})).fetchone()
                await arm(conn, row_of(row))
        return await self.get(org, id)

    async def delete(self, org: UUID, id: UUID) -> None:
        """Delete a schedule; the runs that it has started stay.

        Raises:
            NotFound: There is none of this id in `org`.
            DrawnElsewhere: It stands in a drawing that is published.
        """
        async with self._pool.connection() as conn:
            row = await (await conn.execute(_QUERIES["delete_schedule"], {"org": org, "id": id})).fetchone()
        if row is None:
            await self.get(org, id)  # raises NotFound
            raise DrawnElsewhere("schedule", id)

    async def trigger(self, org: UUID, id: UUID) -> UUID:
        """Fire a schedule now, also one that is paused; return the run.

        Raises:
            NotFound: There is none of this id in `org`.
            NotPublished: Its workflow is not.
            InvalidWorkflow: The workflow does not compile.
        """
        async with self._pool.connection() as conn:
            row = await (await conn.execute(_QUERIES["to_trigger"], {"org": org, "id": id})).fetchone()
        if row is None:
            raise NotFound("schedule", id)
        if row["published_version"] is None:
            raise NotPublished(row["workflow_id"])
        compiled, keeps = await self._workflows.runnable(org, row["workflow_id"], PUBLISHED)
        start = Start(
            compiled=compiled,
            flow_data=keeps,
            workflow_id=row["workflow_id"],
            input=row["input"],
            trigger=row["step"],
            kind="schedule",
            about=about(id, row["now"]),
            now=False,
        )
        async with self._pool.connection() as conn, conn.transaction():
            run = await self._runs.enlist(conn, org, start)
            values = {"schedule": id, "at": row["now"], "run": run, "is_manual": True}
            await conn.execute(_QUERIES["insert_firing"], {**values, "status": "started", "because": None})
        return run

    async def firings(self, org: UUID, id: UUID, before: datetime | None, limit: int) -> list[Firing]:
        """The newest firings of a schedule, or those before an instant.

        Raises:
            NotFound: There is none of this id in `org`.
        """
        await self.get(org, id)
        values = {"id": id, "before": before, "limit": limit}
        async with self._pool.connection() as conn:
            rows = await (await conn.execute(_QUERIES["list_firings"], values)).fetchall()
        return [msgspec.convert(row, Firing) for row in rows]


def about(schedule: UUID, instant: datetime) -> dict[str, Any]:
    """What the trigger of a run knows that a schedule has started."""
    return {"schedule": str(schedule), "due": instant.isoformat()}


def _kept(input: Any) -> Json | None:
    if input is None:
        return None
    try:
        return Json(clean(input), dumps=encode)
    except UnsafeValue as exc:
        raise BadRequest(f"the input cannot be used: {exc}") from None


def _entry(row: DictRow) -> ScheduleEntry:
    timing = timing_of(row["timing"])
    ahead: list[datetime] = []
    if row["next_at"] is not None and not is_over(timing, row["fired"]):
        left = SHOWN if timing.max_count is None else min(SHOWN, timing.max_count - row["fired"])
        after = row["next_at"] - timedelta(microseconds=1)
        ahead = list(islice(timing.following(after, row["anchor"]), left))
    return msgspec.convert({**row, "timing": timing, "next": ahead}, ScheduleEntry)
