"""The pool of connections, and the schema brought up to date."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import select
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, NamedTuple, TypeVar

import psycopg
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.store.postgres.aio import AsyncPostgresStore
from psycopg import AsyncConnection, BaseConnection
from psycopg.abc import RV, PQGen
from psycopg.adapt import AdaptersMap
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

import sql
from flowserver import columns
from flowserver.errors import Unavailable
from flowserver.queue_schema import queue_migrations, queue_names
from nodes.contract import ServerTrouble

T = TypeVar("T")

OLDEST = 150000
"""Postgres 15: the first with what our queries and pgvector's indexes need."""

OLDEST_PGVECTOR = (0, 8)
"""The first that goes on through its index until enough rows fit a filter."""

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

MOST_CHECKED = 3.0
"""Seconds that it may take to find out whether a connection is good."""

TRUSTED = 1.0
"""Seconds for which a connection counts as good after it was."""

_LOCK = 7_231_001

logger = logging.getLogger(__name__)


_OUTAGES = ("08", "40", "53", "55P03", "57P", "25006")
"""SQLSTATEs of errors that another attempt may not meet: no connection, a transaction broken off, no room, a
lock not available, a server that stops or starts, a standby."""

TRIES = 6
"""How often something is asked of the database before the run that needs it is left for later."""


def is_outage(exc: BaseException) -> bool:
    """Whether the server's own database is away or has no room, so that asking again later may help."""
    if not isinstance(exc, psycopg.OperationalError):
        return False
    return exc.sqlstate is None or exc.sqlstate.startswith(_OUTAGES)


async def persist(ask: Callable[[], Awaitable[T]]) -> T:
    """Return what `ask` returns; ask again, with growing pauses, while the server's own database is away.

    It is asked `TRIES` times: each may wait for a connection for as long as the pool does, so that a database
    that is away for some ten seconds is waited for.

    Raises:
        ServerTrouble: The database stayed away.
    """
    for attempt in range(TRIES):
        try:
            return await ask()
        except Exception as exc:
            if not (isinstance(exc, ServerTrouble) or is_outage(exc)):
                raise
            if attempt == TRIES - 1:
                raise exc if isinstance(exc, ServerTrouble) else ServerTrouble() from exc
            logger.warning("waiting for the database (%s)", type(exc.__cause__ or exc).__name__)
            await asyncio.sleep(0.1 * 2**attempt)
    raise AssertionError("unreachable")


class Pool(AsyncConnectionPool[AsyncConnection[DictRow]]):
    """The process's connections. One that is held too long is hung up: whoever waits on it gets an error."""

    @asynccontextmanager
    async def connection(self, timeout: float | None = None) -> AsyncIterator[AsyncConnection[DictRow]]:  # noqa: ASYNC109  psycopg's
        async with super().connection(timeout) as conn, given_up(conn, MOST_HELD):
            yield conn


def make_pool(dsn: str, size: int = 16) -> Pool:
    """A pool that is not open yet. It fails fast: better a 503 than a client that waits for half a minute."""
    return Pool(
        dsn,
        kwargs={"autocommit": True, "row_factory": dict_row, "context": _adapters(), **PATIENCE},
        min_size=2,
        max_size=size,
        timeout=3,
        max_waiting=1000,
        check=_check,
        open=False,
        connection_class=_Connection,
    )


class _Connection(AsyncConnection[DictRow]):
    """A connection that knows when the server has answered it last."""

    answered_at = 0.0

    async def wait(self, gen: PQGen[RV], *values: Any, **more: Any) -> RV:
        result = await super().wait(gen, *values, **more)
        self.answered_at = time.monotonic()
        return result


async def _check(conn: AsyncConnection[DictRow]) -> None:
    """Refuse a connection that is broken; ask the server only where that can be in doubt.

    One that the server has closed has something to be read, and one that was good a moment ago need not be
    asked about again: a round trip before each statement is a third of what storing a checkpoint takes.
    """
    answered_at = conn.answered_at if isinstance(conn, _Connection) else 0.0
    if time.monotonic() - answered_at > TRUSTED or _has_sent(conn):
        async with given_up(conn, MOST_CHECKED):
            await AsyncConnectionPool.check_connection(conn)


