"""`/metrics` of real servers: every metric moves when it should, and only then."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from litestar import Litestar
from prometheus_client.parser import text_string_to_metric_families

from flowserver import census
from flowserver.app import create_app
from flowserver.settings import Settings
from tests import openai_server
from tests.openai_server import OpenAIServer
from tests.server import KEY, ROOT, drawing, edge, node, serving
from tests.web_server import Reply, WebServer

Sample = tuple[str, tuple[tuple[str, str], ...]]

HELLO = drawing(
    node("start", "StartNode"),
    node("say", "TemplateNode", template="Hello, {{ input }}"),
    node("end", "EndNode"),
    edge("start", "say"),
    edge("say", "end"),
)


class Scrape:
    """What `/metrics` says at one moment."""

    def __init__(self, text: str) -> None:
        self.samples: dict[Sample, float] = {
            (each.name, tuple(sorted(each.labels.items()))): each.value
            for family in text_string_to_metric_families(text)
            for each in family.samples
        }

    def __call__(self, name: str, **labels: Any) -> float:
        key = (f"flowserver_{name}", tuple(sorted((key, str(value)) for key, value in labels.items())))
        return self.samples.get(key, 0.0)

    def has(self, name: str) -> bool:
        return any(each == f"flowserver_{name}" for each, _ in self.samples)


async def scrape(client: httpx.AsyncClient) -> Scrape:
    response = await client.get(f"{str(client.base_url).removesuffix('/api/v1/')}/metrics")
    assert response.status_code == 200
    return Scrape(response.text)


async def until(client: httpx.AsyncClient, holds: Callable[[Scrape], bool]) -> Scrape:
    """The first scrape of which `holds`."""
    deadline = time.monotonic() + 20
    while not holds(found := await scrape(client)):
        assert time.monotonic() < deadline, found.samples
        await asyncio.sleep(0.05)
    return found


class Gate:
    """A step's request whose answer is held back until it is opened."""

    def __init__(self, web: WebServer) -> None:
        self.arrived = asyncio.Event()
        self.open = asyncio.Event()
        self._web = web

    def flow(self) -> dict[str, Any]:
        url = self._web.on("/gate", lambda request: Reply(body=self._body()))
        return drawing(
            node("start", "StartNode"),
            node("call", "HttpRequest", url=url, max_retries=0),
            edge("start", "call"),
        )

    async def _body(self) -> AsyncIterator[bytes]:
        self.arrived.set()
        await self.open.wait()
        yield b"ok"


@pytest.fixture
async def web() -> AsyncIterator[WebServer]:
    async with WebServer() as web:
        yield web


@pytest.fixture
async def openai() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as openai:
        yield openai


@pytest.fixture
def gate(web: WebServer) -> Gate:
    return Gate(web)


@pytest.fixture
def settings(tmp_path: Path, web: WebServer, openai: OpenAIServer) -> Settings:
    return Settings(
        data_dir=tmp_path,
        api_key=KEY,
        lease_seconds=2,
        outbound_allow=(web.door,),
        openai_base_url=openai.url,
        openai_api_key="sk-operator",
    )


@pytest.fixture
def app(settings: Settings, dsn: str) -> Litestar:
    return create_app(settings, dsn)


