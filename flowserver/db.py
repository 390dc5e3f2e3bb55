"""The pool of connections, and the schema brought up to date."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import psycopg
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg import AsyncConnection, BaseConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests

import sql
from flowserver.errors import Unavailable
from flowserver.queue_schema import queue_migrations

OLDEST = 150000
"""Postgres 15: the first with what our queries and pgvector's indexes need."""

PATIENCE: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
}
"""How a connection finds out that the other side is gone without a word."""

MOST_HELD = 20.0
"""Seconds for which a connection of the pool may be held; nothing else is awaited meanwhile, so a longer time
means that the database does not answer."""

PAUSES = (0.05, 0.1, 0.2, 0.4)
"""Seconds, more or less, before a write is tried again."""

T = TypeVar("T")

logger = logging.getLogger(__name__)

_LOCK = 7_231_001


class Pool(AsyncConnectionPool[AsyncConnection[DictRow]]):
    """The process's connections. One that is held too long is hung up: whoever waits on it gets an error."""

    @asynccontextmanager
    async def connection(self, timeout: float | None = None) -> AsyncIterator[AsyncConnection[DictRow]]:  # noqa: ASYNC109  psycopg's
        async with super().connection(timeout) as conn:
            too_long = asyncio.get_running_loop().call_later(MOST_HELD, hang_up, conn)
            try:
                yield conn
            finally:
                too_long.cancel()


def make_pool(dsn: str, size: int = 16) -> Pool:
    """A pool that is not open yet. It fails fast: better a 503 than a client that waits for half a minute."""
    return Pool(
        dsn,
        kwargs={"autocommit": True, "row_factory": dict_row, **PATIENCE},
        min_size=2,
        max_size=size,
        timeout=3,
        max_waiting=1000,
        check=_check,
        open=False,
        connection_class=AsyncConnection[DictRow],
    )


async def _check(conn: AsyncConnection[DictRow]) -> None:
    """Refuse a connection that the server has closed: it has said so, which costs no round trip to see."""
    poll = select.poll()
    poll.register(conn.fileno(), select.POLLIN)
    if poll.poll(0):
        await AsyncConnectionPool.check_connection(conn)


async def tried_again(write: Callable[[], Awaitable[T]]) -> T:
    """What `write` gives; it is called again when Postgres gave its transaction up, or its line broke.

    So it must not matter whether it was carried out before. Without a line there is no second try: the
    pool has waited for one already.
    """
    for pause in PAUSES:
        try:
            return await write()
        except (PoolTimeout, TooManyRequests):
            raise
        except (psycopg.OperationalError, psycopg.errors.TransactionRollback) as exc:
            logger.warning("not written (%s); trying again", type(exc).__name__)
        await asyncio.sleep(pause * random.uniform(0.5, 1.5))
    return await write()


def hang_up(conn: BaseConnection[Any]) -> None:
    """End a connection from outside: whatever waits for an answer on it is told that there will be none."""
    if conn.closed:
        return
    with socket.socket(fileno=os.dup(conn.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


async def migrate(dsn: str) -> None:
    """Apply every migration that this database has not seen, also LangGraph's and Procrastinate's.

    Replicas may do it at once.

    Raises:
        Unavailable: The server cannot be reached, is too old, or has no pgvector.
    """
    try:
        conn = await AsyncConnection.connect(
            dsn, autocommit=True, row_factory=dict_row, **PATIENCE | {"connect_timeout": 10}
        )
    except psycopg.OperationalError as exc:
        raise Unavailable(f"Postgres cannot be reached: {str(exc).strip().splitlines()[0]}") from None
    async with conn:
        await _suitable(conn)
        await _locked(conn)
        try:
            # It creates indexes concurrently, which a waiting lock would deadlock with: hence the polled one.
            await AsyncPostgresSaver(conn).setup()
            await _apply(conn)
        finally:
            await conn.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))


async def _suitable(conn: AsyncConnection[DictRow]) -> None:
    if conn.info.server_version < OLDEST:
        found = conn.info.server_version // 10000
        raise Unavailable(f"this Postgres is version {found}; flowserver needs {OLDEST // 10000} or later")
    query = "SELECT 1 FROM pg_available_extensions WHERE name = 'vector'"
    if await (await conn.execute(query)).fetchone() is None:
        raise Unavailable(
            "this Postgres has no pgvector; install its extension 'vector' on the database server"
        )


async def _locked(conn: AsyncConnection[DictRow]) -> None:
    while True:
        row = await (await conn.execute("SELECT pg_try_advisory_lock(%s) AS got", (_LOCK,))).fetchone()
        if row and row["got"]:
            return
        await asyncio.sleep(0.05)


async def _apply(conn: AsyncConnection[DictRow]) -> None:
    await conn.execute("CREATE TABLE IF NOT EXISTS migration (name text PRIMARY KEY)")
    rows = await (await conn.execute("SELECT name FROM migration")).fetchall()
    seen = {row["name"] for row in rows}
    for name, text in (*queue_migrations(seen), *sql.migrations()):
        if name not in seen:
            async with conn.transaction():
                try:
                    await conn.execute(text)
                except psycopg.errors.InsufficientPrivilege as exc:
                    raise Unavailable(
                        f"the database user may not apply {name}: {exc.diag.message_primary}"
                    ) from None
                await conn.execute("INSERT INTO migration (name) VALUES (%s)", (name,))


def row_of(found: dict[str, Any] | None) -> dict[str, Any]:
    """The row of a statement that always returns one."""
    assert found is not None
    return found
