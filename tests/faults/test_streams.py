"""Event streams: every event once and in order, whatever happens to servers, signals and clients."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from psycopg.rows import dict_row

from flowserver import journal
from flowserver.accounts import DEFAULT_ORG
from flowserver.app import create_app
from flowserver.db import Pool, make_pool
from flowserver.feeds import Feeds
from flowserver.journal import Journal, read, watch
from flowserver.settings import Settings
from tests.faults.checks import check_events, events, rows, run_is, start, until
from tests.faults.drawings import Gate, chain
from tests.faults.nursery import Family
from tests.faults.proxy import Proxy
from tests.faults.sabotage import Sabotage
from tests.faults.streams import each, wandering
from tests.server import KEY, drawing, node, serving, told
from tests.web_server import Reply, WebServer


@pytest.fixture
def allow(web: WebServer) -> dict[str, str]:
    return {"FLOWSERVER_OUTBOUND_ALLOW": web.door}


async def test_str_01_flt_39_a_server_that_dies_after_any_event_is_replaced_without_a_gap(
    children: Family, web: WebServer, dsn: str, allow: dict[str, str]
) -> None:
    """The server that streams is not the one that executes; it dies after each number of events in turn."""
    gate = Gate(b"b")
    web.on("/x/a", Reply(body=b"a"))
    web.on("/x/b", gate.answer)
    executing = await children.bear(dsn, settings=allow)
    run = await start(executing.client, chain(web, "a", "b"), "x")
    await gate.arrivals()

    async def after(count: int) -> list[dict[str, Any]]:
        server = await children.bear(dsn, "serve", "--no-worker", settings=allow)
        seen: list[dict[str, Any]] = []
        stream = each(server.client, run, 0)
        async for event in stream:
            seen.append(event)
            if len(seen) == count:
                break
        await server.kill()
        await stream.aclose()  # type: ignore[attr-defined]  # an async generator has it
        return seen + await wandering([executing.client], run, after=seen[-1]["seq"], most=1000)

    clients = [asyncio.create_task(after(count)) for count in range(1, 6)]
    await asyncio.sleep(0)
    gate.open.set()
    found = await asyncio.gather(*clients)

    whole = await events(executing.client, run)
    check_events(whole)
    assert len(whole) > 6
    assert all(each == whole for each in found)


async def test_str_02_without_any_signal_the_same_events_come_a_little_later(
    children: Family, web: WebServer, dsn: str, allow: dict[str, str]
) -> None:
    gate = Gate()
    for path in "ac":
        web.on(f"/x/{path}", Reply())
    web.on("/x/b", gate.answer)
    mute = Sabotage(values={"flowserver.signals._NOTIFY": "SELECT 1 WHERE %(payloads)s::text[] IS NULL"})
    executing = await children.bear(dsn, settings=allow, sabotage=mute)
    watching = await children.bear(dsn, "serve", "--no-worker", settings=allow)
    run = await start(executing.client, chain(web, *"abc"), "x")
    await gate.arrivals()
    late: list[float] = []

    async def watch_it() -> list[dict[str, Any]]:
        seen = []
        async for event in each(watching.client, run, 0):
            seen.append(event)
            late.append((datetime.now(UTC) - datetime.fromisoformat(event["at"])).total_seconds())
            if "step.started s1" in told(seen):
                gate.open.set()
        return seen

    seen = await watch_it()

    assert seen == await events(executing.client, run)
    check_events(seen)
    after_the_gate = late[told(seen).index("step.finished s1") :]
    assert max(after_the_gate) < 1.2
    assert max(after_the_gate) > 0.02, "it was told, and did not look by itself"


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[Pool]:
    async with make_pool(dsn) as pool:
        yield pool


async def new_run(pool: Pool) -> UUID:
    """A run that is executed under epoch 1 and has told nothing yet."""
    id = uuid4()
    async with pool.connection() as conn:
        await conn.execute(
            "INSERT INTO org (id, name) VALUES (%s, 'o') ON CONFLICT DO NOTHING", (DEFAULT_ORG,)
        )
        await conn.execute(
            "INSERT INTO workflow_version VALUES (%s, 'v', '{}') ON CONFLICT DO NOTHING", (DEFAULT_ORG,)
        )
        await conn.execute(
            "INSERT INTO run (id, org_id, version, thread_id, trigger, status, epoch)"
            " VALUES (%s, %s, 'v', %s, '{}', 'running', 1)",
            (id, DEFAULT_ORG, str(id)),
        )
    return id


async def tell(pool: Pool, feeds: Feeds, run: UUID, *types: str, after: int = 0) -> None:
    """Write events as the process that executes the run."""
    with feeds.join(run) as feed:
        writer = Journal(pool, feed, run, 1, after + 1)
        for type in types:
            writer.add(type, {"step": "x"})
        await writer.flush()


async def test_str_03_an_event_between_the_reading_and_the_waiting_is_not_slept_over(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is committed, and told, right after the watcher has read and before it waits."""
    run, here, elsewhere = await new_run(pool), Feeds(), Feeds()
    real, reads = journal.read, 0

    async def read_then_tell(*values: Any, **more: Any) -> Any:
        nonlocal reads
        found = await real(*values, **more)
        reads += 1
        if reads == 2:
            await tell(pool, elsewhere, run, "run.succeeded", after=1)
            here.wake(run)  # the signal, before the watcher waits for it
        return found

    await tell(pool, elsewhere, run, "run.started")
    monkeypatch.setattr(journal, "read", read_then_tell)
    began = time.monotonic()
    seen = [event async for found in watch(pool, here, run, 0, poll=60) for event in found]

    assert [(event.seq, event.type) for event in seen] == [(1, "run.started"), (2, "run.succeeded")]
    assert time.monotonic() - began < 10


