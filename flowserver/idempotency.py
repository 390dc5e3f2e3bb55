"""Requests that may come again: they are carried out once. Those of clients carry an `Idempotency-Key`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol, Self
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import DictRow

import sql
from flowserver.db import row_of
from flowserver.errors import BadRequest, KeyReused

_QUERIES = sql.queries("idempotency")
_REMEMBER = _QUERIES["remember_key"]
_FIND = _QUERIES["find_by_key"]

MAX_KEY = 255


class Once(Protocol):
    """What makes sure that a thing asked for twice is done once."""

    async def done_before(self, conn: AsyncConnection[DictRow], org: UUID, run: UUID) -> UUID | None:
        """The run that the same request made before; `None` when there was none: now `run` is the request's.

        It belongs into the transaction that carries the request out. Of several at once, all wait for the
        first.
        """
        ...


@dataclass(frozen=True, slots=True)
class Key:
    """What a client calls a request, so that it may send it again. It counts for one operation."""

    operation: str
    key: str
    body_hash: bytes

    @classmethod
    def of(cls, operation: str, key: str | None, body: bytes) -> Self | None:
        """The key of a request, if it has one.

        Raises:
            BadRequest: It is no key that can be kept.
        """
        if key is None:
            return None
        if not (0 < len(key) <= MAX_KEY and key.isprintable()):
            raise BadRequest(f"'Idempotency-Key' has 1 to {MAX_KEY} printable characters")
        return cls(operation, key, hashlib.sha256(body).digest())

    async def done_before(self, conn: AsyncConnection[DictRow], org: UUID, run: UUID) -> UUID | None:
        """See `Once`.

        Raises:
            KeyReused: The earlier request was another one.
        """
        values = {
            "org": org,
            "operation": self.operation,
            "key": self.key,
            "body_hash": self.body_hash,
            "run": run,
        }
        if await (await conn.execute(_REMEMBER, values)).fetchone() is not None:
            return None
        row = row_of(await (await conn.execute(_FIND, values)).fetchone())
        if row["body_hash"] != self.body_hash:
            raise KeyReused(self.key)
        return UUID(str(row["run_id"]))
