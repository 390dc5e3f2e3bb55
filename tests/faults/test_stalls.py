"""Processes whose event loop stands still: they say where, and end; no third one stops by the same run."""

from __future__ import annotations

import re

import httpx
import pytest

from flowserver.watchdog import STATUS
from tests.faults.checks import check_events, events, run_is, start, until
from tests.faults.drawings import Gate, chain
from tests.faults.nursery import Family
from tests.faults.sabotage import Point, Sabotage
from tests.web_server import Reply, WebServer

STEP = "flowserver.recorder.Recorder.finished"


@pytest.fixture
def allow(web: WebServer) -> dict[str, str]:
    return {"FLOWSERVER_OUTBOUND_ALLOW": web.door}


@pytest.mark.parametrize(
    ("point", "status", "said"),
    [
        pytest.param(
            Point(at=STEP, do="block", nth=0, seconds=300), STATUS, "this process ends", id="in-python"
        ),
        pytest.param(Point(at=STEP, do="hog", nth=0), 1, "Timeout", id="in-c-with-the-interpreter-held"),
    ],
)
async def test_a_run_that_stalls_two_processes_is_set_aside_and_the_third_lives(
    children: Family, web: WebServer, dsn: str, allow: dict[str, str], point: Point, status: int, said: str
) -> None:
    web.on("/poison/a", Reply(body=b"done"))
    server = await children.bear(dsn, "serve", "--no-worker", settings=allow)
    settings = allow | {"FLOWSERVER_LEASE_SECONDS": "1", "FLOWSERVER_STALL_SECONDS": "1"}
    run = await start(server.client, chain(web, "a"), "poison")
    for _ in range(2):
        victim = await children.bear(dsn, "worker", settings=settings, sabotage=Sabotage(points=(point,)))
        assert await victim.ended() == status
        log = victim.log.read_text()
        assert said in log and "sabotage.py" in log
    third = await children.bear(dsn, "worker", settings=settings)

    failed = await run_is(server.client, run, "failed")
    assert (failed["error"]["code"], failed["attempt"]) == ("poisoned", 2)
    check_events(await events(server.client, run))
    assert third.lives


async def test_a_stall_that_passes_is_logged_with_its_place_and_counted(
    children: Family, web: WebServer, dsn: str, allow: dict[str, str]
) -> None:
    web.on("/short/a", Reply(body=b"done"))
    sabotage = Sabotage(
        points=(Point(at=STEP, do="block", seconds=3),), values={"flowserver.watchdog.NOTICED": 1.0}
    )
    server = await children.bear(dsn, settings=allow, sabotage=sabotage)
    ran = await server.client.post("/runs", json={"flow_data": chain(web, "a"), "input": {"label": "short"}})
    assert ran.json()["status"] == "succeeded"

    async def metrics() -> str:
        root = str(server.client.base_url).removesuffix("/api/v1/")
        async with httpx.AsyncClient() as client:
            return (await client.get(f"{root}/metrics")).text

    text = await metrics()
    assert re.search(r'^flowserver_event_loop_stalls_total\{where="[\w.<>]+"\} 1\.0$', text, re.M)
    (seconds,) = re.findall(r"^flowserver_event_loop_stalled_seconds_total (\S+)$", text, re.M)
    assert 0.5 <= float(seconds) <= 60

    async def is_told() -> bool:
        return "the event loop goes on after" in server.log.read_text()

    await until(is_told, "the log says that the loop goes on")
    assert "the event loop has stood still for 1.0 s in" in server.log.read_text()


async def test_a_server_without_a_limit_goes_on_after_any_stall(
    children: Family, web: WebServer, dsn: str, allow: dict[str, str]
) -> None:
    gate = Gate()
    web.on("/long/a", gate.answer)
    block = Point(at=STEP, do="block", seconds=3)
    settings = allow | {"FLOWSERVER_STALL_SECONDS": "0"}
    server = await children.bear(dsn, settings=settings, sabotage=Sabotage(points=(block,)))
    gate.open.set()
    ran = await server.client.post("/runs", json={"flow_data": chain(web, "a"), "input": {"label": "long"}})

    assert (ran.json()["status"], ran.json()["attempt"]) == ("succeeded", 1)
