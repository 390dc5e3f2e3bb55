"""MCPTools with the official client, against servers of the official package on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from mcp.server.mcpserver import MCPServer

from flowserver.app import create_app
from flowserver.settings import Settings
from tests.openai_server import OpenAIServer, Reply, ToolCall
from tests.server import KEY, drawing, edge, events_of, node, serving
from tests.web_server import Reply as Page
from tests.web_server import WebServer, redirect

Client = httpx.AsyncClient

CANARY = "mt-CNRY-77"


class Office:
    """An MCP server, and what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.keys: list[str] = []
        self.url = ""


@asynccontextmanager
async def office(**how: Any) -> AsyncIterator[Office]:
    found = Office()
    server = MCPServer("office")

    @server.tool()
    def add(a: int, b: int) -> str:
        """Add two numbers."""
        found.calls.append(("add", (a, b)))
        return f"sum: {a + b}"

    @server.tool()
    def fail() -> str:
        """Always fails."""
        raise ValueError(f"broken, {CANARY}")

    app = server.streamable_http_app(stateless_http=True, json_response=how.get("json", True))

    async def seen(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            found.keys.append(dict(scope["headers"]).get(b"authorization", b"").decode())
        await app(scope, receive, send)

    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(seen, log_config=None, lifespan="on", timeout_graceful_shutdown=1)
    serve = uvicorn.Server(config)
    serve.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
    task = asyncio.create_task(serve.serve(sockets=[listening]))
    try:
        while not serve.started and not task.done():
            await asyncio.sleep(0.005)
        found.url = f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
        yield found
    finally:
        serve.should_exit = True
        await task
        listening.close()


@pytest.fixture
async def openai() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as server:
        yield server


@pytest.fixture
async def client(tmp_path: Path, dsn: str, openai: OpenAIServer) -> AsyncIterator[Client]:
    settings = Settings(
        data_dir=tmp_path,
        api_key=KEY,
        openai_base_url=openai.url,
        openai_api_key="sk-x",
        outbound_allow=("127.0.0.1",),
    )
    async with serving(create_app(settings, dsn)) as client:
        yield client


def agent(*more: Any, **settings: Any) -> dict[str, Any]:
    return drawing(
        node("start", "StartNode"),
        node("model", "OpenAIChat"),
        node("mcp", "MCPTools", **settings),
        node("agent", "Agent"),
        edge("start", "agent"),
        edge("model", "agent", "llm", "llm"),
        edge("mcp", "agent", "tools", "tools"),
        *more,
    )


async def run(client: Client, flow: Any) -> dict[str, Any]:
    response = await client.post("/runs", json={"flow_data": flow, "input": "go"})
    assert response.status_code == 200, response.text
    return dict(response.json())


@pytest.mark.parametrize("json_answers", [True, False])
async def test_an_agent_calls_the_tools_of_a_server(
    client: Client, openai: OpenAIServer, json_answers: bool
) -> None:
    openai.reply(
        Reply(tool_calls=[ToolCall("add", {"a": 2, "b": 3}, "c1"), ToolCall("fail", {}, "c2")]), "five"
    )
    async with office(json=json_answers) as server:
        found = await run(client, agent(url=server.url))

    assert found["output"] == "five", found
    assert server.calls == [("add", (2, 3))]
    tools = {each["function"]["name"]: each["function"] for each in openai.chats[0]["tools"]}
    assert sorted(tools) == ["add", "fail"]
    assert tools["add"]["description"] == "Add two numbers."
    assert set(tools["add"]["parameters"]["properties"]) == {"a", "b"}
    answers = {m["tool_call_id"]: m["content"] for m in openai.chats[1]["messages"] if m["role"] == "tool"}
    assert answers["c1"] == "sum: 5"
    assert answers["c2"].startswith("tool_failed:")
    events = events_of((await client.get(f"/runs/{found['id']}/events", params={"after": 0})).text)
    assert [each["tool"] for each in events if each["event"] == "tool.called"] == ["add", "fail"]


async def test_several_providers_and_single_tools_come_together(client: Client, openai: OpenAIServer) -> None:
    openai.reply(Reply(tool_calls=[ToolCall("add", {"a": 1, "b": 1})]), "two")
    async with office() as server, WebServer() as web:
        more = (
            node("look", "HttpRequest", name="look", url=web.url("/")),
            edge("look", "agent", None, "tools"),
        )
        found = await run(client, agent(*more, url=server.url, tools=["add"]))

    assert found["output"] == "two"
    assert sorted(each["function"]["name"] for each in openai.chats[0]["tools"]) == ["add", "look"]


async def test_two_tools_of_one_name_are_refused(client: Client, openai: OpenAIServer) -> None:
    async with office() as server:
        more = (node("m2", "MCPTools", url=server.url), edge("m2", "agent", "tools", "tools"))
        found = await run(client, agent(*more, url=server.url))

    assert (found["error"]["code"], openai.chats) == ("bad_config", [])


async def test_a_token_comes_from_a_credential_and_is_told_nowhere(
    client: Client, openai: OpenAIServer
) -> None:
    openai.reply(Reply(tool_calls=[ToolCall("fail", {}, "c1")]), "ok")
    async with office() as server:
        data = {"token": CANARY, "base_url": server.url}
        made = (await client.post("/credentials", json={"name": "mcp", "data": data})).json()
        found = await run(client, agent(credential_id=made["id"]))

    assert found["output"] == "ok"
    assert set(server.keys) == {f"Bearer {CANARY}"}
    events = (await client.get(f"/runs/{found['id']}/events", params={"after": 0})).text
    assert CANARY not in events + json.dumps(found)


async def test_a_tool_that_the_server_does_not_have_is_said(client: Client) -> None:
    async with office() as server:
        found = await run(client, agent(url=server.url, tools="add, subtract"))

    assert found["error"]["code"] == "bad_config"
    assert "no tool 'subtract'; it has: add, fail" in found["error"]["message"]


async def test_a_private_server_must_be_allowed(tmp_path: Path, dsn: str) -> None:
    settings = Settings(
        data_dir=tmp_path, api_key=KEY, openai_base_url="http://127.0.0.1:9", openai_api_key="k"
    )
    async with office() as server, serving(create_app(settings, dsn)) as client:
        found = await run(client, agent(url=server.url))

    assert found["error"]["code"] == "url_not_allowed", found
    assert server.keys == []


async def test_a_redirect_to_elsewhere_is_not_followed(client: Client) -> None:
    async with WebServer() as web, WebServer() as elsewhere:
        web.on("/mcp", redirect(elsewhere.url("/mcp"), 307))
        found = await run(client, agent(url=web.url("/mcp")))

    assert (found["status"], found["error"]["code"]) == ("failed", "mcp_failed")
    assert elsewhere.requests == []


@pytest.mark.parametrize(
    "page",
    [Page(500), Page(200, b"<html>"), Page(404), Page(200, b"{}", {"Content-Type": "application/json"})],
)
async def test_a_server_that_is_none_fails_the_step(client: Client, page: Page) -> None:
    async with WebServer() as web:
        web.on("/mcp", page)
        found = await run(client, agent(url=web.url("/mcp"), timeout=2))

    assert (found["status"], found["error"]["code"], found["error"]["step"]) == (
        "failed",
        "mcp_failed",
        "agent",
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "must say where"),
        ({"url": "npx some-server"}, "servers that are commands are not run"),
        ({"url": "stdio://x"}, "servers that are commands are not run"),
        ({"url": "file:///etc/passwd"}, "must begin with http"),
        ({"url": "http://[oops"}, "must begin with http"),
    ],
)
async def test_what_is_no_http_server_is_a_mistake(client: Client, settings: Any, words: str) -> None:
    body = {"flow_data": agent(**settings)}
    problems = (await client.post("/workflows/check", json=body)).json()["problems"]

    assert any(words in each["message"] for each in problems), problems
