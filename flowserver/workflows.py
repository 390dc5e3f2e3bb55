"""Saved workflows and their versions in Postgres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import DictRow
from psycopg.types.json import Json

import sql
from flowserver.collection_checks import check_collections
from flowserver.collections import Collections
from flowserver.credentials import unknown as unknown_credentials
from flowserver.db import Pool, row_of
from flowserver.drawings import Drawings
from flowserver.errors import NotFound, NotPublished, RevisionConflict
from flowserver.ids import new_id
from flowserver.subflows import with_subflows
from flowserver.triggers import Triggers
from graphs.called import called_by
from graphs.compile import Checked, Compiled, Compiler
from graphs.credentials import named_credentials
from graphs.problems import InvalidWorkflow, Problem, Problems, pointer
from graphs.resolve import in_place
from graphs.spec import read

_QUERIES = sql.queries("workflows")
_INSERT_VERSION = _QUERIES["insert_version"]
_GET_VERSION = _QUERIES["get_version"]
_INSERT = _QUERIES["insert_workflow"]
_GET = _QUERIES["get_workflow"]
_UPDATE = _QUERIES["update_workflow"]
_DELETE = _QUERIES["delete_workflow"]
_POINTERS = _QUERIES["pointers"]
_REMEMBER = _QUERIES["remember_version"]
_VERSIONS = _QUERIES["list_versions"]
_PUBLISH = _QUERIES["publish"]
_UNPUBLISH = _QUERIES["unpublish"]
_LIST = _QUERIES["list_workflows"]
_FIND_BY_NAME = _QUERIES["find_by_name"]


PUBLISHED = "published"
"""Names, instead of a version, the one that is published."""


class WorkflowEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A saved workflow as lists show it."""

    id: UUID
    name: str
    description: str | None
    version: str
    """The SHA-256 of the drawing's meaning."""
    published_version: str | None = None
    """The version that its triggers start; `None` while none is published."""
    published_at: datetime | None = None
    revision: int
    """Grows with every change; its ETag."""
    created_at: datetime
    updated_at: datetime


