"""Start, answer, cancel, read and watch runs. What can be refused is refused before a run exists."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple, TypeAlias
from uuid import UUID

import msgspec
from msgspec.structs import asdict
from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

import sql
from flowserver.checkpoints import CheckpointView, Seed, keep_seed, list_checkpoints
from flowserver.db import row_of
from flowserver.errors import BadRequest, NotFound, RunEnded, ThreadBusy
from flowserver.events import FINAL, Event, encode
from flowserver.execution import Claim, Resources
from flowserver.executor import Executor, end_unheld
from flowserver.forks import Fork, seed_from
from flowserver.idempotency import Key, done_before
from flowserver.ids import new_id
from flowserver.journal import read, watch
from flowserver.marks import marks_of
from flowserver.questions import answer, body
from flowserver.workflows import json, keep_version
from graphs.compile import Compiled
from graphs.options import Limits, Retention
from graphs.picture import Mark
from graphs.values import UnsafeValue, clean

_QUERIES = sql.queries("runs")
_INSERT = _QUERIES["insert_run"]
_THREAD_RUN = _QUERIES["thread_run"]
_SUPERSEDE = _QUERIES["supersede"]
_WISH_CANCEL = _QUERIES["wish_cancel"]
_GET = _QUERIES["get_run"]
_RUN_THREAD = sql.queries("checkpoints")["run_thread"]
_LIST = _QUERIES["list_runs"]
_PAST = _QUERIES["past_events"]

MAX_SESSION_ID = 200

Status: TypeAlias = Literal["queued", "running", "waiting", "succeeded", "failed", "cancelled"]
OnBusy: TypeAlias = Literal["enqueue", "reject", "interrupt", "rollback"]
"""What a new run does while another one of its session is not done: it waits for it, is refused, takes its
place, or takes its place and undoes what it has stored."""


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """A run as clients see it."""

    id: UUID
    workflow_id: UUID | None
    version: str
    status: Status
    trigger: dict[str, Any]
    input: Any
    output: Any
    error: dict[str, Any] | None
    questions: tuple[dict[str, Any], ...]
    """The open ones: `{id, step, payload, form?, actions?, deadline?}`."""
    session_id: str | None
    attempt: int
    had_errors: bool
    usage: dict[str, int] | None
    forked_from: dict[str, Any] | None
    """What it took over: `{run, checkpoint?, step?}`."""
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    last_seq: int
    """The number of its newest event."""
    events_forgotten: bool
    """Whether its events have been kept for as long as they were to be."""

    @property
    def is_over(self) -> bool:
        return self.status in FINAL


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
    """What starts it: `api`, `cli` …"""
    durability: Literal["sync", "exit"] | None = None
    limits: Limits | None = None
    on_busy: OnBusy = "enqueue"
    now: bool = True
    """Execute it here and now, if there is room, as somebody waits for it."""
    key: Key | None = None
    """What the client calls this request, which it may send again."""
    seed: Seed | None = None
    """What it takes over from an earlier run."""


class Started(NamedTuple):
    """A run that has been started, now or when the same request came before."""

    id: UUID
    is_replay: bool = False


class Runs:
    """The runs of all organisations; every call is within one."""

    def __init__(
        self, resources: Resources, executor: Executor, max_attempts: int, retention: Retention
    ) -> None:
        """`retention` is for workflows that say nothing of it."""
        self._with = resources
        self._executor = executor
        self._max_attempts = max_attempts
        self._retention = retention

    async def start(self, org: UUID, start: Start) -> Started:
        """Make a run of `start` and see to its execution. With a key that was used, that run is meant again.

        Raises:
            BadRequest: The trigger, the session id or the input cannot be used.
            KeyReused: The key was used for another request.
            ThreadBusy: The session has an open run that this one may not wait for.
        """
        values = _row(org, start) | {
            "max_attempts": self._max_attempts,
            "retention": Jsonb(asdict(start.compiled.plan.retention.over(self._retention))),
            "claim": start.now and self._executor.has_room,
            "lease": self._executor.lease,
            "worker": self._executor.worker,
        }
        try:
            made = await self._insert(org, start, values)
        except UniqueViolation:  # another run of the session began at this very moment: this one waits
            made = await self._insert(org, start, values | {"claim": False})
        if isinstance(made, UUID):
            return Started(made, is_replay=True)
        if made["status"] == "running":
            told = msgspec.json.decode(values["created"])
            created = Event(values["id"], 1, "run.created", made["created_event_at"], told)
            self._executor.launch(msgspec.convert(made, Claim), start.compiled, created)
        return Started(values["id"])

    async def _insert(self, org: UUID, start: Start, values: Mapping[str, Any]) -> DictRow | UUID:
        """The row of the new run, or the id of that which the same request has made before."""
        superseded: list[DictRow] = []
        async with self._with.pool.connection() as conn:
            if not any((start.key, start.session_id, start.flow_data, start.seed)):
                return row_of(await (await conn.execute(_INSERT, values)).fetchone())
            async with conn.transaction():
                if start.key is not None:
                    before = await done_before(conn, org, start.key, values["id"])
                    if before is not None:
                        return before
                if start.session_id is not None:
                    superseded = await _make_room(conn, start, values)
                if start.flow_data is not None:
                    await keep_version(conn, org, start.compiled.version, start.flow_data)
                made = row_of(await (await conn.execute(_INSERT, values)).fetchone())
                if start.seed is not None:
                    await keep_seed(conn, org, values["id"], start.seed)
        for row in superseded:
            await self._end_wished(row)
        return made

    async def get(self, org: UUID, id: UUID) -> RunView:
        """Read a run.

        Raises:
            NotFound: There is none of this id in `org`.
        """
        async with self._with.pool.connection() as conn:
            row = await (await conn.execute(_GET, {"org": org, "id": id})).fetchone()
        if row is None:
            raise NotFound("run", id)
        return _view(row)

    async def marks(self, org: UUID, id: UUID) -> dict[str, Mark]:
        """What became of each step of a run so far.

        Raises:
            NotFound: There is none of this id in `org`.
        """
        run = await self.get(org, id)
        async with self._with.pool.connection() as conn:
            past = await (await conn.execute(_PAST, {"run": id})).fetchall()
        return marks_of(past, [each["step"] for each in run.questions if "within" not in each])

    async def checkpoints(self, org: UUID, id: UUID, after: str | None, limit: int) -> list[CheckpointView]:
        """The moments at which the state of a run was saved, oldest first, after the one called `after`.

        Raises:
            NotFound: There is none of this id in `org`.
        """
        row = await self._thread(org, id)
        compiled = await self._with.workflows.compiled(org, row["version"])
        return await list_checkpoints(self._with.pool, compiled.plan, id, row["thread_id"], after, limit)

    async def fork(
        self,
        org: UUID,
        id: UUID,
        fork: Fork,
        *,
        version: str | None = None,
        input: Any = msgspec.UNSET,
        key: Key | None = None,
    ) -> Started:
        """Start a new run that takes over what another one has done.

        It is of the other's version, of another `version` of the workflow, or of the workflow as it stands
        (`current`).

        Raises:
            NotFound: There is no such run, checkpoint or version in `org`.
            BadRequest: There is no such step, output or port, or a run cannot begin there.
            InvalidWorkflow: The version does not compile.
        """
        row = await self._thread(org, id)
        keeps = None
        if version is None:
            compiled = await self._with.workflows.compiled(org, row["version"])
        elif row["workflow_id"] is None:
            raise BadRequest(f"run {id} is not one of a saved workflow, so it has no other version")
        else:
            chosen = None if version == "current" else version
            compiled, keeps = await self._with.workflows.runnable(org, row["workflow_id"], chosen)
        trigger = row["trigger"]
        start = Start(
            compiled=compiled,
            flow_data=keeps,
            workflow_id=row["workflow_id"],
            input=row["input"] if input is msgspec.UNSET else input,
            trigger=trigger["step"] if trigger["step"] in compiled.plan.triggers else None,
            kind=trigger["type"],
            key=key,
            seed=await seed_from(self._with.pool, compiled.plan, id, row["thread_id"], fork),
        )
        return await self.start(org, start)

    async def _thread(self, org: UUID, id: UUID) -> DictRow:
        async with self._with.pool.connection() as conn:
            row = await (await conn.execute(_RUN_THREAD, {"org": org, "run": id})).fetchone()
        if row is None:
            raise NotFound("run", id)
        return row

    async def page(
        self,
        org: UUID,
        *,
        workflow_id: UUID | None = None,
        status: Status | None = None,
        session_id: str | None = None,
        before: UUID | None = None,
        limit: int = 50,
    ) -> list[RunView]:
        """The newest runs that fit, or those older than `before`."""
        values = {
            "org": org,
            "workflow_id": workflow_id,
            "status": status,
            "session_id": session_id,
            "before": before,
            "limit": limit,
        }
        async with self._with.pool.connection() as conn:
            rows = await (await conn.execute(_LIST, values)).fetchall()
        return [_view(row) for row in rows]

    async def resume(
        self, org: UUID, id: UUID, question_id: UUID | None, given: Any, key: Key | None = None
    ) -> tuple[RunView, bool]:
        """Answer a question of a run, which then goes on; without `question_id` the only open one.

        Returns the run, and whether this was done when the same request, by its key, came before.

        Raises:
            NotFound: No such run or question in `org`.
            NotOpen: It has been answered, or no longer waits; also of two equal answers the second.
            KeyReused: The key was used for another answer.
            BadRequest: The answer does not fit the question, or there are several and none is named.
        """
        await self.get(org, id)
        is_replay = await answer(self._with.pool, org, id, question_id, given, key)
        if not is_replay:
            await self._executor.claim(id)  # sooner than by the job that the answer has made
        return await self.get(org, id), is_replay

    async def take_up(self, id: UUID) -> bool:
        """Execute a queued run here, if nobody has claimed it yet; whether it was free."""
        return await self._executor.claim(id)

    async def cancel(self, org: UUID, id: UUID) -> RunView:
        """Cancel a run: at once if nobody executes it, else as soon as its process hears of it.

        Raises:
            NotFound: There is none of this id in `org`.
            RunEnded: It has succeeded or failed already.
        """
        async with self._with.pool.connection() as conn:
            row = await (await conn.execute(_WISH_CANCEL, {"org": org, "id": id})).fetchone()
        if row is None:
            found = await self.get(org, id)
            if found.status == "cancelled":
                return found
            raise RunEnded(id, found.status)
        await self._end_wished({**row, "id": id})
        return await self.get(org, id)

    async def _end_wished(self, row: Mapping[str, Any]) -> None:
        """See to it that a run ends whose cancelling has been wished for."""
        if row["status"] != "running":
            await end_unheld(self._with, row["id"], row["epoch"], "cancelled")
        elif not self._executor.cancel(row["id"]):
            self._with.signals.tell("cancel", row["id"])

    async def wait(self, org: UUID, id: UUID, seconds: float) -> RunView:
        """The run when it has ended or asks something, or as it is after `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                async for _ in self.watch(id, 0):
                    pass
        return await self.get(org, id)

    async def events(self, id: UUID, after: int, limit: int) -> list[Event]:
        """A page of a run's events after number `after`."""
        return await read(self._with.pool, id, after, limit)

    def watch(self, id: UUID, after: int) -> AsyncIterator[list[Event]]:
        """The events of a run after number `after`, as they come; see `flowserver.journal.watch`."""
        return watch(self._with.pool, self._with.feeds, id, after)


async def _make_room(
    conn: AsyncConnection[DictRow], start: Start, values: Mapping[str, Any]
) -> list[DictRow]:
    """Do with the open runs of the session as the new one wishes; return those to be cancelled."""
    if start.on_busy in ("interrupt", "rollback"):
        rows = {"thread_id": values["thread_id"], "rolls_back": start.on_busy == "rollback"}
        return await (await conn.execute(_SUPERSEDE, rows)).fetchall()
    found = await (await conn.execute(_THREAD_RUN, values)).fetchone()
    if found and (start.on_busy == "reject" or found["status"] == "waiting"):
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


def _row(org: UUID, start: Start) -> dict[str, Any]:
    plan, version = start.compiled.plan, start.compiled.version
    if start.trigger is not None and start.trigger not in plan.triggers:
        known = ", ".join(plan.triggers) or "none"
        raise BadRequest(f"{start.trigger!r} is not a trigger of this workflow; its triggers: {known}")
    session = start.session_id
    if session is not None and not (0 < len(session) <= MAX_SESSION_ID and session.isprintable()):
        raise BadRequest(f"a session id has 1 to {MAX_SESSION_ID} printable characters")
    try:
        given = clean(start.input)
    except UnsafeValue as exc:
        raise BadRequest(f"the input cannot be used: {exc}") from None
    id = new_id()
    trigger = {"type": start.kind, "step": plan.starts(start.trigger)}
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
        "created": encode(created).decode(),
    }


def _view(row: Mapping[str, Any]) -> RunView:
    return msgspec.convert({**row, "questions": [body(each) for each in row["questions"]]}, RunView)
