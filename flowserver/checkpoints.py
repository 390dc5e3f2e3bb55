"""The checkpoints of a run, as clients see them, and the state that a fork of one starts with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg import AsyncConnection
from psycopg.rows import DictRow

import sql
from flowserver.db import Pool, row_of
from flowserver.saver import MARK, SERIALIZER
from graphs.plan import Plan
from graphs.rerun import absorb, memory_channels, outcomes, taken_over

_QUERIES = sql.queries("checkpoints")
_LIST = _QUERIES["list_checkpoints"]
_VERSIONS = _QUERIES["checkpoint_versions"]
_PUT_SEED = _QUERIES["put_seed"]
_GET_SEED = _QUERIES["get_seed"]
_COPY_LARGE = _QUERIES["copy_large"]

_BROKEN_OFF = frozenset({"__error__", "__interrupt__"})
"""What LangGraph has a task write that did not end."""


class CheckpointView(msgspec.Struct, frozen=True):
    """A moment of a run that its state was saved at."""

    id: str
    parent: str | None
    at: datetime
    superstep: int
    """-1 is the run's input."""
    changed: tuple[str, ...]
    """The steps that were decided since the checkpoint before."""
    memory: tuple[str, ...]
    """The variables, as `vars.<name>`, and the memories, by node id, that changed since."""


@dataclass(frozen=True, slots=True)
class Seed:
    """What a new run takes over from an earlier one."""

    run: UUID
    """The earlier one."""
    forked_from: Mapping[str, Any]
    kept: tuple[str, ...]
    """The steps that it need not run."""
    state: Mapping[str, Any]


async def list_checkpoints(
    pool: Pool, plan: Plan, run: UUID, thread: str, after: str | None, limit: int
) -> list[CheckpointView]:
    """The checkpoints of `run` after checkpoint `after`, oldest first, at most `limit`."""
    values = {"thread": thread, "run": str(run), "after": after, "limit": limit}
    async with pool.connection() as conn:
        rows = await (await conn.execute(_LIST, values)).fetchall()
        before: Mapping[str, Any] = {}
        if rows and rows[0]["parent"] is not None:
            parent = {"thread": thread, "id": rows[0]["parent"]}
            found = await (await conn.execute(_VERSIONS, parent)).fetchone()
            before = found["versions"] if found else {}
    steps, memory = outcomes(plan), memory_channels(plan)
    views: list[CheckpointView] = []
    for row in rows:
        changed = {name for name, version in row["versions"].items() if before.get(name) != version}
        views.append(
            CheckpointView(
                row["id"],
                row["parent"],
                msgspec.convert(row["at"], datetime),
                row["superstep"],
                tuple(step for name, step in steps.items() if name in changed),
                tuple(each for name, each in memory.items() if name in changed),
            )
        )
        before = row["versions"]
    return views


class History:
    """The states of a run in Postgres."""

    def __init__(self, pool: Pool, plan: Plan, run: UUID, thread: str) -> None:
        self._saver = AsyncPostgresSaver(pool, serde=SERIALIZER)
        self._plan = plan
        self._run = run
        self._thread = thread

    async def at(self, checkpoint: str) -> dict[str, Any] | None:
        """The state of the run at one of its checkpoints; `None` if it is not one."""
        found = await self._saver.aget_tuple(self._config(checkpoint_id=checkpoint))
        return self._state(found) if found is not None and self._is_mine(found) else None

    async def newest(self) -> dict[str, Any]:
        """The last state of the run, with what tasks have done since; empty if none was saved."""
        async for found in self._saver.alist(self._config(), filter={MARK: str(self._run)}, limit=1):
            writes: dict[str, list[tuple[str, Any]]] = {}
            for task, name, value in found.pending_writes or ():
                writes.setdefault(task, []).append((name, value))
            done = [each for each in writes.values() if _BROKEN_OFF.isdisjoint(name for name, _ in each)]
            return absorb(
                self._plan, found.checkpoint["channel_values"], [pair for each in done for pair in each]
            )
        return {}

    async def before(self, step: str) -> dict[str, Any]:
        """The last state in which `step` was not decided yet; empty if none was saved."""
        channel = next(name for name, id in outcomes(self._plan).items() if id == step)
        async for found in self._saver.alist(self._config()):
            if not self._is_mine(found):  # what the thread held before the run
                kept = memory_channels(self._plan)
                return {name: value for name, value in self._state(found).items() if name in kept}
            if channel not in found.checkpoint["channel_values"]:
                return self._state(found)
        return {}

    def _config(self, **more: str) -> Any:
        return {"configurable": {"thread_id": self._thread, "checkpoint_ns": "", **more}}

    def _is_mine(self, found: CheckpointTuple) -> bool:
        return found.metadata.get(MARK) == str(self._run)

    def _state(self, found: CheckpointTuple) -> dict[str, Any]:
        return taken_over(self._plan, found.checkpoint["channel_values"])


async def keep_seed(conn: AsyncConnection[DictRow], org: UUID, run: UUID, seed: Seed) -> None:
    """Keep what `run` takes over, with the large values that it may mean."""
    type, state = SERIALIZER.dumps_typed(dict(seed.state))
    await conn.execute(_PUT_SEED, {"run": run, "org": org, "type": type, "state": state})
    await conn.execute(_COPY_LARGE, {"run": run, "from": seed.run})


async def seed_of(pool: Pool, run: UUID) -> dict[str, Any]:
    """What `run` takes over."""
    async with pool.connection() as conn:
        row = row_of(await (await conn.execute(_GET_SEED, {"run": run})).fetchone())
    return dict(SERIALIZER.loads_typed((row["type"], row["state"])))
