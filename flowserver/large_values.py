"""The large values of a run in Postgres: kept once, under the hash of what they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from uuid import UUID

import sql
from flowserver.db import Pool

_QUERIES = sql.queries("large_values")
_PUT = _QUERIES["put_large"]
_GET = _QUERIES["get_large"]


class RunValues:
    """The store of one run. It needs no fence: a hash means the same value whoever writes it."""

    def __init__(self, pool: Pool, run: UUID) -> None:
        self._pool = pool
        self._run = run

    async def put(self, values: Mapping[str, bytes]) -> None:
        rows = {"run": self._run, "hashes": list(values), "values": list(values.values())}
        async with self._pool.connection() as conn:
            await conn.execute(_PUT, rows)

    async def get(self, keys: Iterable[str]) -> Mapping[str, bytes]:
        async with self._pool.connection() as conn:
            rows = await (await conn.execute(_GET, {"run": self._run, "hashes": list(keys)})).fetchall()
        return {row["hash"]: row["value"] for row in rows}
