"""How long to wait before another attempt, and whether one is worth it, by what a server answered."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_PAUSE = 60.0
"""Seconds; no server can make a run wait longer."""

_PASSING = frozenset({408, 409, 425, 429})


def retry_after(header: str, now: datetime) -> float | None:
    """Seconds that a `Retry-After` of seconds or a date asks for, at most `LONGEST_PAUSE` (RFC 9110)."""
    header = header.strip()
    if header.isascii() and header.isdecimal():
        return min(float(header), LONGEST_PAUSE)
    try:
        date = parsedate_to_datetime(header)
    except ValueError:
        return None
    wait = (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds()
    return min(max(wait, 0.0), LONGEST_PAUSE)


def may_get_better(status: int) -> bool:
    """Whether the same request may be answered otherwise later: not when it is the request that is wrong."""
    return not 400 <= status < 500 or status in _PASSING
