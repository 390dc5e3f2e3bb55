"""LangGraph's Postgres saver, fenced: only the process that holds a run writes its state.

One saver per run: the stock one has a lock around every database call (it would serialise all runs of a
process), and ours knows the run.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import psycopg
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.base import id as checkpoint_ids
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from psycopg import AsyncCursor
from psycopg.rows import DictRow, dict_row

from flowserver.db import Pool, tried_again
from flowserver.errors import Fenced

MARK = "fs_run_id"
"""The key of a checkpoint's metadata that names the run it belongs to."""

SERIALIZER = JsonPlusSerializer(allowed_msgpack_modules=None)
"""Builds LangChain's message types and plain data, nothing else, whatever a row says."""

_HOLD = "SELECT hold_run(%s, %s)"
_NOT_HELD = "FS001"


class FencedSaver(AsyncPostgresSaver):
    """The checkpoints of one thread as one run may see and write them."""

    def __init__(
        self,
        pool: Pool,
        run: UUID,
        epoch: int,
        keeps: frozenset[str],
        flush: Callable[[], Awaitable[None]],
        *,
        is_new: bool = False,
    ) -> None:
        """`keeps` are the channels that outlive a run, `flush` writes the events told so far.

        `is_new` says that nothing can be stored for the thread yet, so that nobody has to look.
        """
        super().__init__(pool, serde=SERIALIZER)
        self._pool = pool
        self._run = run
        self._epoch = epoch
        self._keeps = keeps
        self._flush = flush
        self._is_new = is_new

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        found = None if self._is_new else await super().aget_tuple(config)
        if found is None:
            return None
        _keep_ahead_of(found.checkpoint["id"])
        is_mine = found.metadata.get(MARK) == str(self._run)
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
        # What a step told must be in the journal before it can count as done: it is never run again then.
        await self._flush()
        self._is_new = False
        put = super().aput
        return await tried_again(lambda: put(config, checkpoint, metadata, new_versions))

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        await self._flush()
        put = super().aput_writes
        await tried_again(lambda: put(config, writes, task_id, task_path))

    @asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncIterator[AsyncCursor[DictRow]]:
        """A cursor on a connection of the pool; one that writes is in a transaction that holds the run."""
        try:
            async with self._pool.connection() as conn:
                if not pipeline:
                    async with conn.cursor(binary=True, row_factory=dict_row) as cur:
                        yield cur
                    return
                async with (
                    conn.pipeline(),
                    conn.transaction(),
                    conn.cursor(binary=True, row_factory=dict_row) as cur,
                ):
                    await cur.execute(_HOLD, (self._run, self._epoch))
                    yield cur
        except psycopg.DatabaseError as exc:
            if exc.sqlstate == _NOT_HELD:
                raise Fenced(f"run {self._run} is no longer held under epoch {self._epoch}") from None
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
