"""Saved workflows and their versions in Postgres."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import DictRow
from psycopg.types.json import Json

import sql
from flowserver.credentials import unknown as unknown_credentials
from flowserver.db import Pool, row_of
from flowserver.errors import NotFound, RevisionConflict
from flowserver.ids import new_id
from flowserver.subflows import with_subflows
from graphs.called import called_by
from graphs.compile import Checked, Compiled, Compiler
from graphs.credentials import named_credentials
from graphs.problems import InvalidWorkflow, Problem, Problems
from graphs.resolve import in_place
from graphs.spec import read

_QUERIES = sql.queries("workflows")
_INSERT_VERSION = _QUERIES["insert_version"]
_GET_VERSION = _QUERIES["get_version"]
_INSERT = _QUERIES["insert_workflow"]
_GET = _QUERIES["get_workflow"]
_UPDATE = _QUERIES["update_workflow"]
_DELETE = _QUERIES["delete_workflow"]
_DRAFT = _QUERIES["draft_version"]
_LIST = _QUERIES["list_workflows"]
_FIND_BY_NAME = _QUERIES["find_by_name"]


class WorkflowEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A saved workflow as lists show it."""

    id: UUID
    name: str
    description: str | None
    version: str
    """The SHA-256 of the drawing's meaning."""
    revision: int
    """Grows with every change; its ETag."""
    created_at: datetime
    updated_at: datetime


class Workflow(WorkflowEntry, frozen=True, kw_only=True):
    """A saved workflow with its drawing, as the editor sent it, and what is wrong with it."""

    flow_data: dict[str, Any]
    problems: tuple[Problem, ...] = ()


