"""Start, answer, cancel, read and watch runs. What can be refused is refused before a run exists."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import msgspec
from msgspec.structs import asdict
from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

import sql
from flowserver.checkpoints import CheckpointView, list_checkpoints
from flowserver.errors import BadRequest, NotFound, RunEnded
from flowserver.events import Event
from flowserver.execution import Claim, Resources
from flowserver.executor import Executor, end_unheld
from flowserver.forks import Fork, seed_from
from flowserver.idempotency import Key
from flowserver.journal import read, watch
from flowserver.marks import marks_of
from flowserver.questions import answer
from flowserver.run_views import RunView, Status, view
from flowserver.starts import Start, Started, enlist, insert, row_for
from graphs.options import Retention
from graphs.picture import Mark

_QUERIES = sql.queries("runs")
_WISH_CANCEL = _QUERIES["wish_cancel"]
_GET = _QUERIES["get_run"]
_RUN_THREAD = sql.queries("checkpoints")["run_thread"]
_LIST = _QUERIES["list_runs"]
_PAST = _QUERIES["past_events"]


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
        values = await self._row(org, start)
        try:
            made, superseded = await insert(self._with.pool, org, start, values)
        except UniqueViolation:  # another run of the session began at this very moment: this one waits
            made, superseded = await insert(self._with.pool, org, start, values | {"claim": False})
        await self.make_way(superseded)
        if isinstance(made, UUID):
            return Started(made, is_replay=True)
        if made["status"] == "running":
            told = msgspec.json.decode(values["created"])
            created = Event(values["id"], 1, "run.created", made["created_event_at"], told)
            claim = msgspec.convert(made, Claim)
            self._executor.launch(claim, start.compiled, created, is_watched=start.is_watched)
        return Started(values["id"])

    async def enlist(self, conn: AsyncConnection[DictRow], org: UUID, start: Start) -> UUID:
        """Put a run into the queue, within the caller's transaction.

        Raises:
            BadRequest: The trigger or the input cannot be used.
        """
        values = await self._row(org, start) | {"claim": False}
        await enlist(conn, org, start, values)
        return UUID(str(values["id"]))

    async def _row(self, org: UUID, start: Start) -> dict[str, Any]:
        return await row_for(org, start) | {
            "max_attempts": self._max_attempts,
            "retention": Jsonb(asdict(start.compiled.plan.retention.over(self._retention))),
            "claim": start.now and self._executor.has_room,
            "lease": self._executor.lease,
            "worker": self._executor.worker,
        }

    async def get(self, org: UUID, id: UUID) -> RunView:
        """Read a run.

        Raises:
            NotFound: There is none of this id in `org`.
        """
        async with self._with.pool.connection() as conn:
            row = await (await conn.execute(_GET, {"org": org, "id": id})).fetchone()
        if row is None:
            raise NotFound("run", id)
        return view(row)

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
            once=key,
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
        return [view(row) for row in rows]

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

    async def make_way(self, superseded: Sequence[Mapping[str, Any]]) -> None:
        """End the runs that a new one supersedes; their rows say so already."""
        for row in superseded:
            await self._end_wished(row)

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
                async for _ in watch(self._with.pool, self._with.feeds, id, 0, is_told=False):
                    pass
        return await self.get(org, id)

    async def events(self, id: UUID, after: int, limit: int) -> list[Event]:
        """A page of a run's events after number `after`."""
        return await read(self._with.pool, id, after, limit)

    def watch(self, id: UUID, after: int, *, is_told: bool = True) -> AsyncIterator[list[Event]]:
        """The events of a run after number `after`, as they come; see `flowserver.journal.watch`."""
        return watch(self._with.pool, self._with.feeds, id, after, is_told=is_told)
