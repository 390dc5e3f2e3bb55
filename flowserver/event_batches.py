"""The events of all runs of a process, written together: every write is a commit, and a commit is what costs.

Nobody waits for company: what comes while a write is under way goes with the next one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias
from uuid import UUID

import psycopg
from psycopg.rows import DictRow

import sql
from flowserver.columns import Numbers, Texts
from flowserver.db import Pool

_APPEND_MANY = sql.queries("runs")["append_many"]

MOST = 64
"""Runs whose events go into one statement."""

Batch: TypeAlias = Mapping[str, Any]
"""What a journal appends: `run`, `epoch`, `next`, `types`, `datas`."""

logger = logging.getLogger(__name__)


class EventBatches:
    """Writes what several journals append at the same time."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._waiting: list[tuple[Batch, asyncio.Future[list[DictRow]]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def append(self, batch: Batch) -> list[DictRow]:
        """The rows of the events of `batch`, once they are written.

        There are none if the run is not held as the batch says, or nothing could be written: its journal
        finds out which.
        """
        written: asyncio.Future[list[DictRow]] = asyncio.get_running_loop().create_future()
        self._waiting.append((batch, written))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        return await written

    async def _write(self) -> None:
        try:
            while self._waiting:
                together, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                rows: dict[UUID, list[DictRow]] = {}
                try:
                    rows = await self._rows([batch for batch, _ in together])
                finally:  # whatever happens, nobody may wait for ever
                    for batch, written in together:
                        if not written.done():
                            written.set_result(rows.get(batch["run"], []))
        finally:
            self._writing = None

    async def _rows(self, batches: Sequence[Batch]) -> dict[UUID, list[DictRow]]:
        values = {
            "runs": [batch["run"] for batch in batches],
            "epochs": Numbers(batch["epoch"] for batch in batches),
            "nexts": [batch["next"] for batch in batches],
            "counts": Numbers(len(batch["types"]) for batch in batches),
            "of": [batch["run"] for batch in batches for _ in batch["types"]],
            "seqs": [batch["next"] + place for batch in batches for place in range(len(batch["types"]))],
            "types": Texts(type for batch in batches for type in batch["types"]),
            "datas": Texts(data for batch in batches for data in batch["datas"]),
        }
        try:
            async with self._pool.connection() as conn:
                rows = await (await conn.execute(_APPEND_MANY, values)).fetchall()
        except psycopg.Error as exc:
            logger.warning("events of %d runs not written together (%s)", len(batches), type(exc).__name__)
            return {}
        found: dict[UUID, list[DictRow]] = {}
        for row in rows:
            found.setdefault(row["run_id"], []).append(row)
        return found
