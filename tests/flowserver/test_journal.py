"""The journal: numbered without a gap, written once, and shown to every watcher exactly once and in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest

import sql
from flowserver.accounts import DEFAULT_ORG
from flowserver.db import Pool, make_pool
from flowserver.errors import Fenced
from flowserver.event_batches import EventBatches
from flowserver.events import Event
from flowserver.feeds import TAIL, Feeds
from flowserver.journal import TEXT_SIZE, Journal, read, watch


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[Pool]:
    async with make_pool(dsn) as pool:
        yield pool


@pytest.fixture
async def run(pool: Pool) -> UUID:
    """A run that is executed under epoch 1 and has told nothing yet."""
    id = uuid4()
    async with pool.connection() as conn:
        await conn.execute("INSERT INTO org (id, name) VALUES (%s, 'o')", (DEFAULT_ORG,))
        await conn.execute("INSERT INTO workflow_version VALUES (%s, 'v', '{}')", (DEFAULT_ORG,))
        await conn.execute(
            "INSERT INTO run (id, org_id, version, thread_id, trigger, status, epoch)"
            " VALUES (%s, %s, 'v', %s, '{}', 'running', 1)",
            (id, DEFAULT_ORG, str(id)),
        )
    return id


FINISH = sql.queries("runs")["finish"]
SUCCEEDED = {"status": "succeeded", "output": "5", "error": None, "usage": "{}", "had_errors": False}


async def written_by(pool: Pool, table: LiteralString, where: LiteralString) -> list[str]:
    """The transactions that wrote some rows as they are now."""
    async with pool.connection() as conn:
        rows = await (await conn.execute(f"SELECT xmin::text FROM {table} WHERE {where}")).fetchall()
    return [row["xmin"] for row in rows]


async def collect(pool: Pool, feeds: Feeds, run: UUID, after: int = 0, **more: Any) -> list[Event]:
    return [event async for events in watch(pool, feeds, run, after, **more) for event in events]


async def test_pieces_of_text_that_follow_each_other_become_one_event(pool: Pool, run: UUID) -> None:
    feeds = Feeds()
    with feeds.join(run) as feed:
        journal = Journal(pool, feed, run, 1, 1)
        for piece in ("a", "b", "c"):
            journal.add("text", {"step": "x", "text": piece})
        journal.add("text", {"step": "y", "text": "d"})
        journal.add("text", {"step": "x", "text": "z" * TEXT_SIZE})
        journal.add("text", {"step": "x", "text": "e"})
        await journal.flush()

    told = [(event.seq, event.data["step"], event.data["text"][:3]) for event in await read(pool, run, 0)]
    assert told == [(1, "x", "abc"), (2, "y", "d"), (3, "x", "zzz"), (4, "x", "e")]


async def test_every_watcher_sees_every_event_once_wherever_it_begins(pool: Pool, run: UUID) -> None:
    feeds = Feeds()
    with feeds.join(run) as feed:
        feed.is_live = True
        journal = Journal(pool, feed, run, 1, 1)
        writer = asyncio.create_task(journal.write())
        here = [asyncio.create_task(collect(pool, feeds, run, after)) for after in (0, 7, 150)]
        elsewhere = asyncio.create_task(collect(pool, Feeds(), run, 0, poll=0.01))
        for number in range(3 * TAIL):  # more than a feed keeps
            journal.add("step.started", {"step": str(number)})
            if number % 50 == 0:
                await asyncio.sleep(0)
        journal.add("run.succeeded", {"output": None})
        found = await asyncio.gather(*here, elsewhere)
        writer.cancel()

    last = 3 * TAIL + 1
    for events, first in zip(found, (1, 8, 151, 1), strict=True):
        assert [event.seq for event in events] == list(range(first, last + 1))


async def test_a_watcher_that_is_slow_misses_nothing(pool: Pool, run: UUID) -> None:
    feeds = Feeds()
    seen: list[int] = []
    with feeds.join(run) as feed:
        feed.is_live = True
        journal = Journal(pool, feed, run, 1, 1)
        watching = watch(pool, feeds, run, 0)
        journal.add("run.started", {})
        await journal.flush()
        async for events in watching:
            seen += [event.seq for event in events]
            if len(seen) == 1:  # while it looks at the first, a whole tail goes by
                for number in range(2 * TAIL):
                    journal.add("step.started", {"step": str(number)})
                    await journal.flush() if number % 100 == 0 else None
                journal.add("run.cancelled", {})
                await journal.flush()

    assert seen == list(range(1, 2 * TAIL + 3))


async def test_str_12_a_process_that_lost_its_run_can_tell_nothing_more(pool: Pool, run: UUID) -> None:
    feeds = Feeds()
    with feeds.join(run) as feed:
        journal = Journal(pool, feed, run, 1, 1)
        async with pool.connection() as conn:
            await conn.execute("UPDATE run SET epoch = 2 WHERE id = %s", (run,))
        journal.add("run.started", {})

        with pytest.raises(Fenced):
            await journal.flush()

    assert await read(pool, run, 0) == []


async def test_flt_20_a_commit_whose_answer_was_lost_is_not_written_twice(
    pool: Pool, run: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks after the server has committed and before we hear of it."""
    real = psycopg.AsyncConnection.execute
    lost = 0

    async def execute(self: Any, query: Any, *args: Any, **more: Any) -> Any:
        nonlocal lost
        found = await real(self, query, *args, **more)
        if "INSERT INTO run_event" in str(query) and not lost:
            lost += 1
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return found

    monkeypatch.setattr(psycopg.AsyncConnection, "execute", execute)
    feeds = Feeds()
    with feeds.join(run) as feed:
        journal = Journal(pool, feed, run, 1, 1)
        journal.add("run.started", {"attempt": 1})
        await journal.flush()
        journal.add("step.started", {"step": "a"})
        await journal.flush()

    assert lost == 1
    assert [(event.seq, event.type) for event in await read(pool, run, 0)] == [
        (1, "run.started"),
        (2, "step.started"),
    ]


