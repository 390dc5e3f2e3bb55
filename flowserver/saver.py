"""LangGraph's Postgres saver, fenced: only the process that holds a run writes its state.

One saver per run: the stock one has a lock around every database call (it would serialise all runs of a
process), and ours knows the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import UUID

import psycopg
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_serializable_checkpoint_metadata,
)
from langgraph.checkpoint.base import id as checkpoint_ids
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from psycopg import AsyncCursor
from psycopg.rows import DictRow, dict_row

import sql
from flowserver.checkpoint_rows import Rows, Serialized, fits_json, is_small
from flowserver.db import Pool
from flowserver.journal import Journal

MARK = "fs_run_id"
"""The key of a checkpoint's metadata that names the run it belongs to."""

SERIALIZER = JsonPlusSerializer(allowed_msgpack_modules=None)
"""Builds LangChain's message types and plain data, nothing else, whatever a row says."""

SMALL = 64_000
"""Bytes that are decoded in the event loop; a thread takes over more."""

TURNS = 3
"""Turns of the event loop for which rows are gathered: LangGraph hands over what the last step of a superstep
has written, and a turn or two later the checkpoint behind it. Together they are one commit."""

_STORE = sql.queries("checkpoints")["store"]
_HOLD = "SELECT hold_run(%s, %s)"
_NOT_HELD = "FS001"


