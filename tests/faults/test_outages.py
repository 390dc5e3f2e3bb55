"""The server's own database is away while a step needs it: no failure of the step's, whatever it asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.checks import check_events, events, rows, run_is, until
from tests.faults.drawings import Gate
from tests.faults.nursery import Family
from tests.faults.postgres import Restartable, restartable
from tests.server import drawing, edge, node
from tests.web_server import Reply, WebServer

BIG = b"x" * 200_000


@pytest.fixture(scope="module")
def postgres() -> Iterator[Restartable]:
    with restartable() as postgres:
        yield postgres


def call(web: WebServer, id: str, path: str) -> dict[str, Any]:
    return node(id, "HttpRequest", url=web.url(path), method="POST", max_retries=0)


def then(web: WebServer, asking: dict[str, Any]) -> dict[str, Any]:
    """A step that is under way when the database goes away, and behind it one that asks for it."""
    nodes = [node("start", "StartNode"), call(web, "slow", "/slow"), asking, call(web, "after", "/after")]
    return drawing(*nodes, edge("start", "slow"), edge("slow", asking["id"]), edge(asking["id"], "after"))


async def test_what_steps_ask_of_the_database_while_it_is_away_is_asked_again(
    children: Family, web: WebServer, postgres: Restartable
) -> None:
    dsn = postgres.fresh()
    settings = {"FLOWSERVER_OUTBOUND_ALLOW": web.door, "FLOWSERVER_LEASE_SECONDS": "40"}
    server = await children.bear(dsn, settings=settings)
    client = server.client
    file = (await client.post("/files", files={"file": ("a.txt", b"hello", "text/plain")})).json()["id"]
    inner = drawing(
        node("start", "StartNode"),
        call(web, "big", "/big"),
        call(web, "next", "/after"),
        edge("start", "big"),
        edge("big", "next"),
    )
    assert (await client.post("/workflows", json={"name": "inner", "flow_data": inner})).status_code == 201
    mapped = drawing(
        node("start", "StartNode"),
        node("each", "Map", items=[1, 2]),
        call(web, "big", "/big"),
        call(web, "next", "/after"),
        edge("start", "each"),
        edge("each", "big", "item"),
        edge("big", "next"),
        edge("next", "each", None, "result"),
    )
    flows = {
        "memory is read": then(web, node("asking", "MemoryRead", place="users/a")),
        "memory is written": then(web, node("asking", "MemoryWrite", place="users/a", content="likes tea")),
        "a file is read": then(web, node("asking", "DocumentLoader", file_id=file)),
        "a large value within a workflow": drawing(
            node("start", "StartNode"),
            node("asking", "Subflow", workflow="inner"),
            edge("start", "asking"),
        ),
        "a large value within a map": mapped,
    }
    slow, big = Gate(), Gate(BIG)
    web.on("/slow", slow.answer)
    web.on("/big", big.answer)
    web.on("/after", Reply(body=b"done"))
    runs = {}
    for what, flow in flows.items():
        posted = await client.post("/runs", json={"flow_data": flow, "mode": "background"})
        assert posted.status_code == 202, posted.text
        runs[what] = posted.json()["id"]
    await asyncio.gather(slow.arrivals(3), big.arrivals(3))

    postgres.cut_off()
    slow.open.set()
    big.open.set()

    async def waits() -> bool:
        return server.log.read_text().count("waiting for the database") >= 2 * len(runs)

    await until(waits, "every run has asked the database more than once", 40)
    postgres.start()
    ended = {what: await run_is(client, run, "succeeded", "failed") for what, run in runs.items()}

    assert {what: (run["status"], run["error"]) for what, run in ended.items()} == dict.fromkeys(
        runs, ("succeeded", None)
    )
    for run in runs.values():
        found = await events(client, run)
        check_events(found)
        assert [event for event in found if event["event"] == "step.failed"] == []


async def test_a_run_that_was_left_as_the_database_stayed_away_has_not_used_up_an_attempt(
    children: Family, web: WebServer, postgres: Restartable
) -> None:
    dsn = postgres.fresh()
    settings = {"FLOWSERVER_OUTBOUND_ALLOW": web.door, "FLOWSERVER_LEASE_SECONDS": "2"}
    server = await children.bear(dsn, settings=settings | {"FLOWSERVER_MAX_ATTEMPTS": "2"})
    gates = [Gate(), Gate(), Gate(b"done")]
    web.on("/slow", *(gate.answer for gate in gates))
    web.on("/after", Reply(body=b"done"))
    flow = then(web, node("asking", "MemoryRead", place="users/a"))
    posted = await server.client.post("/runs", json={"flow_data": flow, "mode": "background"})
    run = posted.json()["id"]

    for gate in gates[:2]:
        await gate.arrivals()
        postgres.cut_off()
        await gate.departures()
        postgres.start()
    gates[2].open.set()
    ended = await run_is(server.client, run, "succeeded", "failed")

    assert (ended["status"], ended["error"]) == ("succeeded", None)
    assert await rows(dsn, "SELECT 1 FROM run WHERE attempt > 2") == []
