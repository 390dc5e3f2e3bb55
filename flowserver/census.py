"""What the database knows of the runs of all processes, for metrics: asked seldom, however often read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import psycopg
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from psycopg_pool import PoolTimeout, TooManyRequests

import sql
from flowserver.db import Pool, row_of
from flowserver.metrics import PREFIX

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

_CENSUS = sql.queries("metrics")["census"]

KEPT = 5.0
"""Seconds for which an answer, or that there was none, is good."""
PATIENCE = 2.0
"""Seconds that the database may take."""


class Census(Collector):
    """The open runs of all processes, and the queue."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._found: dict[str, Any] | None = None
        self._until = 0.0
        self._asking = asyncio.Lock()

    async def refresh(self) -> None:
        """See to it that what is known is not too old; afterwards nothing is known if there is no answer."""
        async with self._asking:
            if time.monotonic() < self._until:
                return
            try:
                self._found = await self._ask()
            except (psycopg.Error, PoolTimeout, TooManyRequests, TimeoutError):
                self._found = None
            self._until = time.monotonic() + KEPT

    async def _ask(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE), self._pool.connection(timeout=PATIENCE) as conn:
            return row_of(await (await conn.execute(_CENSUS)).fetchone())

    def collect(self) -> Iterator[Metric]:
        found = self._found
        up = "Whether the database answered the last time that it was asked for these numbers."
        yield GaugeMetricFamily(f"{PREFIX}_database_up", up, int(found is not None))
        if found is None:
            return
        runs = GaugeMetricFamily(
            f"{PREFIX}_runs", "Runs in the database that have not ended.", labels=["status"]
        )
        for status in ("queued", "running", "waiting"):
            runs.add_metric([status], found[status])
        yield runs
        about = "Runs in the queue, not counting those that another run of their session keeps waiting."
        yield GaugeMetricFamily(f"{PREFIX}_queue_length", about, found["queue_length"])
        about = "How long the first of these has been in the queue; 0 if there is none."
        yield GaugeMetricFamily(f"{PREFIX}_queue_oldest_seconds", about, found["oldest_seconds"])
        about = "How full Postgres' queue of notifications is, from 0 to 1."
        yield GaugeMetricFamily(f"{PREFIX}_notification_queue_usage", about, found["notifications"])
