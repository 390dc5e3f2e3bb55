"""Puts the workflows that a drawing runs beside it, as they are at this moment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import DictRow

import sql
from graphs.called import called_by
from graphs.spec import Saved, ref_key
from nodes.contract import WorkflowRef
from nodes.registry import Registry

_QUERIES = sql.queries("workflows")
_FIND = _QUERIES["find_called"]
_GET_VERSION = _QUERIES["get_version"]

MOST = 200
"""How many workflows a drawing may run, directly or by way of others; more are not looked up."""


async def with_subflows(
    conn: AsyncConnection[DictRow], org: UUID, flow_data: Mapping[str, Any], registry: Registry
) -> Mapping[str, Any]:
    """Return `flow_data` with the drawings of all workflows that it runs, under `subflows`.

    A run keeps them like this, so that it goes on with the same ones whatever becomes of them. One that there
    is not is left out: compiling says so. A drawing that runs no other comes back as it is.
    """
    waiting = called_by(flow_data, registry)
    if not waiting:
        return flow_data
    found: dict[str, Any] = {}
    seen: set[WorkflowRef] = set()
    while waiting and len(seen) < MOST:
        if (ref := waiting.pop()) in seen:
            continue
        seen.add(ref)
        if (saved := await _saved(conn, org, ref)) is not None:
            found[ref_key(ref)] = msgspec.to_builtins(saved)
            waiting += called_by(saved.flow_data, registry)
    return {**flow_data, "subflows": found}


async def _saved(conn: AsyncConnection[DictRow], org: UUID, ref: WorkflowRef) -> Saved | None:
    row = await (await conn.execute(_FIND, {"org": org, "ref": ref.workflow})).fetchone()
    if row is None:
        return None
    if ref.version is None or ref.version == row["version"]:
        return Saved(str(row["id"]), row["name"], row["version"], row["flow_data"])
    values = {"org": org, "version": ref.version}
    version = await (await conn.execute(_GET_VERSION, values)).fetchone()
    return Saved(str(row["id"]), row["name"], ref.version, version["flow_data"]) if version else None
