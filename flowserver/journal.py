"""A run's events in Postgres: appended by the one process that holds the run, read by anybody."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg.rows import DictRow
from psycopg_pool import PoolTimeout, TooManyRequests

import sql
from flowserver.columns import Texts
from flowserver.db import Pool
from flowserver.errors import Fenced
from flowserver.event_batches import EventBatches
from flowserver.events import Event, encode
from flowserver.feeds import Feed, Feeds

_QUERIES = sql.queries("runs")
_APPEND = _QUERIES["append_events"]
_POSITION = _QUERIES["position"]
_READ = _QUERIES["read_events"]

STEP_DELAY = 0.01
"""Seconds for which events are gathered before they are written: every write is a commit."""
TEXT_DELAY = 0.05
"""The same for pieces of text: a long answer is tens of rows."""
TEXT_SIZE = 8_000
"""Characters of one `text` event."""
FIRST_PAGE = 16
PAGE = 500
"""Events that a watcher, who may be slow and one of many, reads at a time: more and more, unless large."""
PAGE_SIZE = 256_000
"""Bytes of them, more or less."""
TRIES = 5

logger = logging.getLogger(__name__)


class Journal:
    """The journal of one run, open for writing under one epoch.

    What is added is written in batches, in order. Watchers see an event once it is committed: a number that
    a client has seen never means another event, whatever dies.
    """

    def __init__(
        self,
        pool: Pool,
        feed: Feed,
        run: UUID,
        epoch: int,
        next_seq: int,
        written: Callable[[list[tuple[str, dict[str, Any]]], float], None] = lambda events, since: None,
        batches: EventBatches | None = None,
    ) -> None:
        """`written` is told of every batch: its events, and since when the first of them waited.

        With `batches`, what needs no statement of its own is written together with other runs' events.
        """
        self.run = run
        self.epoch = epoch
        self._pool = pool
        self._feed = feed
        self._next = next_seq
        self._written_batch = written
        self._batches = batches
        self._waiting: list[tuple[str, dict[str, Any]]] = []
        self._waiting_since = 0.0
        self._held: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        """What tasks have told since a step with an effect ended in them, until their writes are stored."""
        self._added = asyncio.Event()
        self._urgent = asyncio.Event()
        self.writing = asyncio.Lock()
        """Held by whoever appends."""
        self._writes: set[asyncio.Task[None]] = set()
        self._written_at = 0.0
        self._is_given_up = False
        self._has_failed = False

    def give_up(self) -> None:
        """The run is another process's: what could not be written is not tried again."""
        self._is_given_up = True

    def add(self, type: str, data: dict[str, Any], task: str | None = None, *, holds: bool = False) -> None:
        """Tell an event; it is written soon.

        One that `holds`, and all that the same `task` of LangGraph's tells after it, is written once the task
        is kept.
        """
        if task is not None and (holds or task in self._held):
            self._held.setdefault(task, []).append((type, data))
            return
        if type != "text":
            self._urgent.set()
        elif self._waiting and self._joins(self._waiting[-1], data):
            self._waiting[-1][1]["text"] += data["text"]
            return
        if not self._waiting:
            self._waiting_since = time.monotonic()
        self._waiting.append((type, data))
        self._added.set()

    def keep(self, task: str) -> None:
        """Let what `task` has told be written: the same statement stores what it did."""
        for type, data in self._held.pop(task, ()):
            self.add(type, data)

    def keep_all(self) -> None:
        """The same for all tasks."""
        for task in list(self._held):
            self.keep(task)

    @staticmethod
    def _joins(last: tuple[str, dict[str, Any]], data: Mapping[str, Any]) -> bool:
        type, before = last
        if type != "text":
            return False
        same = (before["step"], before.get("within")) == (data["step"], data.get("within"))
        return same and len(before["text"]) < TEXT_SIZE

    async def write(self) -> None:
        """Write what is added, until cancelled.

        Raises:
            Fenced: The run has been lost.
        """
        while True:
            await self._added.wait()
            pause = self._written_at + TEXT_DELAY - time.monotonic()
            if pause > 0 and not self._urgent.is_set():
                # Not wait_for: before Python 3.12 it can swallow a cancellation that meets the event.
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._urgent.wait()
            if self._urgent.is_set():
                await asyncio.sleep(STEP_DELAY)
            await self.flush()

    async def flush(self) -> None:
        """Write everything added so far.

        Raises:
            Fenced: The run has been lost; what was not written is dropped.
        """
        await self._unbroken(self._flush())

    async def _flush(self) -> None:
        async with self.writing:
            if self._waiting:
                batch = self.take()
                rows = await self._batches.append(batch) if self._batches is not None else []
                self.committed(batch, rows or await self._commit(_APPEND, batch))

    async def append_with(
        self,
        events: Sequence[tuple[str, dict[str, Any]]],
        statement: LiteralString,
        values: Mapping[str, Any],
    ) -> None:
        """Write all that was told so far, and `events`, with a statement that also changes the run's row.

        The events and the change are one: nobody sees the one without the other.

        Raises:
            Fenced: The run has been lost, and nothing was changed.
        """
        await self._unbroken(self._append_with(events, statement, values))

    async def _append_with(
        self,
        events: Sequence[tuple[str, dict[str, Any]]],
        statement: LiteralString,
        values: Mapping[str, Any],
    ) -> None:
        async with self.writing:  # added earlier, it could be written without the statement
            self.keep_all()
            for type, data in events:
                self.add(type, data)
            await self._append(statement, values)

    async def append_along(self, statement: LiteralString, values: Callable[[], Mapping[str, Any]]) -> None:
        """Write everything added so far with a statement that stores more; not to be cancelled.

        `values` is asked for its other parameters when its turn has come. It gives a row also when no event
        waits, or else the run is not held.

        Raises:
            Fenced: The run has been lost, and nothing was stored.
        """
        async with self.writing:
            await self._append(statement, values())

    def lost(self) -> Fenced:
        """What to raise when the run turns out to be another process's."""
        return Fenced(f"run {self.run} is no longer held under epoch {self.epoch}")

    async def _unbroken(self, write: Coroutine[Any, Any, None]) -> None:
        """Whoever waits may be cancelled, the write is not: half of one would leave open what was written."""
        task = asyncio.create_task(write)
        self._writes.add(task)
        task.add_done_callback(self._written)
        await asyncio.shield(task)

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writes.discard(task)
        if not task.cancelled():
            task.exception()  # told to whoever waited, unless they have left

    async def _append(self, statement: LiteralString, values: Mapping[str, Any]) -> None:
        batch = self.take()
        self.committed(batch, await self._commit(statement, batch | dict(values)))

    def take(self) -> dict[str, Any]:
        """Everything added so far, as parameters of a statement that appends it.

        Raises:
            psycopg.OperationalError: An earlier write has failed. What it was to write is lost, so nothing
                may follow it: whoever claims the run next goes on from what is written.
        """
        if self._has_failed:
            raise psycopg.OperationalError(f"run {self.run}: earlier events could not be written")
        events, self._waiting = self._waiting, []
        self._added.clear()
        self._urgent.clear()
        return {
            "run": self.run,
            "epoch": self.epoch,
            "next": self._next,
            "types": Texts(type for type, _ in events),
            "datas": Texts(encode(data).decode() for _, data in events),
            "events": events,
            "since": self._waiting_since,
        }

    def committed(self, batch: Mapping[str, Any], rows: Sequence[DictRow]) -> None:
        """`batch` is in the database: show it to the watchers."""
        at = {row["seq"]: row["at"] for row in rows}
        numbered = enumerate(batch["events"], start=batch["next"])
        events = [Event(self.run, seq, type, at[seq], data) for seq, (type, data) in numbered]
        if not events:
            return
        self._next += len(events)
        self._written_at = time.monotonic()
        self._feed.publish(events)
        self._written_batch(batch["events"], batch["since"])

    async def _commit(self, statement: LiteralString, batch: Mapping[str, Any]) -> list[DictRow]:
        for attempt in range(TRIES):
            try:
                async with self._pool.connection() as conn:
                    rows = await (await conn.execute(statement, batch)).fetchall()
                return rows or await self._written_before(batch)
            except (psycopg.OperationalError, psycopg.errors.TransactionRollback) as exc:
                if attempt == TRIES - 1 or self._is_given_up:
                    self._has_failed = True
                    raise
                logger.warning("run %s: events not written (%s); trying again", self.run, type(exc).__name__)
                await asyncio.sleep(0.1 * 2**attempt)
        raise AssertionError("unreachable")

    async def _written_before(self, batch: Mapping[str, Any]) -> list[DictRow]:
        """The rows of a batch whose commit succeeded although its answer was lost."""
        async with self._pool.connection() as conn:
            row = await (await conn.execute(_POSITION, {"run": self.run})).fetchone()
            after = batch["next"] + len(batch["types"])
            if not batch["types"] or row is None or (row["epoch"], row["next_seq"]) != (self.epoch, after):
                raise self.lost()
            return await _rows(conn, self.run, batch["next"] - 1)