async def test_str_03_a_signal_before_its_event_can_be_seen_loses_nothing(pool: Pool) -> None:
    run, here, elsewhere = await new_run(pool), Feeds(), Feeds()
    await tell(pool, elsewhere, run, "run.started")
    seen: list[int] = []

    async for found in watch(pool, here, run, 0, poll=0.2):
        seen += [event.seq for event in found]
        if seen == [1]:
            here.wake(run)  # too early: there is nothing to see yet
            asyncio.get_running_loop().call_later(
                0.05,
                lambda: late.append(asyncio.ensure_future(tell(pool, elsewhere, run, "run.failed", after=1))),
            )

    assert seen == [1, 2]


late: list[asyncio.Future[None]] = []


async def test_a_question_at_the_end_of_a_page_is_not_the_end(pool: Pool) -> None:
    run, page = await new_run(pool), journal.FIRST_PAGE
    before = ["run.started", *["step.started"] * (page - 2), "run.waiting"]
    await tell(pool, Feeds(), run, *before, "run.started", "run.waiting", "run.succeeded")

    seen = [event.seq async for found in watch(pool, Feeds(), run, 0) for event in found]

    assert seen == list(range(1, page + 4))


async def test_str_04_events_of_two_runs_that_are_committed_out_of_order_are_all_seen(
    pool: Pool, dsn: str
) -> None:
    slow, quick, feeds = await new_run(pool), await new_run(pool), Feeds()
    insert = (
        "WITH held AS (UPDATE run SET next_seq = next_seq + 1 WHERE id = %s RETURNING org_id)"
        " INSERT INTO run_event (run_id, seq, org_id, type, data)"
        " SELECT %s, 1, org_id, 'run.started', '{}' FROM held"
    )
    async with await psycopg.AsyncConnection.connect(dsn, row_factory=dict_row) as conn:
        await conn.execute(insert, (slow, slow))  # numbered, and not committed yet
        await tell(pool, feeds, quick, "run.started", "run.succeeded")
        before = await read(pool, slow, 0)
        first = [event.seq for event in await read(pool, quick, 0)]
    await tell(pool, feeds, slow, "run.succeeded", after=1)

    assert (before, first) == ([], [1, 2])
    seen = [event.seq async for found in watch(pool, Feeds(), slow, 0, poll=0.05) for event in found]
    assert seen == [1, 2]


@pytest.fixture
async def app(web: WebServer, tmp_path: Path, dsn: str) -> Any:
    return create_app(
        Settings(data_dir=tmp_path, api_key=KEY, outbound_allow=(web.door,), lease_seconds=2), dsn
    )