class Workflows:
    """Save, read, change, delete, and compile what is saved. Every call is within one organisation."""

    def __init__(self, pool: Pool, compiler: Compiler) -> None:
        self._pool = pool
        self._compiler = compiler

    async def add(
        self, org: UUID, name: str, description: str | None, flow_data: Mapping[str, Any]
    ) -> Workflow:
        """Save a new workflow; one with errors is saved too, and says so."""
        checked = await self.check(org, flow_data)
        values = {"id": new_id(), "org": org, "name": name, "description": description}
        async with self._pool.connection() as conn, conn.transaction():
            await keep_version(conn, org, checked.version, flow_data)
            values |= {"flow_data": json(flow_data), "version": checked.version}
            row = row_of(await (await conn.execute(_INSERT, values)).fetchone())
        return _workflow(row, checked)

    async def get(self, org: UUID, id: UUID) -> Workflow:
        """Read a workflow.

        Raises:
            NotFound: There is none of this id in `org`.
        """
        async with self._pool.connection() as conn:
            row = await (await conn.execute(_GET, {"org": org, "id": id})).fetchone()
        if row is None:
            raise NotFound("workflow", id)
        return _workflow(row, await self.check(org, row["flow_data"]))

    async def change(
        self,
        org: UUID,
        id: UUID,
        *,
        name: str | None = None,
        description: str | msgspec.UnsetType | None = msgspec.UNSET,
        flow_data: Mapping[str, Any] | None = None,
        revision: int | None = None,
    ) -> Workflow:
        """Change what is given; with `revision`, only if the workflow is still at it.

        Raises:
            NotFound: There is none of this id in `org`.
            RevisionConflict: It has been changed in between.
        """
        checked = await self.check(org, flow_data) if flow_data is not None else None
        values = {
            "org": org,
            "id": id,
            "name": name,
            "describe": description is not msgspec.UNSET,
            "description": None if description is msgspec.UNSET else description,
            "flow_data": json(flow_data) if flow_data is not None else None,
            "version": checked.version if checked else None,
            "revision": revision,
        }
        async with self._pool.connection() as conn, conn.transaction():
            if checked is not None and flow_data is not None:
                await keep_version(conn, org, checked.version, flow_data)
            row = await (await conn.execute(_UPDATE, values)).fetchone()
        if row is None:
            raise await self._refusal(org, id, revision)
        return _workflow(row, checked or await self.check(org, row["flow_data"]))

    async def delete(self, org: UUID, id: UUID, revision: int | None = None) -> None:
        """Delete a workflow; its runs stay, and go on.

        Raises:
            NotFound: There is none of this id in `org`.
            RevisionConflict: It has been changed in between.
        """
        async with self._pool.connection() as conn:
            row = await (await conn.execute(_DELETE, {"org": org, "id": id, "revision": revision})).fetchone()
        if row is None:
            raise await self._refusal(org, id, revision)

    async def page(
        self, org: UUID, *, before: UUID | None, limit: int, name: str | None = None
    ) -> list[WorkflowEntry]:
        """The newest workflows, or those older than `before`; with `name` only those called so."""
        values = {"org": org, "before": before, "limit": limit, "name": name}
        async with self._pool.connection() as conn:
            rows = await (await conn.execute(_LIST, values)).fetchall()
        return [msgspec.convert(row, WorkflowEntry) for row in rows]

    async def find(self, org: UUID, name: str) -> Workflow | None:
        """The oldest workflow of that name."""
        async with self._pool.connection() as conn:
            row = await (await conn.execute(_FIND_BY_NAME, {"org": org, "name": name})).fetchone()
        return _workflow(row, await self.check(org, row["flow_data"])) if row else None

    async def check(self, org: UUID, flow_data: Any) -> Checked:
        """Find every problem of a drawing, also in the workflows that it runs; its own version."""
        whole = await self._whole(org, flow_data)
        checked = _refused(self._compiler.check(whole), await self._unknown_credentials(org, flow_data))
        if whole is flow_data:
            return checked
        own = {key: value for key, value in flow_data.items() if key != "subflows"}
        return replace(checked, version=read(own, Problems()).version)

    async def drawn(self, org: UUID, flow_data: Any) -> tuple[Compiled, Any]:
        """The graph of a drawing that is not saved, and the drawing with all that its run will need.

        Raises:
            InvalidWorkflow: It does not compile.
        """
        whole = await self._whole(org, flow_data)
        return await self._compiled_for(org, flow_data, whole), whole

    async def _compiled_for(self, org: UUID, flow_data: Any, whole: Any) -> Compiled:
        """The graph of the `whole` of a drawing; one whose credentials are not there has none."""
        if unknown := await self._unknown_credentials(org, flow_data):
            raise InvalidWorkflow(_refused(self._compiler.check(whole), unknown).problems)
        return self._compiler.compile(whole)

    async def _unknown_credentials(self, org: UUID, flow_data: Any) -> list[Problem]:
        """What the drawing says of credentials that are not there; a step that has none fails in its run."""
        named = named_credentials(flow_data, self._compiler.registry)
        if not named:
            return []
        async with self._pool.connection() as conn:
            lost = await unknown_credentials(conn, org, {each.id for each in named})
        return [each.is_unknown() for each in named if each.id in lost]

    async def _whole(self, org: UUID, flow_data: Any) -> Any:
        if not isinstance(flow_data, Mapping) or not called_by(flow_data, self._compiler.registry):
            return flow_data
        async with self._pool.connection() as conn:
            return await with_subflows(conn, org, flow_data, self._compiler.registry)

    async def runnable(self, org: UUID, id: UUID, version: str | None = None) -> tuple[Compiled, Any]:
        """The graph of a workflow as it stands, or of one of its versions; and what its run has to keep.

        That is nothing where the version is kept already, else the drawing with those that it runs.

        Raises:
            NotFound: There is no such workflow or version in `org`.
            InvalidWorkflow: It does not compile.
        """
        async with self._pool.connection() as conn:
            row = await (await conn.execute(_DRAFT, {"org": org, "id": id})).fetchone()
        if row is None:
            raise NotFound("workflow", id)
        draft = str(row["version"])
        known = self._compiler.known(version or draft) if version in (None, draft) else None
        if known is not None:
            return known, None
        flow_data = await self._version(org, version or draft)
        whole = await self._whole(org, flow_data)
        compiled = await self._compiled_for(org, flow_data, whole)
        return compiled, None if whole is flow_data else whole

    async def compiled(self, org: UUID, version: str) -> Compiled:
        """The graph of a version that has been saved or run before.

        Raises:
            NotFound: There is none in `org`.
            InvalidWorkflow: It does not compile.
        """
        return self._compiler.compile(await self._version(org, version))

    async def _version(self, org: UUID, version: str) -> Any:
        async with self._pool.connection() as conn:
            row = await (await conn.execute(_GET_VERSION, {"org": org, "version": version})).fetchone()
        if row is None:
            raise NotFound("workflow version", version)
        return row["flow_data"]

    async def _refusal(self, org: UUID, id: UUID, revision: int | None) -> NotFound | RevisionConflict:
        found = await self.get(org, id)  # raises NotFound
        return RevisionConflict(id, str(revision), found.revision)


async def keep_version(
    conn: AsyncConnection[DictRow], org: UUID, version: str, flow_data: Mapping[str, Any]
) -> None:
    """Keep an immutable copy of a drawing under the hash of its meaning."""
    await conn.execute(_INSERT_VERSION, {"org": org, "version": version, "flow_data": json(flow_data)})


def json(value: Any) -> Json:
    return Json(value, dumps=msgspec.json.encode)


def _refused(checked: Checked, problems: list[Problem]) -> Checked:
    """What is known of a drawing in which `problems` were found, too."""
    if not problems:
        return checked
    return replace(checked, problems=tuple(in_place([*checked.problems, *problems])), plan=None)


def _workflow(row: DictRow, checked: Checked) -> Workflow:
    return Workflow(**row, problems=checked.problems)
