"""The pool hands out connections that work; columns arrive as Postgres's own arrays."""

from __future__ import annotations

import pytest

from flowserver.columns import Blobs, Flags, Numbers, Texts
from flowserver.db import make_pool


async def test_a_connection_that_the_server_has_just_closed_is_not_handed_out(dsn: str) -> None:
    async with make_pool(dsn, size=4) as pool:
        async with pool.connection() as conn, pool.connection() as other:
            broken = {conn.info.backend_pid, other.info.backend_pid}
        async with pool.connection() as conn:  # it stays, and is good: the others are not
            await conn.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM unnest(%s::integer[]) AS pid"
                " WHERE pid <> pg_backend_pid()",
                (list(broken),),
            )
            broken.discard(conn.info.backend_pid)
        found = set()
        for _ in range(8):
            async with pool.connection() as conn:
                await conn.execute("SELECT 1")
                found.add(conn.info.backend_pid)

    assert broken
    assert not broken & found


@pytest.mark.parametrize(
    ("column", "type"),
    [
        (Texts(), "text[]"),
        (Texts(["a", None, "", 'ü€😀 \\"{},']), "text[]"),
        (Blobs(), "bytea[]"),
        (Blobs([b"\0\xff", None, b""]), "bytea[]"),
        (Numbers(), "integer[]"),
        (Numbers([0, -4, 2**31 - 1]), "integer[]"),
        (Flags(), "boolean[]"),
        (Flags([True, False]), "boolean[]"),
    ],
    ids=repr,
)
async def test_a_column_keeps_its_type_whatever_is_in_it(dsn: str, column: list[object], type: str) -> None:
    async with make_pool(dsn) as pool, pool.connection() as conn:
        row = await (await conn.execute("SELECT %s AS sent", (column,), binary=True)).fetchone()
        kind = await (await conn.execute("SELECT pg_typeof(%s)::text AS type", (column,))).fetchone()

    assert row == {"sent": list(column)}
    assert kind == {"type": type}
