"""The ledger of what comes in through webhooks: each delivery once, with the run that it started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias
from uuid import UUID, uuid4

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import DictRow

import sql
from flowserver.arrivals import Arrival
from flowserver.db import Pool, row_of
from flowserver.errors import NotFound, RunForgotten
from flowserver.ids import new_id
from flowserver.workflows import json
from nodes.hooks import Hook

_QUERIES = sql.queries("deliveries")
_REMEMBER = _QUERIES["remember_delivery"]
_REPEAT = _QUERIES["repeat_delivery"]
_BURY = _QUERIES["bury_delivery"]
_ANSWERED = _QUERIES["answered"]
_LIST = _QUERIES["list_deliveries"]
_GET = _QUERIES["get_delivery"]
_STATISTICS = _QUERIES["statistics"]

Status: TypeAlias = Literal["accepted", "dead", "pending", "delivered"]
MOST_SHOWN = 100_000
"""Bytes of a body that are shown; all of it is delivered again."""


class DeliveryView(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery as lists show it."""

    id: UUID
    webhook_id: UUID
    run_id: UUID | None
    run_status: str | None
    status: Status
    """`dead` could start no run; why, says `error`."""
    is_test: bool
    redelivers: UUID | None
    """The delivery that this one repeats, by hand."""
    method: str
    url: str
    query: dict[str, Any] | None
    headers: dict[str, str] | None
    """Without what may be secret."""
    client_ip: str | None
    body_bytes: int | None
    repeats: int
    """How often it came again."""
    answer_status: int | None
    answer_ms: int | None
    error: dict[str, Any] | None
    at: datetime


class WholeDelivery(DeliveryView, frozen=True, kw_only=True):
    """A delivery with its body."""

    body: str | None
    """As text, cut after 100,000 bytes; bytes that are none are shown as �."""


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """What has come in at a webhook, for as long as deliveries are kept."""

    deliveries: int
    repeats: int
    dead: int
    succeeded: int
    failed: int
    open: int
    last_day: int
    last_week: int
    answer_ms: float | None
    """How long callers waited on average."""
    last_at: datetime | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """Something that has arrived at a webhook, as the ledger keeps it. See `idempotency.Once`."""

    webhook: UUID
    hook: Hook
    arrival: Arrival
    key: str
    is_test: bool = False
    redelivers: UUID | None = None
    id: UUID = field(default_factory=new_id)

    @property
    def _row(self) -> dict[str, Any]:
        arrival = self.arrival
        return {
            "id": self.id,
            "webhook": self.webhook,
            "key": self.key,
            "is_test": self.is_test,
            "redelivers": self.redelivers,
            "method": arrival.method,
            "url": arrival.path,
            "query": json(arrival.shown_query()),
            "headers": json(arrival.shown(self.hook)),
            "body": arrival.body,
            "client_ip": arrival.client_ip,
        }

    async def done_before(self, conn: AsyncConnection[DictRow], org: UUID, run: UUID) -> UUID | None:
        values = {**self._row, "org": org, "run": run, "status": "accepted"}
        if await (await conn.execute(_REMEMBER, values)).fetchone() is not None:
            return None
        row = row_of(await (await conn.execute(_REPEAT, values)).fetchone())
        if row["was"] == "dead":
            return None
        if row["run_id"] is None:
            raise RunForgotten(row["id"])
        return UUID(str(row["run_id"]))

    async def bury(self, pool: Pool, org: UUID, error: Mapping[str, Any]) -> None:
        """Keep it as one that could start no run."""
        async with pool.connection() as conn:
            await conn.execute(_BURY, {**self._row, "org": org, "error": json(error)})

    async def answered(self, pool: Pool, status: int, ms: int) -> None:
        """Keep how its first caller was answered."""
        async with pool.connection() as conn:
            values = {"webhook": self.webhook, "key": self.key, "status": status, "ms": ms}
            await conn.execute(_ANSWERED, values)


def unique_key() -> str:
    """The key of a delivery that nothing tells from others."""
    return f"once:{uuid4()}"


class Ledger:
    """What is kept of the deliveries of all organisations; every call is within one."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def page(
        self, org: UUID, webhook: UUID, *, status: Status | None, before: UUID | None, limit: int
    ) -> list[DeliveryView]:
        """The newest deliveries at a webhook, or those older than `before`."""
        values = {"org": org, "webhook": webhook, "status": status, "before": before, "limit": limit}
        async with self._pool.connection() as conn:
            rows = await (await conn.execute(_LIST, values)).fetchall()
        return [msgspec.convert(row, DeliveryView) for row in rows]

    async def get(self, org: UUID, webhook: UUID, id: UUID) -> WholeDelivery:
        """
        Raises:
            NotFound: There is none of this id at this webhook.
        """
        row = await self.row(org, webhook, id)
        body = bytes(row["body"] or b"")[:MOST_SHOWN].decode("utf-8", "replace")
        return msgspec.convert({**row, "body": body or None}, WholeDelivery)

    async def row(self, org: UUID, webhook: UUID, id: UUID) -> DictRow:
        """A delivery's row.

        Raises:
            NotFound: There is none of this id at this webhook.
        """
        values = {"org": org, "webhook": webhook, "id": id, "direction": "in"}
        async with self._pool.connection() as conn:
            row = await (await conn.execute(_GET, values)).fetchone()
        if row is None:
            raise NotFound("delivery", id)
        return row

    async def statistics(self, org: UUID, webhook: UUID) -> Statistics:
        """What has come in at a webhook, and what became of it."""
        async with self._pool.connection() as conn:
            values = {"org": org, "webhook": webhook}
            row = row_of(await (await conn.execute(_STATISTICS, values)).fetchone())
        return msgspec.convert(row, Statistics)
