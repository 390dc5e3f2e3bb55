"""Postgres is cut off and comes back: wherever runs are, while clients stream, for longer than a lease."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.checks import attempts, check_events, events, paths, rows, run_is, start, until
from tests.faults.drawings import Gate, chain
from tests.faults.nursery import Child, Family
from tests.faults.postgres import Restartable, restartable
from tests.faults.sabotage import Point, Sabotage
from tests.faults.streams import wandering
from tests.server import drawing, node
from tests.web_server import Reply, WebServer

HELD = {
    "claim": "flowserver.executor.Executor._take",
    "checkpoint": "flowserver.saver.FencedSaver.aput",
    "events": "flowserver.journal.Journal._commit",
    "end": "flowserver.execution.Execution._end",
}
"""Where runs are when Postgres goes away; others are in the middle of a step, or wait for an answer."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[Restartable]:
    with restartable() as postgres:
        yield postgres


async def health(server: Child) -> int:
    url = server.client.base_url.copy_with(path="/health/ready")
    return (await server.client.get(url)).status_code


async def test_flt_16_a_restart_of_postgres_loses_no_run_wherever_it_is(
    children: Family, web: WebServer, postgres: Restartable, tmp_path: Path
) -> None:
    dsn = postgres.fresh()
    allow = {"FLOWSERVER_OUTBOUND_ALLOW": web.door}
    front = await children.bear(dsn, "serve", "--no-worker", settings=allow)
    gate = Gate(b"b")
    runs: dict[str, str] = {}
    servers = []

    async def hold(place: str, at: str) -> None:
        for path in "ab":
            web.on(f"/{place}/{path}", Reply(body=path.encode()))
        mark = tmp_path / place
        point = Point(at=at, do="hold", nth=1 if place in ("claim", "end") else 2, mark=str(mark))
        held = Sabotage(points=(point,), takes_jobs=place == "claim")
        server = await children.bear(dsn, settings=allow, sabotage=held)
        servers.append(server)
        body = {"flow_data": chain(web, "a", "b"), "input": {"label": place}}
        if place == "claim":
            runs[place] = await start(front.client, body["flow_data"], place)
        else:
            runs[place] = (await server.client.post("/runs?timeout=0.05", json=body)).json()["id"]
        await until(lambda: _exists(mark), f"a run is held at {place}")

    await hold("claim", HELD["claim"])  # first, while nobody else takes jobs
    await asyncio.gather(*(hold(place, at) for place, at in HELD.items() if place != "claim"))
    web.on("/step/a", Reply(body=b"a"))
    web.on("/step/b", gate.answer, Reply(body=b"b"))
    runs["step"] = await start(front.client, chain(web, "a", "b"), "step")
    ask = drawing(node("ask", "HumanInput", question="?"))
    asking = (await servers[1].client.post("/runs", json={"flow_data": ask})).json()["id"]
    working = await children.bear(dsn, settings=allow)
    watching = asyncio.create_task(wandering([front.client, working.client], runs["end"], most=1000))
    await gate.arrivals()

    postgres.cut_off()
    while_away = [await health(server) for server in (front, working)]
    postgres.start()
    back = time.monotonic()
    for place in HELD:
        (tmp_path / place).unlink()
    gate.open.set()
    for server in (front, working, *servers):
        await until(lambda server=server: _is_ready(server), "it is ready again", 10)  # type: ignore[misc]
    ended = {place: await run_is(front.client, run, "succeeded", "failed") for place, run in runs.items()}
    answered = await working.client.post(f"/runs/{asking}/resume", json={"answer": "yes"})
    after = await run_is(front.client, asking, "succeeded")

    assert while_away == [503, 503]
    assert time.monotonic() - back < 30
    assert {place: run["status"] for place, run in ended.items()} == dict.fromkeys(runs, "succeeded")
    for place, run in ended.items():
        assert (run["output"], run["attempt"] <= 2) == ("b", True), place
        found = await events(front.client, runs[place])
        check_events(found)
        done = paths(web)
        assert done.count(f"/{place}/a") + done.count(f"/{place}/b") <= 3, place
    assert (answered.status_code, after["output"]) == (202, "yes")
    assert await watching == await events(front.client, runs["end"])


async def _exists(mark: Path) -> bool:
    return mark.exists()


async def _is_ready(server: Child) -> bool:
    return await health(server) == 200


