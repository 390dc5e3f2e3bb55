"""What holds of every run, whatever has happened to the processes that executed it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, LiteralString

import httpx
import psycopg
from psycopg.rows import dict_row

from tests.faults.nursery import PATIENCE
from tests.server import events_of
from tests.web_server import WebServer

LAST = ("run.succeeded", "run.failed", "run.cancelled")


async def until(holds: Callable[[], Awaitable[Any]], what: str, seconds: float = PATIENCE) -> Any:
    """Look again and again until `holds` gives something true, and return that."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := await holds():
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"not within {seconds:g} seconds: {what}")


async def rows(dsn: str, query: LiteralString, *values: Any) -> list[dict[str, Any]]:
    """Ask the database itself."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True, row_factory=dict_row) as conn:
        found = await conn.execute(query, values)
        return await found.fetchall() if found.description else []


async def start(client: httpx.AsyncClient, flow: Mapping[str, Any], label: str, **more: Any) -> str:
    """Start a run in the background."""
    body = {"flow_data": flow, "input": {"label": label}, "mode": "background", **more}
    response = await client.post("/runs", json=body)
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


async def run_is(client: httpx.AsyncClient, run: str, *statuses: str, seconds: float = PATIENCE) -> Any:
    """The run, once it has one of these statuses."""

    async def look() -> Any:
        found = (await client.get(f"/runs/{run}")).json()
        return found if found.get("status") in statuses else None

    return await until(look, f"run {run} is {' or '.join(statuses)}", seconds)


async def events(client: httpx.AsyncClient, run: str, after: int = 0) -> list[dict[str, Any]]:
    """The events of a run until it has ended or asks something."""
    response = await client.get(f"/runs/{run}/events", params={"after": after})
    return events_of(response.text)


def check_events(found: Sequence[dict[str, Any]], durability: str = "sync") -> None:
    """They are numbered without a gap, begin with the beginning and end with the one end, as steps do."""
    assert [event["seq"] for event in found] == list(range(1, len(found) + 1))
    assert found[0]["event"] == "run.created"
    assert [event["event"] for event in found if event["event"] in LAST] == [found[-1]["event"]]
    check_steps(found, durability)


def check_steps(found: Sequence[dict[str, Any]], durability: str) -> None:
    """No step begins again once its end was told, and of a run that has ended none is left without an end.

    Whoever asks for the durability `exit` has nothing kept before the end, and steps that run again.
    """
    began: dict[str, bool] = {}
    for event in found:
        place = f"{event.get('step')} {event.get('within')}"
        match event["event"]:
            case "step.started":
                assert durability == "exit" or began.get(place) is not False, f"{place} began again"
                began[place] = True
            case "step.finished" | "step.skipped":
                assert began.get(place) is not False or durability == "exit", f"{place} ended twice"
                began[place] = False
            case "step.failed" if not event["will_retry"]:
                began[place] = False
    if found[-1]["event"] in LAST:
        assert [place for place, is_open in began.items() if is_open] == []


def check_effects(stages: Sequence[Sequence[str]], before: Sequence[str], whole: Sequence[str]) -> None:
    """What was committed when the process died is not done again; what was in flight at most once more.

    `before` are the effects at that time, `whole` those at the end.
    """
    begun = max((number for number, stage in enumerate(stages) if set(stage) & set(before)), default=-1)
    for number, stage in enumerate(stages):
        for path in stage:
            most = 2 if number == begun and path in before else 1
            assert 1 <= whole.count(path) <= most, f"{path} was done {whole.count(path)} times: {whole}"
    assert set(whole) == {path for stage in stages for path in stage}


async def check_line(dsn: str, run: str) -> None:
    """The checkpoints of a run's thread are a line: no process has written beside another."""
    forked = await rows(
        dsn,
        "SELECT parent_checkpoint_id FROM checkpoints"
        " WHERE thread_id = (SELECT thread_id FROM run WHERE id = %s)"
        " AND checkpoint_ns = '' GROUP BY parent_checkpoint_id HAVING count(*) > 1",
        run,
    )
    assert forked == []


def attempts(found: Sequence[dict[str, Any]]) -> list[int]:
    """The attempts that a run's events tell of."""
    return [event["attempt"] for event in found if event["event"] == "run.started"]


def paths(web: WebServer) -> list[str]:
    """What `web` was asked for."""
    return [request.path for request in web.requests]


async def settled(web: WebServer) -> None:
    """Return when `web` has read what was sent to it before."""
    for _ in range(2):
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
        writer.write(b"GET /nothing HTTP/1.1\r\n\r\n")
        await reader.read()
        writer.close()


async def no_job_is_left(dsn: str) -> None:
    """Nothing waits in the queue for runs that are over."""

    async def empty() -> bool:
        found = await rows(
            dsn,
            "SELECT 1 FROM procrastinate_jobs AS job JOIN run ON run.id::text = job.args->>'run'"
            " WHERE job.status IN ('todo', 'doing') AND run.status IN ('succeeded', 'failed', 'cancelled')",
        )
        return not found

    await until(empty, "no job is left for a run that is over")
