"""However a run ends, the connections of its requests and of its model calls come back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import httpx
import psycopg
import pytest

from flowserver.app import create_app
from flowserver.settings import Settings
from tests import openai_server
from tests.openai_server import OpenAIServer
from tests.server import KEY, drawing, edge, node, serving
from tests.web_server import Raw, Request, WebServer

SIZE = 8


class Upstream:
    """A server and a model that let requests wait for ever, and know when their clients hang up."""

    def __init__(self, web: WebServer, openai: OpenAIServer) -> None:
        self.web = web
        self.openai = openai
        self.arrived = 0
        self.left = 0
        openai.answer = lambda _: openai_server.Reply("x", gate=asyncio.Event())

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._wait, "127.0.0.1", 0)
        self.door = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self.slow = f"http://{self.door}/"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _wait(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.arrived += 1
        with contextlib.suppress(ConnectionError):
            while await reader.read(65_536):
                pass
        self.left += 1
        writer.close()


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with WebServer() as web, OpenAIServer() as openai, Upstream(web, openai) as upstream:
        yield upstream


@pytest.fixture
def settings(tmp_path: Path, upstream: Upstream) -> Settings:
    return Settings(
        data_dir=tmp_path,
        api_key=KEY,
        lease_seconds=2,
        grace_seconds=0.1,
        outbound_allow=(upstream.web.door, upstream.door),
        outbound_connections=SIZE,
        openai_base_url=upstream.openai.url,
        openai_api_key="sk-operator",
    )


@pytest.fixture
async def client(settings: Settings, dsn: str) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(create_app(settings, dsn)) as client:
        yield client


def waiting(upstream: Upstream, *, bad: str | None = None, **more: Any) -> dict[str, Any]:
    """Two requests and a model call that wait, beside a request to `bad`."""
    parts = [
        node("start", "StartNode"),
        node("model", "OpenAIChat", model_name="gpt-4o", max_retries=0),
        node("ask", "Prompt", prompt="hi"),
        edge("model", "ask", "output", "llm"),
        edge("start", "ask"),
        edge("ask", "merge"),
        node("merge", "Merge"),
    ]
    for name in ("one", "two"):
        parts += [
            node(name, "HttpRequest", url=upstream.slow, max_retries=0, **more),
            edge("start", name),
            edge(name, "merge"),
        ]
    if bad:
        parts += [
            node("bad", "HttpRequest", url=bad, max_retries=0),
            edge("start", "bad"),
            edge("bad", "merge"),
        ]
    return drawing(*parts)


async def start(client: httpx.AsyncClient, flow: dict[str, Any], **more: Any) -> dict[str, Any]:
    response = await client.post("/runs", json={"flow_data": flow, **more})
    assert response.status_code in (200, 202), response.text
    return dict(response.json())


async def ready(client: httpx.AsyncClient) -> tuple[int, str]:
    response = await client.get("../../health/ready")
    return response.status_code, response.json()["status"]


async def in_use(client: httpx.AsyncClient) -> float:
    text = (await client.get("../../metrics")).text
    lines = [line for line in text.splitlines() if line.startswith("flowserver_outbound_connections_in_use{")]
    assert len(lines) == 2
    return sum(float(line.split()[1]) for line in lines)


async def until_used(client: httpx.AsyncClient, number: int) -> None:
    async with asyncio.timeout(15):
        while (found := await in_use(client)) != number:
            await asyncio.sleep(0.02)
    assert found == number


async def requested(upstream: Upstream, model_calls: int = 1) -> None:
    async with asyncio.timeout(15):
        while upstream.arrived < 2:
            await asyncio.sleep(0.01)
    await upstream.openai.arrived(model_calls)


async def released(client: httpx.AsyncClient, upstream: Upstream) -> None:
    """Nobody uses a connection, and the other sides have been hung up on."""
    await until_used(client, 0)
    await upstream.openai.hung_up()
    async with asyncio.timeout(15):
        while upstream.left < upstream.arrived:
            await asyncio.sleep(0.01)


async def test_a_step_that_fails_beside_them(client: httpx.AsyncClient, upstream: Upstream) -> None:
    async def late(_: Request, writer: asyncio.StreamWriter) -> None:
        await requested(upstream)
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    run = await start(client, waiting(upstream, bad=upstream.web.on("/late", Raw(late))))

    assert run["status"] == "failed"
    await released(client, upstream)


async def test_a_run_that_is_cancelled(client: httpx.AsyncClient, upstream: Upstream) -> None:
    run = await start(client, waiting(upstream), mode="background")
    await requested(upstream)
    used = await in_use(client)

    await client.post(f"/runs/{run['id']}/cancel")

    assert used == 3
    await released(client, upstream)


async def test_a_client_that_goes_away_from_a_run_that_ends_with_it(
    client: httpx.AsyncClient, upstream: Upstream
) -> None:
    body = {"flow_data": waiting(upstream), "mode": "stream", "on_disconnect": "cancel"}
    async with client.stream("POST", "/runs", json=body):
        await requested(upstream)

    await released(client, upstream)


async def test_a_run_that_takes_longer_than_it_may(client: httpx.AsyncClient, upstream: Upstream) -> None:
    run = await start(client, waiting(upstream), limits={"seconds": 1}, mode="background")
    await requested(upstream)

    await released(client, upstream)
    assert (await client.get(f"/runs/{run['id']}")).json()["status"] == "failed"


async def test_a_request_that_takes_longer_than_it_may(client: httpx.AsyncClient, upstream: Upstream) -> None:
    run = await start(client, waiting(upstream, timeout=0.5), mode="background")
    await requested(upstream)

    await released(client, upstream)
    assert (await client.get(f"/runs/{run['id']}")).json()["status"] == "failed"


async def test_a_run_that_is_lost_to_another_process(
    client: httpx.AsyncClient, upstream: Upstream, dsn: str
) -> None:
    await start(client, waiting(upstream), mode="background")
    await requested(upstream)

    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        await conn.execute("UPDATE run SET epoch = epoch + 1, lease_until = now() + interval '1 hour'")

    await released(client, upstream)


async def test_a_server_that_stops(settings: Settings, dsn: str, upstream: Upstream) -> None:
    app = create_app(settings, dsn)
    async with serving(app) as client:
        await start(client, waiting(upstream), mode="background")
        await requested(upstream)
        http = app.state.flowserver.http

    assert {usage.in_use + usage.idle for usage in http.usage().values()} == {0}


async def test_a_process_whose_connections_are_all_in_use_is_not_ready(
    client: httpx.AsyncClient, upstream: Upstream
) -> None:
    before = await ready(client)
    runs = [await start(client, waiting(upstream), mode="background") for _ in range(3)]
    await until_used(client, SIZE)

    full = await ready(client)
    for run in runs:
        await client.post(f"/runs/{run['id']}/cancel")
    await until_used(client, 0)

    assert before == await ready(client) == (200, "ready")
    assert full == (
        503,
        "all 8 outgoing connections to allowed hosts are in use (FLOWSERVER_OUTBOUND_CONNECTIONS)",
    )
