"""Somebody of another organisation."""

from __future__ import annotations

from uuid import uuid4

import psycopg


async def stranger(dsn: str, key: str = "key-of-a-stranger") -> dict[str, str]:
    """The headers of somebody of another organisation."""
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        await conn.execute("INSERT INTO org (id, name) VALUES (%s, 'strangers')", (other := uuid4(),))
        query = "INSERT INTO api_key (id, org_id, name, digest) VALUES (%s, %s, 'k', sha256(%s::bytea))"
        await conn.execute(query, (uuid4(), other, key.encode()))
    return {"Authorization": f"Bearer {key}"}
