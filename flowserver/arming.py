"""When a schedule fires next: worked out whenever what that depends on changes, and kept in its row."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import DictRow

import sql
from nodes.timing import Timing

_ARM = sql.queries("schedules")["arm"]


def timing_of(stored: Any) -> Timing:
    """A timing as its row holds it."""
    return msgspec.convert(stored, Timing)


async def arm(conn: AsyncConnection[DictRow], row: Mapping[str, Any]) -> None:
    """Set the next firing of a schedule, by its row of `of_workflow` or `one_to_arm`; or that there is none.

    What came due while it could not fire is no misfire: it begins with what comes after now.
    """
    timing = timing_of(row["timing"])
    following = row["next_at"]
    if not row["may_fire"] or is_over(timing, row["fired"]):
        following = None
    elif following is None:
        # What is to happen once and lies in the past is late, not over: unless it has happened.
        after = row["anchor"] - timedelta(days=36500) if timing.once and not row["fired"] else row["now"]
        following = next(timing.following(after, row["anchor"]), None)
    await conn.execute(_ARM, {"id": row["id"], "next": following, "due": due(timing, row["id"], following)})


def is_over(timing: Timing, fired: int) -> bool:
    return timing.max_count is not None and fired >= timing.max_count


def due(timing: Timing, schedule: UUID, instant: datetime | None) -> datetime | None:
    """When the firing of `instant` is to happen: the same time of every process that works it out."""
    if instant is None or not timing.jitter:
        return instant
    digest = hashlib.sha256(f"{schedule}\n{instant.isoformat()}".encode()).digest()
    return instant + timedelta(seconds=timing.jitter * int.from_bytes(digest[:4]) / 2**32)