async def test_flt_17_while_postgres_is_away_clients_are_told_at_once_and_workers_live_on(
    children: Family, web: WebServer, postgres: Restartable
) -> None:
    dsn = postgres.fresh()
    allow = {"FLOWSERVER_OUTBOUND_ALLOW": web.door}
    gate = Gate(b"late")
    web.on("/x/a", Reply())
    web.on("/x/b", gate.answer, Reply(body=b"again"))
    web.on("/y/c", Reply(body=b"fine"))
    server = await children.bear(dsn, "serve", "--no-worker", settings=allow)
    worker = await children.bear(dsn, "worker", settings=allow)
    run = await start(server.client, chain(web, "a", "b"), "x")
    await gate.arrivals()

    postgres.cut_off()
    asked = time.monotonic()
    refused = await server.client.post(
        "/runs", json={"flow_data": drawing(node("t", "Template", template="x"))}
    )
    waited = time.monotonic() - asked

    async def lost() -> bool:
        return "another process has it now" in worker.log.read_text()

    await until(lost, "the worker gives up what it cannot keep", 10)
    await gate.departures()
    postgres.start()
    ended = await run_is(server.client, run, "succeeded")
    fresh = await start(server.client, chain(web, "c"), "y")

    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
    assert waited < 5
    assert (ended["output"], ended["attempt"]) == ("again", 1), "an outage uses up no attempt"
    assert (await run_is(server.client, fresh, "succeeded"))["output"] == "fine"
    assert worker.lives and server.lives
    check_events(await events(server.client, run))
    assert paths(web).count("/x/a") == 1


async def test_flt_16_flt_39_str_01_many_streams_over_two_servers_and_a_restart_show_every_event_once(
    children: Family, web: WebServer, postgres: Restartable
) -> None:
    """Each client leaves after every event and goes on at the other server."""
    dsn = postgres.fresh()
    allow = {"FLOWSERVER_OUTBOUND_ALLOW": web.door}
    servers = [await children.bear(dsn, settings=allow) for _ in range(2)]
    flow = chain(web, *"abc")
    gate, count = Gate(), 20
    for number in range(count):
        for path in "abc":
            web.on(f"/r{number}/{path}", gate.answer if path == "b" else Reply(), Reply())
    runs = [
        await start(server.client, flow, f"r{number}", durability="sync")
        for server, number in zip(cycle(servers), range(count), strict=False)
    ]
    clients = [asyncio.create_task(wandering([s.client for s in servers], run)) for run in runs]
    await gate.arrivals(count)

    postgres.cut_off()
    postgres.start()
    gate.open.set()
    seen = await asyncio.wait_for(asyncio.gather(*clients), 60)

    for run, found in zip(runs, seen, strict=True):
        check_events(found)
        assert found == await events(servers[0].client, run)
        assert found[-1]["event"] == "run.succeeded"
        assert attempts(found) in ([1], [1, 1], [1, 2])
    done = paths(web)
    for number in range(count):
        assert [done.count(f"/r{number}/{path}") for path in "ac"] == [1, 1] or done.count(
            f"/r{number}/a"
        ) + done.count(f"/r{number}/c") <= 3
    assert {request.status_code for request in [await httpx_ready(server) for server in servers]} == {200}
    assert await rows(dsn, "SELECT 1 FROM run WHERE status <> 'succeeded'") == []


async def httpx_ready(server: Child) -> httpx.Response:
    return await server.client.get(server.client.base_url.copy_with(path="/health/ready"))


async def test_a_submission_with_a_key_is_carried_out_once_although_postgres_went_away_in_between(
    children: Family, web: WebServer, postgres: Restartable, tmp_path: Path
) -> None:
    """FLT-52 in small: the run and its job are there together, or neither is."""
    dsn = postgres.fresh()
    web.on("/x/a", Reply(body=b"done"))
    mark = tmp_path / "held"
    held = Sabotage(points=(Point(at="flowserver.starts.keep_version", do="hold", mark=str(mark)),))
    settings: dict[str, Any] = {"FLOWSERVER_OUTBOUND_ALLOW": web.door}
    server = await children.bear(dsn, settings=settings, sabotage=held)
    request: dict[str, Any] = {
        "json": {"flow_data": chain(web, "a"), "input": {"label": "x"}, "mode": "background"},
        "headers": {"Idempotency-Key": "k"},
    }
    posting = asyncio.create_task(server.client.post("/runs", **request))
    await until(lambda: _exists(mark), "the submission is in its transaction")

    postgres.cut_off()
    mark.unlink()
    first = await posting
    postgres.start()
    await until(lambda: _is_ready(server), "it is ready again", 10)
    again = await server.client.post("/runs", **request)
    ended = await run_is(server.client, again.json()["id"], "succeeded")

    assert (first.status_code, again.status_code) == (503, 202)
    assert "idempotency-replayed" not in again.headers
    assert len(await rows(dsn, "SELECT id FROM run")) == 1
    assert ended["output"] == "done"
    assert paths(web) == ["/x/a"]