@pytest.fixture
async def client(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(app) as client:
        yield client


async def test_str_05_a_stream_begins_after_whatever_number_it_is_told(client: httpx.AsyncClient) -> None:
    flow = drawing(node("t", "Template", template="x"))
    run = (await client.post("/runs", json={"flow_data": flow})).json()
    whole, last = await events(client, run["id"]), run["last_seq"]

    async def after(position: str) -> tuple[int, int]:
        found = await client.get(f"/runs/{run['id']}/events", headers={"Last-Event-ID": position})
        return found.status_code, found.text.count("data: ")

    assert await after("0") == (200, last)
    assert [await after(str(n)) for n in range(1, last)] == [(200, last - n) for n in range(1, last)]
    assert await after(str(last)) == await after(str(last + 1)) == (204, 0)
    assert [(await after(wrong))[0] for wrong in ("-1", "abc", "1" + "0" * 30, "1.0")] == [400] * 4
    strange = await client.get(f"/runs/{uuid4()}/events", headers={"Last-Event-ID": "1"})
    assert strange.status_code == 404
    assert len(whole) == last


async def test_str_06_clients_that_do_not_read_cost_little_memory_and_slow_nobody_down(
    children: Family, web: WebServer, dsn: str, allow: dict[str, str]
) -> None:
    server = await children.bear(dsn, settings=allow)
    flow = drawing(node("t", "Template", template="x"))
    run = (await server.client.post("/runs", json={"flow_data": flow})).json()
    last, more = run["last_seq"], 400
    await rows(
        dsn, "UPDATE run_event SET seq = seq + %s WHERE run_id = %s AND seq = %s", more, run["id"], last
    )
    await rows(
        dsn,
        "INSERT INTO run_event (run_id, seq, org_id, type, data) SELECT id, %s + number, org_id, 'text',"
        " json_build_object('step', 't', 'text', repeat(md5(number::text), 1600))"
        " FROM run, generate_series(0, %s) AS number WHERE id = %s",
        last,
        more - 1,
        run["id"],
    )
    await rows(dsn, "UPDATE run SET next_seq = next_seq + %s WHERE id = %s", more, run["id"])
    port, count = server.client.base_url.port, 40
    for line in [await not_reading(port, run["id"]) for _ in range(5)]:
        line.close()
    before = memory(server.pid)

    lazy = [await not_reading(port, run["id"]) for _ in range(count)]
    quick = [(await server.client.post("/runs", json={"flow_data": flow})).json() for _ in range(5)]
    grown = memory(server.pid) - before
    whole = await asyncio.to_thread(read_all, lazy[0])
    for line in lazy:
        line.close()

    assert [found["output"] for found in quick] == ["x"] * 5
    assert len(whole) > 20_000_000
    assert whole.count(b"\nevent: ") == last + more
    assert grown < count * 4_000_000, f"{grown // count:,} bytes for each client"


def memory(pid: int) -> int:
    """Bytes of RAM that a process takes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


async def not_reading(port: int | None, run: str) -> socket.socket:
    """A client that asks for a stream, until it gets one, and then reads none of it."""
    request = f"GET /api/v1/runs/{run}/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    while True:
        line = socket.socket()
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.settimeout(30)
        await asyncio.to_thread(line.connect, ("127.0.0.1", port))
        line.sendall(f"{request}Authorization: Bearer {KEY}\r\n\r\n".encode())
        status = await asyncio.to_thread(line.recv, len("HTTP/1.1 200"))
        if status != b"HTTP/1.1 503":
            assert status == b"HTTP/1.1 200"
            return line
        line.close()


def read_all(line: socket.socket) -> bytes:
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    found = b""
    while piece := line.recv(1 << 20):
        found += piece
    return found


async def test_str_07_clients_that_leave_are_forgotten_and_their_run_goes_on(
    app: Any, client: httpx.AsyncClient, web: WebServer
) -> None:
    """Before the first byte, in the middle, and while nothing happens."""
    gate = Gate()
    web.on("/x/a", gate.answer)
    run = await start(client, chain(web, "a"), "x")
    await gate.arrivals()
    feeds = app.state.flowserver.feeds
    port = client.base_url.port
    executing = feeds._feeds[UUID(run)].users
    request = (
        f"GET /api/v1/runs/{run}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode()
    )
    lines = []
    for number in range(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        if number % 3 == 0:
            writer.transport.abort()
            continue
        await reader.readuntil(b"retry: 1000\n\n")
        if number % 3 == 1:
            await reader.readuntil(b"step.started")
        lines.append(writer)

    async def watched_by(count: int) -> bool:
        return bool(feeds._feeds[UUID(run)].users == executing + count)

    await until(lambda: watched_by(20), "twenty watch", 10)
    for writer in lines:
        writer.transport.abort()
    await until(lambda: watched_by(0), "nobody watches any more", 10)
    gate.open.set()

    assert (await run_is(client, run, "succeeded"))["attempt"] == 1
    assert UUID(run) not in feeds._feeds


async def test_str_10_nothing_between_may_hold_a_stream_back(
    client: httpx.AsyncClient, web: WebServer
) -> None:
    gate = Gate()
    web.on("/x/a", gate.answer)
    body = {"flow_data": chain(web, "a"), "input": {"label": "x"}, "mode": "stream"}
    headers = {"Accept-Encoding": "gzip, br", "Accept": "text/event-stream"}

    async with client.stream("POST", "/runs", json=body, headers=headers) as response:
        first = await anext(response.aiter_raw())  # while the run is still at work
        gate.open.set()

    assert first.startswith(b"retry: 1000")
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert "content-encoding" not in response.headers


async def test_flt_43_with_a_slow_database_text_is_gathered_and_none_is_lost(
    children: Family, web: WebServer, dsn: str, allow: dict[str, str]
) -> None:
    """Every answer of Postgres is late: the pieces of an answer that come meanwhile become few events."""
    from tests.openai_server import OpenAIServer  # noqa: PLC0415  only here
    from tests.openai_server import Reply as Said  # noqa: PLC0415

    words = [f"{number} " for number in range(400)]
    async with Proxy(dsn) as proxy, OpenAIServer() as openai:
        settings = allow | {
            "FLOWSERVER_OPENAI_BASE_URL": openai.url,
            "FLOWSERVER_OPENAI_API_KEY": "sk-test",
        }
        server = await children.bear(proxy.dsn, settings=settings)
        openai.reply(Said(tokens=words, delay=0.001))
        flow = drawing(
            node("start", "StartNode"),
            node("model", "OpenAIChat"),
            node("agent", "Agent", prompt="{{ input }}"),
            {"source": "start", "target": "agent", "sourceHandle": None, "targetHandle": None},
            {"source": "model", "target": "agent", "sourceHandle": "llm", "targetHandle": "llm"},
        )
        proxy.delay = 0.1
        answer = await server.client.post("/runs", json={"flow_data": flow, "input": "hi", "mode": "stream"})
        proxy.delay = 0.0
        found = await events(server.client, answer.headers["x-run-id"])

    texts = [event["text"] for event in found if event["event"] == "text"]
    check_events(found)
    assert "".join(texts) == "".join(words)
    assert len(texts) < 40
    assert found[-1]["event"] == "run.succeeded"


async def test_flt_58_after_many_runs_and_clients_that_left_nothing_is_left_over(
    children: Family, web: WebServer, dsn: str, allow: dict[str, str]
) -> None:
    server = await children.bear(dsn, settings=allow)
    flow = drawing(node("t", "Template", template="x"))
    saved = (await server.client.post("/workflows", json={"name": "w", "flow_data": flow})).json()
    path = f"/workflows/{saved['id']}/runs"
    port = server.client.base_url.port

    async def one(number: int) -> None:
        body = f'{{"mode": "stream", "input": {number}}}'
        request = f"POST /api/v1{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        status = b""
        while status != b"HTTP/1.1 200":
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"{request}{kind}".encode())
            status = await reader.readexactly(len("HTTP/1.1 200"))
            assert status in (b"HTTP/1.1 200", b"HTTP/1.1 503"), status  # it may have too much to do
            if status.endswith(b"200") and number % 2:
                await reader.readuntil(b"run.succeeded")
            writer.transport.abort()

    async def burst(count: int) -> None:
        for begin in range(0, count, 20):
            await asyncio.gather(*(one(number) for number in range(begin, begin + 20)))

        async def all_ended() -> bool:
            return not await rows(dsn, "SELECT 1 FROM run WHERE finished_at IS NULL LIMIT 1")

        await until(all_ended, "all have ended")

    await burst(100)  # what is made once, such as connections of the pool, has been made
    base = await quiet(server.pid)
    await burst(400)
    after = await quiet(server.pid, at_most=base)

    assert after["files"] <= base["files"] + 3
    # asyncio makes its threads when it needs them, up to this number.
    assert after["threads"] <= base["threads"] + (os.cpu_count() or 1) + 4
    assert after["memory"] < base["memory"] + 40 * 2**20
    assert len(await rows(dsn, "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()")) <= 25


async def quiet(pid: int, at_most: dict[str, int] | None = None) -> dict[str, int]:
    """What a process has open, once it has let go of what it had for clients that are gone."""
    found: dict[str, int] = {}

    async def look() -> bool:
        before = dict(found)
        found.update(
            files=len(list(Path(f"/proc/{pid}/fd").iterdir())),
            threads=len(list(Path(f"/proc/{pid}/task").iterdir())),
            memory=memory(pid),
        )
        if at_most is not None:
            return found["files"] <= at_most["files"] + 3
        return bool(before) and before["files"] == found["files"]

    await until(look, "it has let go of what it does not need", 20)
    return found