class FencedSaver(AsyncPostgresSaver):
    """The checkpoints of one thread as one run may see and write them.

    What is to be stored in the same moment is stored by one statement, together with the events told so far:
    what a step told must be in the journal when the step counts as done, as it is never run again then.
    """

    def __init__(self, pool: Pool, journal: Journal, keeps: frozenset[str], *, is_new: bool = False) -> None:
        """`keeps` are the channels that outlive a run.

        `is_new` says that nothing can be stored for the thread yet, so that nobody has to look.
        """
        super().__init__(pool, serde=SERIALIZER)
        self._pool = pool
        self._journal = journal
        self._keeps = keeps
        self._is_new = is_new
        self._gathered: tuple[Rows, asyncio.Task[None]] | None = None
        self._kept_tasks: list[str] = []
        """Whose writes are gathered: with them their events are written."""
        self._keeps_all = False
        self._writes: set[asyncio.Task[None]] = set()
        self._dumping: set[asyncio.Task[list[Serialized]]] = set()

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        found = None if self._is_new else await super().aget_tuple(config)
        if found is None:
            return None
        _keep_ahead_of(found.checkpoint["id"])
        is_mine = found.metadata.get(MARK) == str(self._journal.run)
        return found if is_mine else self._fresh(found)

    def _fresh(self, found: CheckpointTuple) -> CheckpointTuple:
        """What another run left, as a new run starts with it: only the channels that outlive runs."""
        old = found.checkpoint
        kept = {name: value for name, value in old["channel_values"].items() if name in self._keeps}
        versions = {name: old["channel_versions"][name] for name in kept}
        checkpoint: Checkpoint = {
            **old,
            "channel_values": kept,
            "channel_versions": versions,
            "versions_seen": {},
        }
        return found._replace(checkpoint=checkpoint, pending_writes=[])

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        self._is_new = False
        where = config["configurable"]
        inline = dict(checkpoint["channel_values"])
        apart: dict[str, Any] = {}
        for name, value in checkpoint["channel_values"].items():
            if not fits_json(value):
                apart[name] = inline.pop(name)
                if isinstance(value, _DeltaSnapshot):
                    inline[name] = True
        changed = {name: value for name, value in apart.items() if name in new_versions}
        told = cast("Mapping[str, Any]", get_serializable_checkpoint_metadata(config, metadata))

        is_outermost = not where["checkpoint_ns"]

        def add(rows: Rows, blobs: Iterable[Serialized]) -> None:
            self._keeps_all |= is_outermost  # behind it, all tasks of the superstep have ended
            rows.add_blobs(where["checkpoint_ns"], new_versions, dict(zip(changed, blobs, strict=True)))
            lean = {**checkpoint, "channel_values": inline}
            rows.add_checkpoint(where["checkpoint_ns"], where.get("checkpoint_id"), lean, told)

        await self._store(where["thread_id"], list(changed.values()), add)
        here = {key: where[key] for key in ("thread_id", "checkpoint_ns")}
        return {"configurable": here | {"checkpoint_id": checkpoint["id"]}}

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        where = config["configurable"]

        def add(rows: Rows, values: Iterable[Serialized]) -> None:
            written = [(channel, value) for (channel, _), value in zip(writes, values, strict=True)]
            self._kept_tasks.append(task_id)
            rows.add_writes(where["checkpoint_ns"], where["checkpoint_id"], task_id, task_path, written)

        await self._store(where["thread_id"], [value for _, value in writes], add)

    async def _store(
        self, thread: str, values: Sequence[Any], add: Callable[[Rows, Iterable[Serialized]], None]
    ) -> None:
        """Store what `add` adds, given `values` as bytes, with whatever else is added before that begins.

        Raises:
            Fenced: The run has been lost, and nothing was stored.
        """
        if is_small(values):
            dumped = self._dumped(values)
        else:
            dumping = asyncio.create_task(asyncio.to_thread(self._dumped, values))
            self._dumping.add(dumping)
            dumping.add_done_callback(self._dumping.discard)
            dumped = await dumping
        if self._gathered is None:
            task = asyncio.create_task(self._write())
            self._writes.add(task)
            task.add_done_callback(self._written)
            self._gathered = Rows(thread), task
        rows, written = self._gathered
        add(rows, dumped)
        # Whoever waits may be cancelled, the write is not: others wait for it too.
        await asyncio.shield(written)

    def _dumped(self, values: Iterable[Any]) -> list[Serialized]:
        return [self.serde.dumps_typed(value) for value in values]

    async def _write(self) -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)
        while self._dumping:
            await asyncio.wait(self._dumping)
            await asyncio.sleep(0)
        await self._journal.append_along(_STORE, self._take)

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writes.discard(task)
        if not task.cancelled():
            task.exception()  # told to whoever waited, unless they have left

    def _take(self) -> dict[str, Any]:
        assert self._gathered is not None
        (rows, _), self._gathered = self._gathered, None
        for task in self._kept_tasks:
            self._journal.keep(task)
        if self._keeps_all:
            self._journal.keep_all()
        self._kept_tasks, self._keeps_all = [], False
        return rows.values()

    async def _load_checkpoint_tuple(self, value: DictRow) -> CheckpointTuple:
        kept = [*(value["channel_values"] or ()), *(value["pending_writes"] or ())]
        if sum(len(part) for row in kept for part in row if part) < SMALL:
            return self._loaded(value)
        return await asyncio.to_thread(self._loaded, value)

    def _loaded(self, value: DictRow) -> CheckpointTuple:
        here = {key: value[key] for key in ("thread_id", "checkpoint_ns", "checkpoint_id")}
        parent = value["parent_checkpoint_id"]
        inline = value["checkpoint"].get("channel_values") or {}
        values = inline | self._load_blobs(value["channel_values"])
        checkpoint = cast("Checkpoint", value["checkpoint"] | {"channel_values": values})
        return CheckpointTuple(
            {"configurable": here},
            checkpoint,
            value["metadata"],
            {"configurable": here | {"checkpoint_id": parent}} if parent else None,
            self._load_writes(value["pending_writes"]),
        )

    @asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncIterator[AsyncCursor[DictRow]]:
        """What the stock saver reads and deletes with; in a transaction that holds the run if it writes."""
        try:
            async with self._pool.connection() as conn:
                if not pipeline:
                    async with conn.cursor(binary=True, row_factory=dict_row) as cur:
                        yield cur
                    return
                async with conn.transaction(), conn.cursor(binary=True, row_factory=dict_row) as cur:
                    await cur.execute(_HOLD, (self._journal.run, self._journal.epoch))
                    yield cur
        except psycopg.DatabaseError as exc:
            if exc.sqlstate == _NOT_HELD:
                raise self._journal.lost() from None
            raise


def _keep_ahead_of(id: str) -> None:
    """Make the next checkpoint id newer than `id`, even when this machine's clock is behind its writer's.

    The newest checkpoint is the one with the greatest id, and ids are uuid6 of the local clock
    (langgraph.checkpoint.base.id keeps them rising within one process only).
    """
    number = UUID(id).int
    timestamp = (number >> 80) << 12 | (number >> 64) & 0x0FFF
    last: int | None = checkpoint_ids._last_v6_timestamp
    if last is None or last < timestamp:
        checkpoint_ids._last_v6_timestamp = timestamp  # type: ignore[assignment]  # it is typed as None