async def test_the_last_event_is_never_seen_without_the_status_that_it_tells(pool: Pool, run: UUID) -> None:
    """Writes wait for each other: one that began to wait earlier must not take the last event along."""
    feeds = Feeds()
    with feeds.join(run) as feed:
        journal = Journal(pool, feed, run, 1, 1)
        journal.add("run.started", {"attempt": 1})
        async with journal.writing:
            flushing = asyncio.create_task(journal.flush())
            ending = asyncio.create_task(
                journal.append_with([("run.succeeded", {"output": 5})], FINISH, SUCCEEDED)
            )
            for _ in range(10):  # until both of them wait
                await asyncio.sleep(0)
        await flushing
        await ending

    assert [event.type for event in await read(pool, run, 0)] == ["run.started", "run.succeeded"]
    last_event = await written_by(pool, "run_event", "type = 'run.succeeded'")
    assert await written_by(pool, "run", "status = 'succeeded'") == last_event != []


async def test_events_of_several_runs_are_written_together_and_each_run_has_its_own(
    pool: Pool, run: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them is no longer held: it hears so, and the others lose nothing."""
    real = psycopg.AsyncConnection.execute
    statements: list[str] = []

    async def execute(self: Any, query: Any, *args: Any, **more: Any) -> Any:
        if "INSERT INTO run_event" in str(query):
            statements.append(str(query))
        return await real(self, query, *args, **more)

    runs = [run, *(uuid4() for _ in range(9))]
    async with pool.connection() as conn:
        for id in runs[1:]:
            await conn.execute(
                "INSERT INTO run (id, org_id, version, thread_id, trigger, status, epoch)"
                " VALUES (%s, %s, 'v', %s, '{}', 'running', 1)",
                (id, DEFAULT_ORG, str(id)),
            )
    monkeypatch.setattr(psycopg.AsyncConnection, "execute", execute)
    feeds, batches = Feeds(), EventBatches(pool)
    with contextlib.ExitStack() as stack:
        journals = [
            Journal(
                pool, stack.enter_context(feeds.join(id)), id, 1 if id != runs[3] else 7, 1, batches=batches
            )
            for id in runs
        ]
        for number, journal in enumerate(journals):
            for step in range(number + 1):
                journal.add("step.started", {"step": str(step)})
        ended = await asyncio.gather(*(journal.flush() for journal in journals), return_exceptions=True)

    assert [type(each) for each in ended if each is not None] == [Fenced]
    assert isinstance(ended[3], Fenced)
    for number, id in enumerate(runs):
        told = [(event.seq, event.data["step"]) for event in await read(pool, id, 0)]
        assert told == ([] if number == 3 else [(step + 1, str(step)) for step in range(number + 1)])
    assert len(statements) < len(runs) / 2


async def test_after_a_write_that_failed_nothing_more_is_written(
    pool: Pool, run: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what comes next would take the place of what is lost, and nobody would see that it is."""
    real = psycopg.AsyncConnection.execute

    async def execute(self: Any, query: Any, *args: Any, **more: Any) -> Any:
        if "INSERT INTO run_event" in str(query):
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return await real(self, query, *args, **more)

    feeds = Feeds()
    with feeds.join(run) as feed:
        journal = Journal(pool, feed, run, 1, 1)
        journal.add("run.started", {"attempt": 1})
        journal.give_up()  # it tries once only
        with monkeypatch.context() as patched:
            patched.setattr(psycopg.AsyncConnection, "execute", execute)
            with pytest.raises(psycopg.OperationalError):
                await journal.flush()
        journal.add("step.started", {"step": "a"})
        with pytest.raises(psycopg.OperationalError, match="earlier events"):
            await journal.flush()

    assert await read(pool, run, 0) == []


async def test_a_quiet_stream_gives_signs_of_life(pool: Pool, run: UUID) -> None:
    signs = 0
    async for events in watch(pool, Feeds(), run, 0, poll=0.01, quiet=0.03):
        assert events == []
        signs += 1
        if signs == 3:
            break

    assert signs == 3


async def test_watchers_leave_when_the_process_stops(pool: Pool, run: UUID) -> None:
    feeds = Feeds()
    watching = asyncio.create_task(collect(pool, feeds, run))
    await asyncio.sleep(0)

    feeds.close()

    assert await asyncio.wait_for(watching, 5) == []
