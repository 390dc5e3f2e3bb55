"""Forgets what is due: events, checkpoints and runs, after the days that their workflow gives them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import LiteralString

import sql
from flowserver.db import Pool

_QUERIES = sql.queries("retention")
_DELIVERIES = sql.queries("deliveries")
_SCHEDULES = sql.queries("schedules")

BATCH = 100
"""How many runs are dealt with in one transaction, so that none takes long."""
PAUSE = 0.05
"""Seconds between two batches: others use the database too."""
KEY_AGE = timedelta(hours=24)
"""For how long an Idempotency-Key counts, at the least."""

logger = logging.getLogger(__name__)


async def prune(pool: Pool, deliveries: timedelta | None = None) -> dict[str, int]:
    """Forget everything that is due; how many runs it concerned, by what was forgotten of them.

    `deliveries` is the age at which deliveries and firings are; without one they stay.

    Several processes may do it at once: each batch is one's alone. A run that has not ended is never due.
    """
    done: dict[str, int] = {}
    for what, forget in _all(deliveries).items():
        done[what] = 0
        while count := await forget(pool):
            done[what] += count
            if count < BATCH:
                break
            await asyncio.sleep(PAUSE)
    await _counts(pool)
    if any(done.values()):
        logger.info("forgotten: %s", ", ".join(f"{count} {what}" for what, count in done.items() if count))
    return done


async def _events(pool: Pool) -> int:
    return await _delete(pool, "forget_events")


async def _runs(pool: Pool) -> int:
    return await _delete(pool, "forget_runs")


async def _keys(pool: Pool) -> int:
    return await _delete(pool, "forget_keys")


def _all(deliveries: timedelta | None) -> dict[str, Callable[[Pool], Awaitable[int]]]:
    found: dict[str, Callable[[Pool], Awaitable[int]]] = {
        "events": _events,
        "checkpoints": _states,
        "runs": _runs,
        "keys": _keys,
    }
    if deliveries is not None:
        for what, queries in (("deliveries", _DELIVERIES), ("firings", _SCHEDULES)):
            found[what] = partial(_old, query=queries[f"forget_{what}"], age=deliveries)
    return found


async def _old(pool: Pool, query: LiteralString, age: timedelta) -> int:
    async with pool.connection() as conn:
        rows = await (await conn.execute(query, {"batch": BATCH, "age": age})).fetchall()
    return len(rows)


async def _counts(pool: Pool) -> None:
    async with pool.connection() as conn:
        await conn.execute(_DELIVERIES["forget_counts"])


async def _delete(pool: Pool, query: str) -> int:
    return await _old(pool, _QUERIES[query], KEY_AGE)


async def _states(pool: Pool) -> int:
    async with pool.connection() as conn, conn.transaction():
        due = await (await conn.execute(_QUERIES["due_states"], {"batch": BATCH})).fetchall()
        if not due:
            return 0
        alone = [row["thread_id"] for row in due if row["session_id"] is None]
        await conn.execute(_QUERIES["forget_threads"], {"threads": alone})
        for row in due:
            if row["session_id"] is not None:
                values = {"thread": row["thread_id"], "run": str(row["id"])}
                await conn.execute(_QUERIES["forget_checkpoints"], values)
        for thread in {row["thread_id"] for row in due if row["session_id"] is not None}:
            await conn.execute(_QUERIES["forget_blobs"], {"thread": thread})
        await conn.execute(_QUERIES["forgot_states"], {"runs": [row["id"] for row in due]})
    return len(due)
