"""Runs while they run: cancelling, sessions in order, many at once, more than fit, and two processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from flowserver.app import create_app
from flowserver.settings import Settings
from tests.server import KEY, drawing, edge, events_of, node, serving, told
from tests.web_server import Raw, Reply, Request, WebServer


class Gate:
    """An answer that is held back until it is opened, and notices when the client leaves."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.open = asyncio.Event()
        self.left = asyncio.Event()

    async def write(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self.arrived.set()
        opened = asyncio.create_task(self.open.wait())
        closed = asyncio.create_task(writer.wait_closed())
        while not opened.done() and not writer.is_closing():
            await asyncio.wait([opened, closed], timeout=0.02)
        closed.cancel()
        opened.cancel()
        if writer.is_closing():
            self.left.set()
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()


@pytest.fixture
async def web() -> AsyncIterator[WebServer]:
    async with WebServer() as web:
        yield web


@pytest.fixture
async def client(tmp_path: Path, dsn: str, web: WebServer) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(data_dir=tmp_path, api_key=KEY, outbound_allow=(web.door,), grace_seconds=1)
    async with serving(create_app(settings, dsn)) as client:
        yield client


def calls(url: str, **more: Any) -> dict[str, Any]:
    return drawing(
        node("start", "StartNode"),
        node("call", "HttpRequest", url=url, max_retries=0, **more),
        edge("start", "call"),
    )


async def start(client: httpx.AsyncClient, flow: dict[str, Any], **more: Any) -> str:
    response = await client.post("/runs", json={"flow_data": flow, "mode": "background", **more})
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


async def ended(client: httpx.AsyncClient, run: str) -> dict[str, Any]:
    await client.get(f"/runs/{run}/events", params={"after": 0})
    return dict((await client.get(f"/runs/{run}")).json())


async def test_flt_36_cancelling_a_running_run_ends_it_and_its_outbound_call(
    client: httpx.AsyncClient, web: WebServer
) -> None:
    began = asyncio.Event()
    hung_up = asyncio.Event()

    async def write(request: Request, writer: asyncio.StreamWriter) -> None:
        began.set()
        try:
            while True:  # until the other side is gone
                writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
                await writer.drain()
                await asyncio.sleep(0.01)
        finally:
            hung_up.set()

    run = await start(client, calls(web.on("/", Raw(write))))
    await asyncio.wait_for(began.wait(), 10)

    cancelled = await client.post(f"/runs/{run}/cancel")
    found = await ended(client, run)
    await asyncio.wait_for(hung_up.wait(), 5)

    assert cancelled.status_code == 202
    assert found["status"] == "cancelled"
    events = events_of((await client.get(f"/runs/{run}/events?after=0")).text)
    assert told(events)[-3:] == ["step.started call", "step.failed call", "run.cancelled"]
    assert events[-2]["error"]["code"] == "cancelled"


async def test_a_run_that_another_server_executes_is_cancelled_through_the_database(
    client: httpx.AsyncClient, web: WebServer, tmp_path: Path, dsn: str
) -> None:
    gate = Gate()
    run = await start(client, calls(web.on("/", Raw(gate.write))))
    await asyncio.wait_for(gate.arrived.wait(), 10)

    async with serving(create_app(Settings(data_dir=tmp_path, api_key=KEY), dsn)) as other:
        await other.post(f"/runs/{run}/cancel")
        found = await ended(other, run)

    assert found["status"] == "cancelled"


async def test_runs_of_one_session_run_one_after_another_in_the_order_they_came(
    client: httpx.AsyncClient, web: WebServer
) -> None:
    gate = Gate()
    web.on("/first", Raw(gate.write))
    web.on("/second", Reply())
    first = await start(client, calls(web.url("/first")), session_id="s")
    await asyncio.wait_for(gate.arrived.wait(), 10)
    others = [await start(client, calls(web.url("/second")), session_id="s") for _ in range(3)]
    refused = await client.post(
        "/runs", json={"flow_data": calls(web.url("/second")), "session_id": "s", "on_busy": "reject"}
    )

    waiting = [(await client.get(f"/runs/{run}")).json()["status"] for run in others]
    gate.open.set()
    runs = [await ended(client, run) for run in (first, *others)]

    assert waiting == ["queued"] * 3
    assert refused.status_code == 409
    assert [run["status"] for run in runs] == ["succeeded"] * 4
    for before, after in pairwise(runs):
        assert before["finished_at"] <= after["started_at"]


async def test_runs_of_one_session_that_start_at_the_same_moment_all_end(client: httpx.AsyncClient) -> None:
    body = {"flow_data": drawing(node("t", "Template", template="{{ input }}")), "session_id": "s"}

    responses = await asyncio.gather(*(client.post("/runs", json=body | {"input": i}) for i in range(12)))

    assert sorted(response.json()["output"] for response in responses) == sorted(map(str, range(12)))


async def test_runs_beyond_the_limit_wait_and_then_run(tmp_path: Path, dsn: str, web: WebServer) -> None:
    gate = Gate()
    settings = Settings(data_dir=tmp_path, api_key=KEY, outbound_allow=(web.door,), max_runs=1)
    async with serving(create_app(settings, dsn)) as client:
        first = await start(client, calls(web.on("/", Raw(gate.write))))
        await asyncio.wait_for(gate.arrived.wait(), 10)
        second = await start(client, drawing(node("t", "Template", template="x")))
        status = (await client.get(f"/runs/{second}")).json()["status"]
        gate.open.set()
        runs = [await ended(client, run) for run in (first, second)]

    assert status == "queued"
    assert [run["status"] for run in runs] == ["succeeded", "succeeded"]


async def test_a_client_that_leaves_ends_its_run_only_if_it_said_so(
    client: httpx.AsyncClient, web: WebServer
) -> None:
    for wish, expected in (("cancel", "cancelled"), ("continue", "succeeded")):
        gate = Gate()
        flow = calls(web.on(f"/{wish}", Raw(gate.write)))
        body = {"flow_data": flow, "mode": "stream", "on_disconnect": wish}
        async with client.stream("POST", "/runs", json=body) as response:
            run = response.headers["x-run-id"]
            await asyncio.wait_for(gate.arrived.wait(), 10)
        if wish == "continue":
            gate.open.set()

        assert (await ended(client, run))["status"] == expected


async def test_many_runs_at_once_all_end_and_number_their_events_without_a_gap(
    client: httpx.AsyncClient,
) -> None:
    flow = drawing(
        node("start", "StartNode"),
        *(node(f"t{i}", "Template", template=f"{i}{{{{ input }}}}") for i in range(5)),
        node("end", "EndNode"),
        *(edge("start", f"t{i}") for i in range(5)),
        *(edge(f"t{i}", "end") for i in range(5)),
    )

    responses = await asyncio.gather(
        *(
            client.post("/runs", json={"flow_data": flow, "input": f"-{i}", "mode": "stream"})
            for i in range(40)
        )
    )

    for i, response in enumerate(responses):
        events = events_of(response.text)
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert events[-1]["output"] == [f"{n}-{i}" for n in range(5)]


async def test_str_08_text_that_looks_like_frames_stays_inside_its_event(client: httpx.AsyncClient) -> None:
    nasty = "a\r\n\r\nevent: run.failed\ndata: {}\n\n\u2028\u2029 \x00 \U0001f600"

    response = await client.post(
        "/runs",
        json={
            "flow_data": drawing(node("t", "Template", template="{{ input }}")),
            "input": nasty,
            "mode": "stream",
        },
    )

    events = events_of(response.text)
    assert told(events)[-1] == "run.succeeded"
    assert events[-1]["output"] == nasty.replace("\x00", "")


async def test_a_large_output_is_cut_in_the_events_and_whole_in_the_run(client: httpx.AsyncClient) -> None:
    flow = drawing(node("a", "Template", template="{{ input }}"))

    found = (await client.post("/runs", json={"flow_data": flow, "input": "x" * 200_000})).json()
    events = events_of((await client.get(f"/runs/{found['id']}/events?after=0")).text)

    finished = next(event for event in events if event["event"] == "step.finished")
    assert finished["cut"] is True
    assert len(finished["outputs"]) < 100_000
    assert len(found["output"]) == 200_000


async def test_flt_15_what_a_step_may_not_keep_fails_it_by_name(
    client: httpx.AsyncClient, web: WebServer
) -> None:
    deep = b"[" * 100 + b"]" * 100
    web.on("/", Reply(body=deep, headers={"Content-Type": "application/json"}))

    found = (await client.post("/runs", json={"flow_data": calls(web.url("/"))})).json()
    after = await client.post("/runs", json={"flow_data": drawing(node("t", "Template", template="fine"))})

    assert found["status"] == "failed"
    assert (found["error"]["step"], found["error"]["code"]) == ("call", "unsafe_output")
    assert after.json()["output"] == "fine"


async def test_flt_18_a_database_that_goes_away_for_a_moment_loses_no_run(
    client: httpx.AsyncClient, web: WebServer, dsn: str
) -> None:
    gate = Gate()
    run = await start(client, calls(web.on("/", Raw(gate.write))))
    await asyncio.wait_for(gate.arrived.wait(), 10)

    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        await conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    gate.open.set()
    found = await ended(client, run)

    assert found["status"] == "succeeded"
    seqs = [e["seq"] for e in events_of((await client.get(f"/runs/{run}/events?after=0")).text)]
    assert seqs == list(range(1, len(seqs) + 1))


async def test_a_graceful_stop_repeats_no_effect_that_was_done(
    tmp_path: Path, dsn: str, web: WebServer
) -> None:
    """One effect, so durability is `exit`: what it did must be kept although the run did not end."""
    gate = Gate()
    settings = Settings(data_dir=tmp_path, api_key=KEY, outbound_allow=(web.door,), grace_seconds=10)
    flow = drawing(
        node("start", "StartNode"),
        node("call", "HttpRequest", url=web.on("/", Raw(gate.write)), max_retries=0),
        node("after", "Template", template="{{ call.content }}!"),
        edge("start", "call"),
        edge("call", "after"),
    )
    async with serving(create_app(settings, dsn)) as client:
        run = await start(client, flow)
        await asyncio.wait_for(gate.arrived.wait(), 10)
        asyncio.get_running_loop().call_later(0.5, gate.open.set)

    async with serving(create_app(settings, dsn)) as client:
        found = await ended(client, run)
        events = events_of((await client.get(f"/runs/{run}/events?after=0")).text)

    assert found["output"] == "ok!"
    assert len(web.requests) == 1
    assert told(events).count("step.started call") == 1
