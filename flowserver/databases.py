"""Queries of workflows to databases of their own: one statement, one connection, within limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict
from psycopg.raw_cursor import AsyncRawCursor
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from flowserver.connections import Connections
from nodes.contract import NodeError
from nodes.databases import QueryLimits, QueryResult

CHUNK = 100
"""Rows that are read at a time."""
CONNECT_SECONDS = 10

_NAMES = {
    "host": "host",
    "port": "port",
    "database": "dbname",
    "dbname": "dbname",
    "username": "user",
    "user": "user",
    "password": "password",
    "sslmode": "sslmode",
}
"""What a login may say -> libpq's word for it. Others of its words name files of this server, or services."""
_FINAL_CLASSES = ("22", "23", "25", "42", "0A", "28", "3D", "3F")
"""How the codes of errors begin that the same query would only repeat."""


class Databases:
    """Fulfils `nodes.databases.Databases`."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def query(
        self, login: Mapping[str, str], statement: str, parameters: Sequence[Any], limits: QueryLimits
    ) -> QueryResult:
        """See `nodes.databases.Databases`."""
        values = [Jsonb(each) if isinstance(each, Mapping) else each for each in parameters]
        try:
            async with (
                asyncio.timeout(CONNECT_SECONDS + limits.seconds + 5),
                self._connected(login, limits) as conn,
            ):
                return await (_read if limits.read_only else _write)(conn, statement, values, limits)
        except TimeoutError:
            raise NodeError("the database did not answer in time", code="timeout") from None
        except UnicodeError:
            raise NodeError("the query holds half a character", code="bad_input", is_final=True) from None
        except psycopg.Error as exc:
            raise _told(exc, limits) from None

    @asynccontextmanager
    async def _connected(
        self, login: Mapping[str, str], limits: QueryLimits
    ) -> AsyncIterator[AsyncConnection[dict[str, Any]]]:
        given: dict[str, Any] = _parameters(login)
        host, port = given["host"], int(given.get("port") or 5432)
        addresses = await self._connections.addresses(host, port)
        settings = {
            "default_transaction_read_only": "on" if limits.read_only else "off",
            "statement_timeout": f"{max(round(limits.seconds * 1000), 1)}",
            "idle_in_transaction_session_timeout": "60000",
        }
        try:
            conn = await AsyncConnection.connect(
                **given,
                # Of the addresses that were looked at, not of those that the name leads to by now.
                hostaddr=str(addresses[0].ip),
                connect_timeout=CONNECT_SECONDS,
                options=" ".join(f"-c {name}={value}" for name, value in settings.items()),
                application_name="flowserver workflow",
                # Nothing of what lies about in the server's home directory belongs to workflows.
                passfile="/dev/null",
                sslcertmode="disable",
                gssencmode="disable",
                row_factory=dict_row,
                cursor_factory=AsyncRawCursor,
            )
        except (psycopg.OperationalError, psycopg.ProgrammingError) as exc:
            words = (str(exc).strip().splitlines() or ["it cannot be reached"])[-1]
            raise NodeError(f"could not connect to the database: {words}", code="connect_failed") from None
        try:
            await conn.set_read_only(limits.read_only)
            yield conn
        finally:
            await conn.close()


async def _read(
    conn: AsyncConnection[dict[str, Any]], statement: str, values: list[Any], limits: QueryLimits
) -> QueryResult:
    rows: list[dict[str, Any]] = []
    size = 0
    async with conn.cursor() as cursor:
        try:
            # Row by row, and always as one statement: what is more than one is refused by Postgres.
            async for row in cursor.stream(statement.encode(), values, size=CHUNK):
                plain = _plain(row)
                size += len(msgspec.json.encode(plain))
                if len(rows) >= limits.rows or size > limits.bytes:
                    await conn.cancel_safe(timeout=5)
                    return QueryResult(rows, len(rows), True)
                rows.append(plain)
        except psycopg.ProgrammingError as exc:
            if exc.sqlstate is not None or "didn't produce a result" not in str(exc):
                raise
    return QueryResult(rows, len(rows), False)


async def _write(
    conn: AsyncConnection[dict[str, Any]], statement: str, values: list[Any], limits: QueryLimits
) -> QueryResult:
    # Prepared, as Postgres prepares one statement only: without parameters, several would be executed.
    cursor = await conn.execute(statement.encode(), values, prepare=True)
    found = await cursor.fetchmany(limits.rows + 1) if cursor.description else []
    count = max(cursor.rowcount, 0)
    await conn.commit()
    rows: list[dict[str, Any]] = []
    size = 0
    for row in found[: limits.rows]:
        plain = _plain(row)
        size += len(msgspec.json.encode(plain))
        if size > limits.bytes:
            return QueryResult(rows, count, True)
        rows.append(plain)
    return QueryResult(rows, count, len(found) > limits.rows)


def _parameters(login: Mapping[str, str]) -> dict[str, Any]:
    """What libpq is told.

    Raises:
        NodeError: The login says something else, or not where the database is.
    """
    given = dict(login)
    if text := given.pop("connection_string", ""):
        try:
            given |= {key: str(value) for key, value in conninfo_to_dict(text).items()}
        except psycopg.ProgrammingError:  # its message repeats the text
            raise NodeError(
                "the 'connection_string' cannot be read", code="bad_config", is_final=True
            ) from None
        if unknown := sorted(given.keys() - _NAMES.keys() - login.keys()):
            message = f"the 'connection_string' may not say {unknown[0]!r}; allowed: {', '.join(_NAMES)}"
            raise NodeError(message, code="bad_config", is_final=True)
    found = {_NAMES[key]: value for key, value in given.items() if key in _NAMES and value}
    if not found.get("host"):
        raise NodeError("the login does not say the 'host' of the database", code="bad_config", is_final=True)
    if not (found.get("port") or "5432").isdecimal():
        raise NodeError("the 'port' of the database is a number", code="bad_config", is_final=True)
    return {"password": "", "sslmode": "prefer", **found}


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _value(value) for name, value in row.items()}


def _value(value: Any) -> Any:
    """A column's value as JSON: what JSON has no word for is a text."""
    try:
        return msgspec.to_builtins(value, enc_hook=str)
    except (TypeError, ValueError, OverflowError):
        return str(value)


def _told(exc: psycopg.Error, limits: QueryLimits) -> NodeError:
    state = exc.sqlstate or ""
    words = exc.diag.message_primary or str(exc).strip() or type(exc).__name__
    if isinstance(exc, psycopg.errors.ReadOnlySqlTransaction):
        message = f"the query would change something ({words}); 'read_only' has to be off for that"
        return NodeError(message, code="read_only", is_final=True)
    if isinstance(exc, psycopg.errors.QueryCanceled):
        return NodeError(f"the query took longer than {limits.seconds:g} seconds", code="timeout")
    code = f" [{state}]" if state else ""
    return NodeError(
        f"the database refused the query: {words}{code}",
        code="query_failed",
        is_final=state.startswith(_FINAL_CLASSES),
    )
