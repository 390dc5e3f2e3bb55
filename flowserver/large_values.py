"""The large values of a run in Postgres: kept once, under the hash of what they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from uuid import UUID

from psycopg.rows import DictRow

import sql
from flowserver.db import Pool, persist

_QUERIES = sql.queries("large_values")
_PUT = _QUERIES["put_large"]
_GET = _QUERIES["get_large"]


class RunValues:
    """The store of one run. It needs no fence: a hash means the same value whoever writes it."""

    def __init__(self, pool: Pool, run: UUID) -> None:
        self._pool = pool
        self._run = run

    async def put(self, values: Mapping[str, bytes]) -> None:
        hashes = sorted(values)  # in one order, so that two that store the same do not wait for each other
        rows = {"run": self._run, "hashes": hashes, "values": [values[hash] for hash in hashes]}

        async def put() -> None:
            async with self._pool.connection() as conn:
                await conn.execute(_PUT, rows)

        await persist(put)

    async def get(self, keys: Iterable[str]) -> Mapping[str, bytes]:
        wanted = {"run": self._run, "hashes": list(keys)}

        async def get() -> list[DictRow]:
            async with self._pool.connection() as conn:
                return await (await conn.execute(_GET, wanted)).fetchall()

        return {row["hash"]: row["value"] for row in await persist(get)}