async def read(pool: Pool, run: UUID, after: int, limit: int = PAGE) -> list[Event]:
    """The events of `run` after number `after`, at most `limit`."""
    async with pool.connection() as conn:
        rows = await _rows(conn, run, after, limit)
    return [Event(run, row["seq"], row["type"], row["at"], row["data"]) for row in rows]


def _is_small(events: Sequence[Event]) -> bool:
    return sum(len(event.frame) for event in events) < PAGE_SIZE


async def _rows(
    conn: psycopg.AsyncConnection[DictRow], run: UUID, after: int, limit: int = PAGE
) -> list[DictRow]:
    return await (await conn.execute(_READ, {"run": run, "after": after, "limit": limit})).fetchall()


async def watch(
    pool: Pool,
    feeds: Feeds,
    run: UUID,
    after: int,
    *,
    poll: float = 0.5,
    quiet: float = 15.0,
    is_told: bool = True,
) -> AsyncIterator[list[Event]]:
    """Every event of `run` after `after`, in order, as they come; ends after the last one.

    It ends too at the newest event if that is a `run.waiting` which the caller had not seen and by which
    somebody is asked, and when the process stops. After `quiet` seconds without an event it yields an empty
    list. `is_told` says whether anybody is told the events, and not only that it has ended.
    """
    with feeds.join(run) as feed:
        feed.is_watched |= is_told
        silent_since, page = time.monotonic(), FIRST_PAGE
        while not feeds.closed:
            changed = feed.signal()
            events, more = feed.after(after), False
            if not events and not (events == [] and feed.is_live):
                try:
                    events = await read(pool, run, after, page)
                except (psycopg.OperationalError, PoolTimeout, TooManyRequests) as exc:
                    # One that waits loses nothing; sent away, it would come back at the worst moment.
                    logger.warning("run %s: events not read (%s)", run, type(exc).__name__)
                    events = []
                more = len(events) == page
                page = min(2 * page, PAGE) if _is_small(events) else max(page // 4, 1)
            if events:
                yield events
                after, silent_since = events[-1].seq, time.monotonic()
                newest = not more and not feed.after(after)
                if events[-1].is_last or (newest and events[-1].asks):
                    return
                continue
            if time.monotonic() - silent_since >= quiet:
                yield []
                silent_since = time.monotonic()
            with suppress(TimeoutError):
                async with asyncio.timeout(quiet if feed.is_live else poll):
                    await changed.wait()
