"""How runs begin: what a new one starts with, and its row, in the one transaction that accepts it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias
from uuid import UUID

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import DictRow

import sql
from flowserver.checkpoints import Seed, keep_seed
from flowserver.db import Pool, row_of
from flowserver.errors import BadRequest, ThreadBusy
from flowserver.events import encode
from flowserver.idempotency import Once
from flowserver.ids import new_id
from flowserver.workflows import json, keep_version
from graphs.compile import Compiled
from graphs.options import Limits
from graphs.values import UnsafeValue, clean_aside

_QUERIES = sql.queries("runs")
_INSERT = _QUERIES["insert_run"]
_THREAD_RUN = _QUERIES["thread_run"]
_SUPERSEDE = _QUERIES["supersede"]

MAX_SESSION_ID = 200

OnBusy: TypeAlias = Literal["enqueue", "reject", "interrupt", "rollback"]
"""What a new run does while another one of its session is not done: it waits for it, is refused, takes its
place, or takes its place and undoes what it has stored."""


class Callback(msgspec.Struct, frozen=True):
    """Who is told of a run's end."""

    url: str
    secret: str | None = None
    """What the message is signed with, sealed; without one, with the organisation's own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """What a new run starts with."""

    compiled: Compiled
    flow_data: Mapping[str, Any] | None = None
    """The drawing, where it is not a saved one."""
    workflow_id: UUID | None = None
    input: Any = None
    session_id: str | None = None
    trigger: str | None = None
    """The id of the trigger to start with; `None` is the StartNode, or the first trigger."""
    kind: str = "api"
    """What starts it: `api`, `cli`, `webhook`, `schedule`, `error` …"""
    durability: Literal["sync", "exit"] | None = None
    limits: Limits | None = None
    on_busy: OnBusy = "enqueue"
    now: bool = True
    """Execute it here and now, if there is room, as somebody waits for it."""
    is_watched: bool = True
    """Whether the client, or anybody later, may want partial output; else only the end of it."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What else its `trigger` knows."""
    callback: Callback | None = None
    """Who is told of its end."""
    once: Once | None = None
    """What the request is known by, as it may come again."""
    seed: Seed | None = None
    """What it takes over from an earlier run."""


class Started(NamedTuple):
    """A run that has been started, now or when the same request came before."""

    id: UUID
    is_replay: bool = False


async def insert(
    pool: Pool, org: UUID, start: Start, values: Mapping[str, Any]
) -> tuple[DictRow | UUID, list[DictRow]]:
    """Make the row of a new run, with all that belongs to it, in one transaction.

    Returns the row, or the id of the run that the same request has made before; and the runs that are to be
    cancelled for it.

    Raises:
        KeyReused: The key was used for another request.
        ThreadBusy: The session has an open run that this one may not wait for.
    """
    superseded: list[DictRow] = []
    async with pool.connection() as conn:
        if not any((start.once, start.session_id, start.flow_data, start.seed)):
            return row_of(await (await conn.execute(_INSERT, values)).fetchone()), []
        async with conn.transaction():
            if start.once is not None:
                before = await start.once.done_before(conn, org, values["id"])
                if before is not None:
                    return before, []
            if start.session_id is not None:
                superseded = await _make_room(conn, start, values)
            made = await enlist(conn, org, start, values)
    return made, superseded


async def enlist(
    conn: AsyncConnection[DictRow], org: UUID, start: Start, values: Mapping[str, Any]
) -> DictRow:
    """Make the row of a new run, and what it keeps; within a transaction."""
    if start.flow_data is not None:
        await keep_version(conn, org, start.compiled.version, start.flow_data)
    made = row_of(await (await conn.execute(_INSERT, values)).fetchone())
    if start.seed is not None:
        await keep_seed(conn, org, values["id"], start.seed)
    return made


async def _make_room(
    conn: AsyncConnection[DictRow], start: Start, values: Mapping[str, Any]
) -> list[DictRow]:
    """Do with the open runs of the session as the new one wishes; return those to be cancelled."""
    if start.on_busy in ("interrupt", "rollback"):
        rows = {"thread_id": values["thread_id"], "rolls_back": start.on_busy == "rollback"}
        return await (await conn.execute(_SUPERSEDE, rows)).fetchall()
    found = await (await conn.execute(_THREAD_RUN, values)).fetchone()
    if found and (start.on_busy == "reject" or (found["status"] == "waiting" and found["asks"])):
        raise ThreadBusy(found["id"], found["status"])
    return []


def thread_of(org: UUID, start: Start, run: UUID) -> str:
    """The thread whose state a run continues: its own, or that of its session.

    It is derived from organisation, workflow and session, so no two of them can share one. A drawing that is
    not saved is told from others by the memories in it.
    """
    if start.session_id is None:
        return f"{org}:{run}"
    memories = start.compiled.plan.memories
    workflow = str(start.workflow_id) if start.workflow_id else "\n".join(sorted(memories))
    key = f"{workflow}\n{start.session_id}"
    return f"{org}:{hashlib.sha256(key.encode()).hexdigest()}"


async def row_for(org: UUID, start: Start) -> dict[str, Any]:
    """The columns of a run that begins as `start` says.

    Raises:
        BadRequest: The trigger, the session id or the input cannot be used.
    """
    plan, version = start.compiled.plan, start.compiled.version
    if start.trigger is not None and start.trigger not in plan.triggers:
        known = ", ".join(plan.triggers) or "none"
        raise BadRequest(f"{start.trigger!r} is not a trigger of this workflow; its triggers: {known}")
    session = start.session_id
    if session is not None and not (0 < len(session) <= MAX_SESSION_ID and session.isprintable()):
        raise BadRequest(f"a session id has 1 to {MAX_SESSION_ID} printable characters")
    try:
        given, _ = await clean_aside(start.input)
    except UnsafeValue as exc:
        raise BadRequest(f"the input cannot be used: {exc}") from None
    id = new_id()
    trigger = {"type": start.kind, "step": plan.starts(start.trigger), **start.about}
    created: dict[str, Any] = {
        "workflow_id": start.workflow_id,
        "version": version,
        "session_id": session,
        "trigger": trigger,
    }
    if start.seed is not None:
        created |= {"forked_from": start.seed.forked_from, "kept": start.seed.kept}
    return {
        "id": id,
        "org": org,
        "workflow_id": start.workflow_id,
        "version": version,
        "thread_id": thread_of(org, start, id),
        "session_id": session,
        "trigger": json(trigger),
        "input": json(given),
        "durability": start.durability,
        "limits": json(start.limits) if start.limits else None,
        "forked_from": json(start.seed.forked_from) if start.seed else None,
        "callback": json(start.callback) if start.callback else None,
        "created": encode(created).decode(),
    }