@pytest.fixture
async def client(app: Litestar) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(app) as client:
        yield client


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is asked at every scrape."""
    monkeypatch.setattr(census, "KEPT", 0.0)


async def start(client: httpx.AsyncClient, flow: dict[str, Any], **more: Any) -> dict[str, Any]:
    response = await client.post("/runs", json={"flow_data": flow, **more})
    assert response.status_code in (200, 202), response.text
    return dict(response.json())


async def test_a_run_moves_what_counts_runs_steps_and_events(client: httpx.AsyncClient) -> None:
    before = await scrape(client)

    run = await start(client, HELLO, input="Ada")
    after = await scrape(client)

    written = run["last_seq"] - 1  # the first event is written with the run's row
    assert run["status"] == "succeeded"
    assert before("runs_started_total") == before("events_written_total") == 0
    assert after("runs_started_total") == 1
    assert after("runs_finished_total", status="succeeded") == 1
    assert after("runs_finished_total", status="failed") == 0
    assert after("recoveries_total") == after("leases_lost_total") == after("runs_executing") == 0
    assert after("events_written_total") == after("journal_batch_events_sum") == written
    assert after("event_lag_seconds_count") == after("journal_batch_events_count")
    assert 0 < after("event_lag_seconds_sum") < 60
    assert 1 <= after("journal_batch_events_count") <= written
    for type in ("StartNode", "Template", "EndNode"):
        assert after("step_seconds_count", type=type, outcome="succeeded") == 1, type


async def test_a_failed_run_and_each_failed_attempt_of_its_steps_are_counted(
    client: httpx.AsyncClient, web: WebServer
) -> None:
    url = web.on("/", Reply(500))
    flow = drawing(node("call", "HttpRequest", url=url, max_retries=0, retry={"attempts": 2, "delay": 0.01}))

    run = await start(client, flow)
    after = await scrape(client)

    assert run["status"] == "failed"
    assert after("runs_finished_total", status="failed") == 1
    assert after("step_seconds_count", type="HttpRequest", outcome="failed") == len(web.requests) == 2


@pytest.mark.usefixtures("fresh")
async def test_what_runs_and_what_waits_in_the_queue_is_read_from_the_database(
    settings: Settings, dsn: str, gate: Gate
) -> None:
    async with serving(create_app(settings, dsn, role="none")) as client:
        idle = await scrape(client)
        runs = [(await start(client, HELLO, mode="background"))["id"] for _ in range(2)]
        queued = await until(client, lambda found: found("queue_oldest_seconds") > 0.2)
        await client.post(f"/runs/{runs[0]}/cancel")
        cancelled = await scrape(client)

        async with serving(create_app(settings, dsn)) as worker:
            executed = await until(client, lambda found: found("runs", status="queued") == 0)
            by_the_worker = await until(
                worker, lambda found: found("runs_finished_total", status="succeeded") == 1
            )

    assert (idle("queue_length"), idle("queue_oldest_seconds"), idle("database_up")) == (0, 0, 1)
    assert queued("runs", status="queued") == queued("queue_length") == 2
    assert 0.2 < queued("queue_oldest_seconds") < 60
    assert cancelled("runs", status="queued") == cancelled("queue_length") == 1
    assert cancelled("runs_finished_total", status="cancelled") == 1
    assert executed("queue_length") == executed("runs_started_total") == 0
    assert by_the_worker("runs_started_total") == 1
    assert by_the_worker("runs_finished_total", status="cancelled") == 0


@pytest.mark.usefixtures("fresh")
async def test_a_run_that_its_session_keeps_waiting_is_queued_but_not_in_the_queue(
    client: httpx.AsyncClient, gate: Gate
) -> None:
    await start(client, gate.flow(), session_id="s", mode="background")
    await asyncio.wait_for(gate.arrived.wait(), 10)
    await start(client, HELLO, session_id="s", mode="background")

    found = await until(client, lambda found: found("queue_length") == 0)
    gate.open.set()
    after = await until(client, lambda found: found("runs_finished_total", status="succeeded") == 2)

    assert found("runs", status="queued") == found("runs", status="running") == found("runs_executing") == 1
    assert after("runs", status="queued") == after("runs", status="running") == after("runs_executing") == 0


@pytest.mark.usefixtures("fresh")
async def test_a_run_that_asks_is_waiting_and_is_not_started_again_by_its_answer(
    client: httpx.AsyncClient,
) -> None:
    flow = drawing(
        node("start", "StartNode"), node("ask", "HumanInput", question="ok?"), edge("start", "ask")
    )

    run = await start(client, flow)
    asked = await scrape(client)
    await client.post(f"/runs/{run['id']}/resume", json={"answer": "yes"})
    after = await until(client, lambda found: found("runs_finished_total", status="succeeded") == 1)

    assert asked("runs", status="waiting") == asked("runs_asked_total") == 1
    assert asked("runs_finished_total", status="succeeded") == asked("runs_executing") == 0
    assert after("runs", status="waiting") == 0
    assert after("runs_asked_total") == after("runs_started_total") == 1
    assert after("recoveries_total") == 0


async def test_a_run_lost_to_another_process_and_its_recovery_are_counted(
    client: httpx.AsyncClient, gate: Gate, dsn: str
) -> None:
    await start(client, gate.flow(), mode="background")
    await asyncio.wait_for(gate.arrived.wait(), 10)
    before = await scrape(client)

    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        await conn.execute("UPDATE run SET epoch = epoch + 1, lease_until = now() - interval '1 second'")
    lost = await until(client, lambda found: found("leases_lost_total") > 0)
    gate.open.set()
    after = await until(client, lambda found: found("runs_finished_total", status="succeeded") > 0)

    assert before("leases_lost_total") == before("recoveries_total") == 0
    assert lost("leases_lost_total") == after("leases_lost_total") == 1
    assert after("recoveries_total") == after("runs_started_total") == 1
    assert after("runs_finished_total", status="succeeded") == 1


async def test_model_calls_and_their_tokens_are_counted(
    client: httpx.AsyncClient, openai: OpenAIServer
) -> None:
    flow = drawing(
        node("start", "StartNode"),
        node("model", "OpenAIChat", model_name="gpt-4o", max_retries=0),
        node("agent", "Agent"),
        edge("start", "agent"),
        edge("model", "agent", "output", "llm"),
    )
    openai.reply("one two three", openai_server.Reply(status=400, text="no"))

    said = await start(client, flow, input="hi")
    once = await scrape(client)
    failed = await start(client, flow, input="hi")
    twice = await scrape(client)

    assert (said["status"], failed["status"]) == ("succeeded", "failed")
    assert once("model_call_seconds_count", outcome="succeeded") == said["usage"]["model_calls"] == 1
    for direction in ("input", "output"):
        assert once("model_tokens_total", direction=direction) == said["usage"][f"{direction}_tokens"] > 0
        assert twice("model_tokens_total", direction=direction) == said["usage"][f"{direction}_tokens"]
    assert once("model_call_seconds_count", outcome="failed") == 0
    assert twice("model_call_seconds_count", outcome="failed") == len(openai.chats) - 1 == 1


async def test_open_streams_are_counted_while_they_are_open(client: httpx.AsyncClient, gate: Gate) -> None:
    run = await start(client, gate.flow(), mode="background")

    async with client.stream("GET", f"/runs/{run['id']}/events"):
        one = await until(client, lambda found: found("event_streams") > 0)
        async with client.stream("GET", f"/runs/{run['id']}/events"):
            two = await until(client, lambda found: found("event_streams") > 1)
    left = await until(client, lambda found: found("event_streams") == 0)
    gate.open.set()

    assert (one("event_streams"), two("event_streams")) == (1, 2)
    assert left("http_request_seconds_count", route="/api/v1/runs/{id}/events", method="GET", status=200) == 2


async def test_requests_are_counted_by_the_template_of_their_route_never_by_their_path(
    client: httpx.AsyncClient,
) -> None:
    run = await start(client, HELLO)
    await client.get(f"/runs/{run['id']}")
    await client.get(f"/runs/{run['id'][:-1]}0/nothing-here")
    await client.get("/runs/00000000-0000-0000-0000-000000000000")
    await client.request("PROPFIND", "/runs")

    after = await scrape(client)

    def requests(route: str, method: str, status: int) -> float:
        return after("http_request_seconds_count", route=route, method=method, status=status)

    assert requests("/api/v1/runs", "POST", 200) == 1
    assert requests("/api/v1/runs/{id}", "GET", 200) == 1
    assert requests("/api/v1/runs/{id}", "GET", 404) == 1
    assert requests("none", "GET", 404) == 1
    assert requests("none", "other", 405) == 1
    labels = {value for _, pairs in after.samples for _, value in pairs}
    assert not [
        value for value in labels if run["id"][:8] in value or "nothing" in value or "PROPFIND" in value
    ]


async def test_a_blocked_event_loop_shows(client: httpx.AsyncClient) -> None:
    before = await until(client, lambda found: found("event_loop_lag_seconds_count") > 0)
    time.sleep(0.6)  # noqa: ASYNC251  this is what a node that computes does to everybody
    await until(
        client,
        lambda found: found("event_loop_lag_seconds_count") > before("event_loop_lag_seconds_count"),
    )
    after = await scrape(client)

    def late(found: Scrape) -> float:
        at_most = found("event_loop_lag_seconds_bucket", le="0.25")
        return found("event_loop_lag_seconds_count") - at_most

    assert late(after) == late(before) + 1


async def test_without_the_database_the_process_still_tells_what_it_knows(
    app: Litestar, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(census, "PATIENCE", 0.1)
    await start(client, HELLO)
    known = await scrape(client)
    pool = app.state.flowserver.pool
    async with contextlib.AsyncExitStack() as held:
        for _ in range(pool.max_size):
            await held.enter_async_context(pool.connection())
        waiting = asyncio.create_task(client.get("/runs"))
        full = await until(client, lambda found: found("pool_waiting") > 0)
        monkeypatch.setattr(census, "KEPT", 0.0)
        app.state.flowserver.census._until = 0.0
        away = await scrape(client)
    await waiting
    back = await scrape(client)

    assert (known("database_up"), away("database_up"), back("database_up")) == (1, 0, 1)
    assert known.has("runs") and back.has("runs")
    assert not away.has("runs") and not away.has("queue_length")
    assert away("runs_finished_total", status="succeeded") == 1
    assert full("pool_connections") == full("pool_connections_max") == pool.max_size
    assert full("pool_connections_idle") == back("pool_waiting") == 0
    assert back("pool_waits_total") > known("pool_waits_total")
    assert back("pool_wait_seconds_total") > known("pool_wait_seconds_total")
    assert back("pool_errors_total") > known("pool_errors_total")
    assert back("pool_requests_total") > known("pool_requests_total")


async def test_the_database_is_not_asked_more_often_because_somebody_reads_more_often(
    settings: Settings, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(census, "KEPT", 60.0)
    async with serving(create_app(settings, dsn, role="none")) as client:
        first = await scrape(client)
        await start(client, HELLO, mode="background")
        many = await asyncio.gather(*(scrape(client) for _ in range(20)))

    assert first("database_up") == 1
    assert {found("queue_length") for found in many} == {0}


@pytest.mark.usefixtures("fresh")
async def test_a_listener_that_lets_notifications_pile_up_shows(client: httpx.AsyncClient, dsn: str) -> None:
    connect = psycopg.AsyncConnection.connect
    async with await connect(dsn, autocommit=True) as stuck, await connect(dsn, autocommit=True) as busy:
        await stuck.execute("LISTEN somebody")
        async with stuck.transaction():
            await stuck.execute("SELECT 1")
            for _ in range(100):  # a page each, of the 1,048,576 that there may be
                await busy.execute("SELECT pg_notify('somebody', repeat('x', 7000))")
            full = await scrape(client)

    assert full("notification_queue_usage") > 50 / 1_048_576


async def test_anybody_may_read_them_and_each_application_has_its_own(
    settings: Settings, dsn: str, client: httpx.AsyncClient
) -> None:
    await start(client, HELLO)
    async with serving(create_app(settings, dsn)) as other:
        response = await other.get("../../metrics", headers={"Authorization": "Bearer nonsense"})
        refused = await other.get("../../metrics/more", headers={"Authorization": "Bearer nonsense"})

    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert Scrape(response.text)("runs_finished_total", status="succeeded") == 0
    assert (await scrape(client))("runs_finished_total", status="succeeded") == 1
    assert refused.status_code == 404


async def test_a_worker_without_the_api_answers_at_a_port_of_its_own(settings: Settings, dsn: str) -> None:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("FLOWSERVER_")},
        "FLOWSERVER_DATABASE_URL": dsn,
        "FLOWSERVER_DATA_DIR": str(settings.data_dir),
        "FLOWSERVER_METRICS_PORT": "0",
        "PYTHONUNBUFFERED": "1",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "flowserver", "worker"),
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            while not (line := (await process.stdout.readline()).decode()).startswith("its metrics"):
                assert line, "the worker ended"
        address = line.split()[-1].removesuffix("/metrics")
        async with (
            serving(create_app(settings, dsn, role="none")) as client,
            httpx.AsyncClient(base_url=f"{address}/api/v1/", timeout=30) as worker,
        ):
            before = await scrape(worker)
            await start(client, HELLO, mode="background")
            after = await until(worker, lambda found: found("runs_finished_total", status="succeeded") == 1)
            health = await worker.get("../../health/ready")
            nothing = await worker.get("runs")
        process.terminate()
        status = await asyncio.wait_for(process.wait(), 30)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

    assert before("runs_started_total") == 0
    assert after("runs_started_total") == after("database_up") == 1
    assert (health.status_code, nothing.status_code, status) == (200, 404, 0)


async def test_the_documents_name_every_metric_and_no_other(client: httpx.AsyncClient) -> None:
    named = re.findall(r"^\| `(flowserver_\w+)", (ROOT / "docs/operations.md").read_text(), re.M)

    response = await client.get("../../metrics")

    there = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in text_string_to_metric_families(response.text)
        if family.name.startswith("flowserver_") and not family.name.endswith("_created")
    }
    assert sorted(named) == sorted(there)
