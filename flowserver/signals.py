"""What processes tell each other: that something is new, never what. The database knows that.

One connection per process listens. What is to be told is gathered for a moment and sent in one NOTIFY, as a
commit that notifies waits for every other one that does. A signal that is lost costs a poll's time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from typing import Any, Literal, TypeAlias
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import PoolTimeout, TooManyRequests

import sql
from flowserver.db import PATIENCE, Pool, given_up

_NOTIFY = sql.queries("signals")["notify"]

DELAY = 0.01
"""Seconds for which signals are gathered."""
MOST = 150
"""Ids in one NOTIFY: its payload has room for 7,999 bytes."""
CHECK = 15.0
"""Seconds between two looks whether a quiet connection still lives, and for which it may think about that."""
PAUSE = 1.0
"""Seconds before a lost connection is replaced."""

Kind: TypeAlias = Literal["events", "cancel"]
"""A run has new events; a run is to be cancelled."""

logger = logging.getLogger(__name__)


class Signals:
    """Tells other processes, and hears them."""

    def __init__(self, dsn: str, pool: Pool) -> None:
        self._dsn = dsn
        self._pool = pool
        self._self = secrets.token_hex(4)
        self._news: dict[tuple[Kind, UUID], None] = {}
        self._added = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def tell(self, kind: Kind, run: UUID) -> None:
        """Tell the other processes, soon."""
        self._news[kind, run] = None
        self._added.set()

    def start(self, heard: Callable[[Kind, UUID], None], missed: Callable[[], None]) -> None:
        """Begin; `missed` is called when some signals may not have been heard."""
        self._tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._listen(heard, missed))]

    async def stop(self) -> None:
        """Send what is left, and end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._news:
            with contextlib.suppress(psycopg.Error, PoolTimeout, TooManyRequests):
                await self._notify()

    async def _send(self) -> None:
        while True:
            await self._added.wait()
            await asyncio.sleep(DELAY)
            try:
                await self._notify()
            except (psycopg.Error, PoolTimeout, TooManyRequests) as exc:  # whoever waits polls as well
                logger.warning("other processes were not told what is new: %s", type(exc).__name__)

    async def _notify(self) -> None:
        news, self._news = self._news, {}
        self._added.clear()
        payloads = []
        for kind in ("events", "cancel"):
            ids = [str(run) for each, run in news if each == kind]
            for start in range(0, len(ids), MOST):
                payloads.append(f"{self._self} {kind} {','.join(ids[start : start + MOST])}")
        async with self._pool.connection() as conn:
            await conn.execute(_NOTIFY, {"payloads": payloads})

    async def _listen(self, heard: Callable[[Kind, UUID], None], missed: Callable[[], None]) -> None:
        while True:
            try:
                async with await AsyncConnection.connect(self._dsn, autocommit=True, **PATIENCE) as conn:
                    await conn.execute("LISTEN flowserver")
                    missed()
                    await self._hear(conn, heard)
            except psycopg.Error as exc:
                logger.warning(
                    "signals are not heard for a moment: %s", str(exc).strip() or type(exc).__name__
                )
            await asyncio.sleep(PAUSE)

    async def _hear(self, conn: AsyncConnection[Any], heard: Callable[[Kind, UUID], None]) -> None:
        while True:
            async for notify in conn.notifies(timeout=CHECK):
                sender, kind, ids = notify.payload.split(" ")
                if sender != self._self:
                    for id in ids.split(","):
                        heard(kind, UUID(id))  # type: ignore[arg-type]  # our own processes send nothing else
            async with given_up(conn, CHECK):
                await conn.execute("SELECT 1")
