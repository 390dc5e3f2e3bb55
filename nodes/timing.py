"""When a schedule fires, and what becomes of a firing that is late or meets a run of the one before."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from math import floor
from typing import Annotated, Literal, TypeAlias
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError

from nodes.mistakes import Keys, Mistakes

Misfire: TypeAlias = Literal["coalesce", "skip", "all"]
Overlap: TypeAlias = Literal["allow", "skip", "queue", "cancel_previous"]

LONGEST_CRON = 100
"""Characters; the parser of longer ones could be kept busy."""
LONGEST_INTERVAL = 366 * 24 * 3600
_LAST_YEAR = 9000
_STRETCHES = (timedelta(hours=1), timedelta(days=2), timedelta(days=70), timedelta(days=3 * 366))


class Timing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Exactly one of `cron`, `every` and `once` says when."""

    cron: str | None = None
    """Five fields: minute, hour, day of month, month, day of week."""
    every: Annotated[float, msgspec.Meta(ge=1, le=LONGEST_INTERVAL)] | None = None
    """Seconds between two firings."""
    once: datetime | None = None
    """The instant of its only firing; without an offset it is a time in `timezone`."""
    timezone: str = "UTC"
    """An IANA name, as in Europe/Berlin: what clocks show there counts, also when they are put on or back."""
    starts_at: datetime | None = None
    """It does not fire before. An interval is counted from here."""
    ends_at: datetime | None = None
    """It does not fire after."""
    jitter: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 0
    """Each firing comes up to so many seconds later, so that not all schedules fire at once."""
    max_count: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """After so many firings it is over."""
    misfire: Misfire = "coalesce"
    """What becomes of firings that came due while nobody could start them: one run for all of them, none, or
    one for each of the newest `misfire_limit`."""
    misfire_limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 10
    overlap: Overlap = "allow"
    """What a firing does while a run of an earlier one is not over."""

    def __post_init__(self) -> None:
        found: list[tuple[str, Keys]] = []
        given = [name for name in ("cron", "every", "once") if getattr(self, name) is not None]
        if len(given) != 1:
            which = "and".join(f" {name!r} " for name in given).strip() or "none of them"
            found.append((f"exactly one of 'cron', 'every' and 'once' says when, not {which}", ()))
        if not is_zone(self.timezone):
            message = f"{self.timezone[:80]!r} is no time zone; names are like 'Europe/Berlin' or 'UTC'"
            found.append((message, ("timezone",)))
        elif self.cron is not None and (wrong := wrong_with(self.cron)):
            found.append((wrong, ("cron",)))
        elif self.begins and self.ends and self.ends <= self.begins:
            found.append(("'ends_at' is not after 'starts_at'", ("ends_at",)))
        if self.every is not None and self.jitter >= self.every:
            found.append(
                ("'jitter' is shorter than the interval, so that firings stay in order", ("jitter",))
            )
        if found:
            raise Mistakes(found)

    @property
    def begins(self) -> datetime | None:
        return self._instant(self.starts_at)

    @property
    def ends(self) -> datetime | None:
        return self._instant(self.ends_at)

    def _instant(self, moment: datetime | None) -> datetime | None:
        """In UTC. What has no offset is a time in `timezone`."""
        if moment is None:
            return None
        return (moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(self.timezone))).astimezone(UTC)

    def following(self, after: datetime, anchor: datetime) -> Iterator[datetime]:
        """The instants later than `after`, in order, in UTC; `anchor` is where intervals begin otherwise."""
        if self.begins is not None:
            after = max(after, self.begins - timedelta(microseconds=1))
        instants = self._unbounded(after, anchor)
        ends = self.ends
        return takewhile(lambda instant: ends is None or instant <= ends, instants)

    def latest(self, most: int, since: datetime, until: datetime, anchor: datetime) -> list[datetime]:
        """The last `most` instants of those from `since` to `until`, in order."""
        before = since - timedelta(microseconds=1)
        # A year of minutes is not walked through for the sake of its last one.
        starts = [until - stretch for stretch in _STRETCHES]
        for start in [*(each for each in starts if each > before), before]:
            found = list(takewhile(lambda instant: instant <= until, self.following(start, anchor)))
            if len(found) >= most:
                break
        return found[-most:]

    def _unbounded(self, after: datetime, anchor: datetime) -> Iterator[datetime]:
        if self.once is not None:
            instant = self._instant(self.once)
            return iter([instant] if instant and instant > after else [])
        if self.every is not None:
            return self._steps(after, timedelta(seconds=self.every), anchor)
        return self._cron(after)

    def _steps(self, after: datetime, every: timedelta, anchor: datetime) -> Iterator[datetime]:
        first, least = (self.begins, 0) if self.begins is not None else (anchor, 1)
        count = max(least, floor((after - first) / every) + 1)
        while (instant := first + count * every).year < _LAST_YEAR:
            yield instant
            count += 1

    def _cron(self, after: datetime) -> Iterator[datetime]:
        # In the hour that comes twice, the library may go back to its first time; what has been is left out.
        for found in CronSim(self.cron or "", after.astimezone(ZoneInfo(self.timezone))):
            instant = found.astimezone(UTC)
            if instant > after:
                after = instant
                yield instant


def is_zone(name: str) -> bool:
    """Whether `name` is an IANA time zone."""
    try:
        ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        return False
    return bool(name)


def wrong_with(cron: str) -> str | None:
    """What is wrong with a cron expression, in words; `None` where it is one."""
    if len(cron) > LONGEST_CRON:
        return f"a cron expression has at most {LONGEST_CRON} characters, not {len(cron)}"
    if len(cron.split()) != 5:
        fields = "minute, hour, day of month, month, day of week"
        return f"a cron expression has five fields ({fields}), not {len(cron.split())}: {cron!r}"
    try:
        next(CronSim(cron, datetime(2024, 1, 1, tzinfo=UTC)))
    except StopIteration:
        return f"{cron!r} names no day that there is"
    except CronSimError as exc:
        return f"{cron!r} is no cron expression: {exc}"
    return None