class Workflow(WorkflowEntry, frozen=True, kw_only=True):
    """A saved workflow with its drawing, as the editor sent it, and what is wrong with it."""

    flow_data: dict[str, Any]
    problems: tuple[Problem, ...] = ()


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A version that a workflow has had."""

    version: str
    saved_at: datetime
    """When the workflow got it, the last time."""
    is_draft: bool
    """Whether it is what the workflow is now."""
    is_published: bool


class Workflows:
    """Save, read, change, publish, delete and compile workflows. Every call is within one organisation."""

    def __init__(self, pool: Pool, compiler: Compiler, triggers: Triggers, drawings: Drawings) -> None:
        self._pool = pool
        self._compiler = compiler
        self._drawings = drawings
        self._collections = Collections(pool)
        self._triggers = triggers

    async def add(
        self, org: UUID, name: str, description: str | None, flow_data: Mapping[str, Any]
    ) -> Workflow:
        """Save a new workflow; one with errors is saved too, and says so."""
        checked, kept = await self._received(org, flow_data)
        values = {"id": new_id(), "org": org, "name": name, "description": description}
        async with self._pool.connection() as conn, conn.transaction():
            await keep_version(conn, org, checked.version, kept)
            values |= {"flow_data": json(kept), "version": checked.version}
            row = row_of(await (await conn.execute(_INSERT, values)).fetchone())
            pathless = await self._has_drawn(conn, org, row)
        return _workflow(row, checked, pathless)

    async def get(self, org: UUID, id: UUID) -> Workflow:
        """Read a workflow.

        Raises:
            NotFound: There is none of this id in `org`.
        """
        async with self._pool.connection() as conn:
            row = await (await conn.execute(_GET, {"org": org, "id": id})).fetchone()
            pathless = await self._triggers.pathless(conn, id)
        if row is None:
            raise NotFound("workflow", id)
        return _workflow(row, await self.check(org, row["flow_data"]), pathless)

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
        checked, kept = await self._received(org, flow_data) if flow_data is not None else (None, None)
        values = {
            "org": org,
            "id": id,
            "name": name,
            "describe": description is not msgspec.UNSET,
            "description": None if description is msgspec.UNSET else description,
            "flow_data": json(kept) if kept is not None else None,
            "version": checked.version if checked else None,
            "revision": revision,
        }
        async with self._pool.connection() as conn, conn.transaction():
            if checked is not None and kept is not None:
                await keep_version(conn, org, checked.version, kept)
            row = await (await conn.execute(_UPDATE, values)).fetchone()
            pathless = await self._has_drawn(conn, org, row) if row is not None and checked else []
        if row is None:
            raise await self._refusal(org, id, revision)
        return _workflow(row, checked, pathless) if checked else await self.get(org, id)

    async def _has_drawn(
        self, conn: AsyncConnection[DictRow], org: UUID, row: DictRow
    ) -> list[tuple[str, str]]:
        """What a drawing that has just been saved brings with it."""
        await conn.execute(_REMEMBER, {"id": row["id"], "version": row["version"]})
        drawing = self._drawings.opened(org, row["flow_data"])
        return await self._triggers.drawn(conn, org, row["id"], drawing)

    async def _received(self, org: UUID, flow_data: Mapping[str, Any]) -> tuple[Checked, Any]:
        """What is found in a drawing that is sent, and how it is kept."""
        opened = self._drawings.opened(org, flow_data)
        return await self.check(org, opened), self._drawings.kept(org, opened)

    async def publish(self, org: UUID, id: UUID, version: str | None = None) -> Workflow:
        """Let a workflow's triggers start it as it stands, or as it was in one of its versions.

        Raises:
            NotFound: There is no such workflow, or it has never had this version.
            InvalidWorkflow: The version does not compile.
            PathTaken: A webhook's path is another one's.
        """
        pointers = await self._pointers(org, id)
        version = version or str(pointers["version"])
        flow_data = await self._version(org, version)
        await self._compiled_for(org, flow_data, await self._whole(org, flow_data))
        async with self._pool.connection() as conn, conn.transaction():
            row = await (await conn.execute(_PUBLISH, {"org": org, "id": id, "version": version})).fetchone()
            if row is None:
                raise NotFound("workflow version", version)
            await self._triggers.published(conn, org, id, flow_data)
        return await self.get(org, id)

    async def unpublish(self, org: UUID, id: UUID) -> Workflow:
        """Let no trigger start a workflow any more; its runs go on.

        Raises:
            NotFound: There is none of this id in `org`.
        """
        async with self._pool.connection() as conn, conn.transaction():
            row = await (await conn.execute(_UNPUBLISH, {"org": org, "id": id})).fetchone()
            if row is None:
                raise NotFound("workflow", id)
            await self._triggers.withdrawn(conn, id)
        return await self.get(org, id)

    async def versions(self, org: UUID, id: UUID, before: datetime | None, limit: int) -> list[Version]:
        """The versions that a workflow has had, newest first, or those older than `before`.

        Raises:
            NotFound: There is none of this id in `org`.
        """
        await self._pointers(org, id)
        values = {"org": org, "id": id, "before": before, "limit": limit}
        async with self._pool.connection() as conn:
            rows = await (await conn.execute(_VERSIONS, values)).fetchall()
        return [msgspec.convert(row, Version) for row in rows]

    async def _pointers(self, org: UUID, id: UUID) -> DictRow:
        async with self._pool.connection() as conn:
            row = await (await conn.execute(_POINTERS, {"org": org, "id": id})).fetchone()
        if row is None:
            raise NotFound("workflow", id)
        return row

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
        self, org: UUID, *, before: UUID | None, limit: int, name: str | None = None, skip: int = 0
    ) -> list[WorkflowEntry]:
        """The newest workflows but `skip`, or those older than `before`; with `name` only those called so."""
        values = {"org": org, "before": before, "limit": limit, "name": name, "skip": skip}
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
        flow_data = self._drawings.opened(org, flow_data)
        whole = await self._whole(org, flow_data)
        checked = _refused(self._compiler.check(whole), await self._unknown_credentials(org, flow_data))
        checked = await self._fitting(org, checked, whole)
        if whole is flow_data:
            return checked
        own = {key: value for key, value in flow_data.items() if key != "subflows"}
        return replace(checked, version=read(own, Problems()).version)

    async def _fitting(self, org: UUID, checked: Checked, flow_data: Any) -> Checked:
        """`checked` with what is wrong between the drawing and what the organisation keeps."""
        if checked.plan is None:
            return checked
        found = await check_collections(self._collections, org, checked.plan, flow_data)
        if not found:
            return checked
        problems = tuple(sorted((*checked.problems, *found), key=lambda each: each.severity))
        is_wrong = any(each.severity == "error" for each in found)
        return replace(checked, problems=problems, plan=None if is_wrong else checked.plan)

    async def drawn(self, org: UUID, flow_data: Any) -> tuple[Compiled, Any]:
        """The graph of a drawing that is not saved, and the drawing with all that its run will need.

        Raises:
            InvalidWorkflow: It does not compile.
        """
        flow_data = self._drawings.opened(org, flow_data)
        whole = await self._whole(org, flow_data)
        return await self._compiled_for(org, flow_data, whole), self._drawings.kept(org, whole)

    async def _compiled_for(self, org: UUID, flow_data: Any, whole: Any) -> Compiled:
        """The graph of the `whole` of a drawing; one whose credentials are not there has none."""
        unknown = await self._unknown_credentials(org, flow_data)
        if any(each.severity == "error" for each in unknown):
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
            whole = await with_subflows(conn, org, flow_data, self._compiler.registry)
        return self._drawings.opened(org, whole)

    async def runnable(self, org: UUID, id: UUID, version: str | None = None) -> tuple[Compiled, Any]:
        """The graph of a workflow as it stands, of one of its versions, or of what is `published` of it.

        With it comes what its run has to keep: nothing where the version is kept already, else the drawing
        with those that it runs.

        Raises:
            NotFound: There is no such workflow or version in `org`.
            NotPublished: Nothing of it is.
            InvalidWorkflow: It does not compile.
        """
        row = await self._pointers(org, id)
        if version == PUBLISHED:
            version = row["published_version"]
            if version is None:
                raise NotPublished(id)
        draft = str(row["version"])
        known = (
            self._compiler.known(version or draft)
            if version in (None, draft, row["published_version"])
            else None
        )
        if known is not None:
            return known, None
        flow_data = await self._version(org, version or draft)
        whole = await self._whole(org, flow_data)
        compiled = await self._compiled_for(org, flow_data, whole)
        return compiled, None if whole is flow_data else self._drawings.kept(org, whole)

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
        return self._drawings.opened(org, row["flow_data"])

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
    broken = any(each.severity == "error" for each in problems)
    found = tuple(in_place([*checked.problems, *problems]))
    return replace(checked, problems=found, plan=None if broken else checked.plan)


def _workflow(row: DictRow, checked: Checked, pathless: Sequence[tuple[str, str]] = ()) -> Workflow:
    problems = [*checked.problems, *(_taken(row["flow_data"], *each) for each in pathless)]
    return Workflow(**row, problems=tuple(in_place(problems)))


def _taken(flow_data: Any, step: str, path: str) -> Problem:
    nodes = flow_data.get("nodes", ())
    place = next((at for at, node in enumerate(nodes) if node.get("id") == step), 0)
    message = f"another webhook has the path {path!r}: this one has no address, and cannot be published"
    return Problem("path_taken", "warning", step, pointer("nodes", place, "data"), message)