def _has_sent(conn: AsyncConnection[DictRow]) -> bool:
    poll = select.poll()
    poll.register(conn.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _adapters() -> AdaptersMap:
    adapters = AdaptersMap(psycopg.adapters)
    columns.register(adapters)
    return adapters


@asynccontextmanager
async def given_up(conn: BaseConnection[Any], seconds: float) -> AsyncIterator[None]:
    """Hang up on a server that is not done with what is asked inside after `seconds`."""
    too_long = asyncio.get_running_loop().call_later(seconds, hang_up, conn)
    try:
        yield
    finally:
        too_long.cancel()


def hang_up(conn: BaseConnection[Any]) -> None:
    """End a connection from outside: whatever waits for an answer on it is told that there will be none."""
    if conn.closed:
        return
    with socket.socket(fileno=os.dup(conn.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


class Migrations(NamedTuple):
    """The migrations of a database, by name and in order; LangGraph keeps its own apart."""

    applied: list[str]
    missing: list[str]
    """Those of this version of flowserver that the database has not seen."""
    unknown: list[str]
    """Those that the database has seen and this version of flowserver does not have."""


async def migrations(dsn: str) -> Migrations:
    """Compare the database with this version of flowserver; nothing is changed.

    Raises:
        Unavailable: The server cannot be reached.
    """
    async with await _connect(dsn) as conn:
        return _compared(await _seen(conn))


async def migrate(dsn: str) -> list[str]:
    """Apply every migration that this database has not seen, also LangGraph's and Procrastinate's.

    Returns the names of those that were applied, without LangGraph's. Replicas may do it at once.

    Raises:
        Unavailable: The server cannot be reached, is too old, has no pgvector, or has migrations of a newer
            version of flowserver.
    """
    async with await _connect(dsn) as conn:
        await _suitable(conn)
        await _locked(conn)
        try:
            _refuse_newer(_compared(await _seen(conn)))
            # It creates indexes concurrently, which a waiting lock would deadlock with: hence the polled one.
            await AsyncPostgresSaver(conn).setup()
            await AsyncPostgresStore(conn).setup()
            return await _apply(conn)
        finally:
            await conn.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))


async def _connect(dsn: str) -> AsyncConnection[DictRow]:
    try:
        return await AsyncConnection.connect(
            dsn, autocommit=True, row_factory=dict_row, **PATIENCE | {"connect_timeout": 10}
        )
    except psycopg.OperationalError as exc:
        raise Unavailable(f"Postgres cannot be reached: {str(exc).strip().splitlines()[0]}") from None


async def _seen(conn: AsyncConnection[DictRow]) -> set[str]:
    found = row_of(await (await conn.execute("SELECT to_regclass('migration') AS there")).fetchone())
    if found["there"] is None:
        return set()
    return {row["name"] for row in await (await conn.execute("SELECT name FROM migration")).fetchall()}


def _compared(seen: set[str]) -> Migrations:
    queue = queue_names()
    ours = [*queue, *(name for name, _ in sql.migrations())]
    # Procrastinate may have fewer files one day, for what is all in its schema by then.
    unknown = sorted(each for each in seen.difference(ours) if not queue[0] < each < queue[-1])
    return Migrations(
        [name for name in ours if name in seen], [name for name in ours if name not in seen], unknown
    )


def _refuse_newer(found: Migrations) -> None:
    if found.unknown:
        newest, _ = sql.migrations()[-1]
        raise Unavailable(
            f"this database is of a newer version of flowserver: it has {', '.join(found.unknown)}, "
            f"and the last that flowserver {version('flowserver')} knows is {newest}"
        )


async def _suitable(conn: AsyncConnection[DictRow]) -> None:
    if conn.info.server_version < OLDEST:
        found = conn.info.server_version // 10000
        raise Unavailable(f"this Postgres is version {found}; flowserver needs {OLDEST // 10000} or later")
    query = (
        "SELECT coalesce(installed_version, default_version) AS version"
        "  FROM pg_available_extensions WHERE name = 'vector'"
    )
    vector = await (await conn.execute(query)).fetchone()
    if vector is None:
        raise Unavailable(
            "this Postgres has no pgvector; install its extension 'vector' on the database server"
        )
    if _numbers(vector["version"]) < OLDEST_PGVECTOR:
        least = ".".join(map(str, OLDEST_PGVECTOR))
        raise Unavailable(
            f"this Postgres has pgvector {vector['version']}; flowserver needs {least} or later "
            "(install it, then: ALTER EXTENSION vector UPDATE)"
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


async def _locked(conn: AsyncConnection[DictRow]) -> None:
    while True:
        row = await (await conn.execute("SELECT pg_try_advisory_lock(%s) AS got", (_LOCK,))).fetchone()
        if row and row["got"]:
            return
        await asyncio.sleep(0.05)


async def _apply(conn: AsyncConnection[DictRow]) -> list[str]:
    await conn.execute("CREATE TABLE IF NOT EXISTS migration (name text PRIMARY KEY)")
    seen = await _seen(conn)
    missing = [each for each in (*queue_migrations(seen), *sql.migrations()) if each[0] not in seen]
    for name, text in missing:
        async with conn.transaction():
            try:
                await conn.execute(text)
            except psycopg.errors.InsufficientPrivilege as exc:
                raise Unavailable(
                    f"the database user may not apply {name}: {exc.diag.message_primary}"
                ) from None
            await conn.execute("INSERT INTO migration (name) VALUES (%s)", (name,))
    return [name for name, _ in missing]


def row_of(found: dict[str, Any] | None) -> dict[str, Any]:
    """The row of a statement that always returns one."""
    assert found is not None
    return found
