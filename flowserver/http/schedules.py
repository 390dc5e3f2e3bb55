"""`/schedules`: make, read, change, pause, delete, fire by hand, and see what has fired."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Controller, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from flowserver.http.bodies import MAX_PAGE, Body, Page, cursor, moment
from flowserver.run_views import RunView
from flowserver.runs import Runs
from flowserver.schedules import Firing, ScheduleEntry, Schedules
from nodes.timing import Timing


class MakeSchedule(Body, frozen=True, kw_only=True):
    """A new schedule."""

    workflow_id: UUID
    timing: Timing
    step: str | None = None
    """The trigger that its runs start with; else the StartNode, or the first trigger."""
    name: Annotated[str, msgspec.Meta(max_length=200)] = ""
    input: Any = None
    """What its runs start with."""
    is_paused: bool = False


class ChangeSchedule(Body, frozen=True, kw_only=True):
    """What is to become different; what is left out stays. Of one in a drawing only `is_paused`."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | msgspec.UnsetType = msgspec.UNSET
    timing: Timing | msgspec.UnsetType = msgspec.UNSET
    input: Any = msgspec.UNSET
    is_paused: bool | msgspec.UnsetType = msgspec.UNSET


class ScheduleController(Controller):
    path = "/schedules"
    tags = ("Schedules",)

    @post()
    async def make(
        self,
        data: JSONBody[MakeSchedule],
        org: NamedDependency[UUID],
        schedules: NamedDependency[Schedules],
    ) -> Response[ScheduleEntry]:
        """Make a schedule that starts a workflow; it fires while the workflow is published."""
        made = await schedules.add(
            org,
            data.workflow_id,
            data.timing,
            step=data.step,
            name=data.name,
            input=data.input,
            is_paused=data.is_paused,
        )
        return Response(made, status_code=201, headers={"Location": f"/api/v1/schedules/{made.id}"})

    @get()
    async def page(
        self,
        org: NamedDependency[UUID],
        schedules: NamedDependency[Schedules],
        workflow_id: Annotated[UUID | None, QueryParameter()] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)] = 50,
        after: Annotated[str | None, QueryParameter(name="cursor")] = None,
    ) -> Page[ScheduleEntry]:
        """Schedules, newest first: those of drawings, and those made here."""
        items = await schedules.page(org, workflow=workflow_id, before=cursor(after), limit=limit + 1)
        return Page(items[:limit], str(items[limit - 1].id) if len(items) > limit else None)

    @get("/{id:uuid}")
    async def read(
        self, id: FromPath[UUID], org: NamedDependency[UUID], schedules: NamedDependency[Schedules]
    ) -> ScheduleEntry:
        """A schedule with its next ten firings."""
        return await schedules.get(org, id)

    @patch("/{id:uuid}")
    async def change(
        self,
        id: FromPath[UUID],
        data: JSONBody[ChangeSchedule],
        org: NamedDependency[UUID],
        schedules: NamedDependency[Schedules],
    ) -> ScheduleEntry:
        """Change, pause or resume a schedule; what came due while it was paused is not made up for."""
        return await schedules.change(
            org,
            id,
            name=None if data.name is msgspec.UNSET else data.name,
            timing=None if data.timing is msgspec.UNSET else data.timing,
            input=data.input,
            is_paused=None if data.is_paused is msgspec.UNSET else data.is_paused,
        )

    @delete("/{id:uuid}")
    async def delete(
        self, id: FromPath[UUID], org: NamedDependency[UUID], schedules: NamedDependency[Schedules]
    ) -> None:
        """Delete a schedule; its runs stay. One of a drawing goes when that is unpublished."""
        await schedules.delete(org, id)

    @post("/{id:uuid}/trigger", status_code=202)
    async def trigger(
        self,
        id: FromPath[UUID],
        org: NamedDependency[UUID],
        schedules: NamedDependency[Schedules],
        runs: NamedDependency[Runs],
    ) -> Response[RunView]:
        """Fire it now."""
        run = await schedules.trigger(org, id)
        return Response(
            await runs.get(org, run), status_code=202, headers={"Location": f"/api/v1/runs/{run}"}
        )

    @get("/{id:uuid}/firings")
    async def firings(
        self,
        id: FromPath[UUID],
        org: NamedDependency[UUID],
        schedules: NamedDependency[Schedules],
        limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)] = 50,
        after: Annotated[str | None, QueryParameter(name="cursor")] = None,
    ) -> Page[Firing]:
        """What has fired, newest first, and what was left out, with the reason."""
        items = await schedules.firings(org, id, moment(after), limit + 1)
        return Page(items[:limit], items[limit - 1].at.isoformat() if len(items) > limit else None)
