"""The agent with the real LangChain client against a server that speaks OpenAI's wire format."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from flowserver.app import create_app
from flowserver.settings import Settings
from tests.openai_server import Fault, OpenAIServer, Reply, ToolCall
from tests.server import KEY, drawing, edge, events_of, node, serving, told
from tests.web_server import Raw, Request, WebServer, reply_json

Client = httpx.AsyncClient

COMPAT = Path(__file__).parents[3] / "shared/compat/workflows"

CHAT = drawing(
    node("start", "StartNode"),
    node("model", "OpenAIChat", model_name="gpt-4o", temperature=0.7, max_tokens=1000, api_key="sk-drawn"),
    node("memory", "BufferMemory"),
    node("agent", "Agent", system_prompt="Be kind. {input} {{ run.id | length }} {'a': {}}"),
    node("end", "EndNode"),
    edge("start", "agent", "output", "start"),
    edge("model", "agent", "output", "llm"),
    edge("memory", "agent", "output", "memory"),
    edge("agent", "end", "output", "target"),
)


@pytest.fixture
async def openai() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as server:
        yield server


@pytest.fixture
async def client(tmp_path: Path, dsn: str, openai: OpenAIServer) -> AsyncIterator[Client]:
    """A client of a server whose operator chose the local model server."""
    settings = Settings(
        data_dir=tmp_path,
        api_key=KEY,
        openai_base_url=openai.url,
        openai_api_key="sk-operator",
        outbound_allow=("127.0.0.1",),
    )
    async with serving(create_app(settings, dsn)) as client:
        yield client


async def chat(client: Client, text: str, session: str | None = None, flow: Any = CHAT) -> Any:
    body = {"flow_data": flow, "input": text, "session_id": session}
    return (await client.post("/runs", json=body)).json()


async def test_tokens_are_streamed_and_add_up_to_the_answer(client: Client, openai: OpenAIServer) -> None:
    openai.reply(Reply(tokens=["Hel", "lo ", "Ada", "!"]))

    response = await client.post("/runs", json={"flow_data": CHAT, "input": "hi", "mode": "stream"})

    events = events_of(response.text)
    texts = [event for event in events if event["event"] == "text"]
    assert "".join(event["text"] for event in texts) == events[-1]["output"] == "Hello Ada!"
    assert {event["step"] for event in texts} == {"agent"}
    finished = next(e for e in events if e["event"] == "step.finished" and e["step"] == "agent")
    assert finished["usage"]["model_calls"] == 1
    assert finished["usage"]["output_tokens"] > 0


async def test_providers_start_and_end_so_that_the_editor_can_light_them_up(client: Client) -> None:
    response = await client.post("/runs", json={"flow_data": CHAT, "input": "hi", "mode": "stream"})

    events = told(events_of(response.text))
    for provider in ("model", "memory"):
        assert events.count(f"step.started {provider}") == events.count(f"step.finished {provider}") == 1
    assert "sk-" not in response.text


async def test_memory_lasts_for_a_session_and_no_further(client: Client, openai: OpenAIServer) -> None:
    await chat(client, "I am Ada", "s1")
    await chat(client, "who am I?", "s1")
    await chat(client, "who am I?", "s2")
    await chat(client, "who am I?")

    shown = [[m["content"] for m in body["messages"] if m["role"] != "system"] for body in openai.chats]
    assert shown == [
        ["I am Ada"],
        ["I am Ada", "echo: I am Ada", "who am I?"],
        ["who am I?"],
        ["who am I?"],
    ]


async def test_two_workflows_with_one_session_id_share_nothing(client: Client, openai: OpenAIServer) -> None:
    ids = [
        (await client.post("/workflows", json={"name": "w", "flow_data": CHAT})).json()["id"]
        for _ in range(2)
    ]
    for id in (ids[0], ids[1], ids[0]):
        await client.post(f"/workflows/{id}/runs", json={"input": "hi", "session_id": "s"})

    assert [len(body["messages"]) for body in openai.chats] == [2, 2, 4]


async def test_a_failed_turn_is_not_remembered(client: Client, openai: OpenAIServer) -> None:
    await chat(client, "one", "s")
    openai.reply(Reply(status=400, text="no"))
    failed = await chat(client, "two", "s")
    await chat(client, "three", "s")

    assert failed["status"] == "failed"
    assert [m["content"] for m in openai.chats[-1]["messages"][1:]] == ["one", "echo: one", "three"]


async def test_braces_in_a_prompt_are_just_text(client: Client, openai: OpenAIServer) -> None:
    await chat(client, "{x} {{ y }}")

    system, user = openai.chats[0]["messages"]
    assert system["content"] == "Be kind. {input} 36 {'a': {}}"
    assert user["content"] == "{x} {{ y }}"


async def test_settings_reach_the_model(client: Client, openai: OpenAIServer) -> None:
    await chat(client, "hi")

    body = openai.chats[0]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("gpt-4o", 0.7, 1000)


async def test_an_answer_that_nobody_watches_is_not_streamed_and_its_text_is_told_at_its_end(
    client: Client, openai: OpenAIServer
) -> None:
    """To stream it takes several times as long."""
    openai.reply(Reply(tokens=["Hel", "lo"]), Reply(tokens=["Hel", "lo"]))

    waited = await chat(client, "hi")
    streamed = await client.post("/runs", json={"flow_data": CHAT, "input": "hi", "mode": "stream"})

    assert [body.get("stream", False) for body in openai.chats] == [False, True]
    told = events_of((await client.get(f"/runs/{waited['id']}/events", params={"after": 0})).text)
    for events in (told, events_of(streamed.text)):
        assert "".join(each["text"] for each in events if each["event"] == "text") == "Hello"
        assert events[-1]["output"] == "Hello"


async def test_whoever_begins_to_watch_before_the_model_is_called_sees_its_answer_grow(
    client: Client, openai: OpenAIServer
) -> None:
    arrived, watched = asyncio.Event(), asyncio.Event()

    async def held_back(request: Request, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await watched.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        await writer.drain()

    async with WebServer() as web:
        web.on("/", Raw(held_back))
        flow = json.loads(json.dumps(CHAT))
        flow["nodes"].append(node("first", "HttpRequest", url=web.url("/")))
        flow["edges"].append(edge("start", "first"))
        flow["edges"].append(edge("first", "agent", "content"))
        waiting = asyncio.create_task(chat(client, "hi", flow=flow))
        await asyncio.wait_for(arrived.wait(), 10)
        run = (await client.get("/runs")).json()["items"][0]["id"]
        async with client.stream("GET", f"/runs/{run}/events") as seen:
            async for _ in seen.aiter_bytes():
                watched.set()
        ended = await waiting

    assert ended["error"] is None
    assert openai.chats[0]["stream"] is True


async def test_the_drawings_key_is_used_or_else_the_operators(client: Client, openai: OpenAIServer) -> None:
    without = json.loads(json.dumps(CHAT))
    del without["nodes"][1]["data"]["api_key"]

    await chat(client, "hi")
    await chat(client, "hi", flow=without)

    keys = [request.headers["authorization"] for request in openai.requests]
    assert keys == ["Bearer sk-drawn", "Bearer sk-operator"]


async def test_the_operators_key_never_goes_to_an_address_of_the_drawing(client: Client) -> None:
    async with OpenAIServer() as elsewhere:
        flow = json.loads(json.dumps(CHAT))
        flow["nodes"][1]["data"] = {"base_url": elsewhere.url}

        found = await chat(client, "hi", flow=flow)

        assert found["output"] == "echo: hi"
        assert "sk-operator" not in str(elsewhere.requests)


async def test_a_private_model_server_must_be_allowed(tmp_path: Path, dsn: str, openai: OpenAIServer) -> None:
    flow = json.loads(json.dumps(CHAT))
    flow["nodes"][1]["data"] = {"base_url": openai.url}
    app = create_app(Settings(data_dir=tmp_path, api_key=KEY), dsn)
    async with serving(app) as client:
        found = await chat(client, "hi", flow=flow)

    assert found["status"] == "failed"
    assert found["error"]["code"] == "url_not_allowed"
    assert openai.requests == []


async def test_every_connected_tool_can_be_called_and_its_answer_goes_back(
    client: Client, openai: OpenAIServer
) -> None:
    async with WebServer() as web:
        web.on("/weather", reply_json({"sky": "blue"}))
        web.on("/news", reply_json({"headline": "none"}))
        flow = drawing(
            node("start", "StartNode"),
            node("model", "OpenAIChat"),
            node("w", "HttpRequest", name="weather", url=web.url("/weather")),
            node("n", "HttpRequest", name="news", url=web.url("/news")),
            node("agent", "Agent"),
            edge("start", "agent"),
            edge("model", "agent", "llm", "llm"),
            edge("w", "agent", "response", "tools"),
            edge("n", "agent", "response", "tools"),
        )
        openai.reply(
            Reply(tool_calls=[ToolCall("weather", {"query": {"city": "Ulm"}}), ToolCall("news", {})]),
            "Blue sky, no news.",
        )

        response = await client.post("/runs", json={"flow_data": flow, "input": "?", "mode": "stream"})

    events = events_of(response.text)
    assert events[-1]["output"] == "Blue sky, no news."
    assert {tool["function"]["name"] for tool in openai.chats[0]["tools"]} == {"weather", "news"}
    answers = [m["content"] for m in openai.chats[1]["messages"] if m["role"] == "tool"]
    assert "blue" in answers[0] and "headline" in answers[1]
    assert sorted(request.target for request in web.requests) == ["/news", "/weather?city=Ulm"]
    assert "step.started w" not in told(events)
    finished = next(e for e in events if e["event"] == "step.finished" and e["step"] == "agent")
    assert (finished["usage"]["model_calls"], finished["usage"]["tool_calls"]) == (2, 2)


async def test_an_agent_that_never_answers_is_stopped(client: Client, openai: OpenAIServer) -> None:
    async with WebServer() as web:
        web.on("/", reply_json({}))
        flow = drawing(
            node("model", "OpenAIChat"),
            node("again", "HttpRequest", name="again", url=web.url("/")),
            node("agent", "Agent", max_iterations=3, prompt="go"),
            edge("model", "agent", "llm", "llm"),
            edge("again", "agent", None, "tools"),
        )
        openai.answer = lambda body: Reply(tool_calls=[ToolCall("again", {})])

        found = await chat(client, "?", flow=flow)

    assert found["error"]["code"] == "limit_exceeded"
    assert "3 calls" in found["error"]["message"]
    assert len(openai.chats) == 3


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (Reply(status=401, text="Incorrect API key provided: sk-drawn."), "401"),
        (Reply(status=500), "500"),
        (Reply(tokens=["a", "b", "c"], fault=Fault.RESET, good=2), "agent"),
    ],
    ids=["401", "500", "reset"],
)
async def test_a_model_that_fails_fails_the_step_and_tells_no_secret(
    client: Client, openai: OpenAIServer, reply: Reply, says: str
) -> None:
    openai.answer = lambda body: reply
    flow = json.loads(json.dumps(CHAT))
    flow["nodes"][1]["data"]["max_retries"] = 0

    found = await chat(client, "hi", flow=flow)

    assert found["status"] == "failed"
    assert found["error"]["step"] == "agent"
    assert says in str(found["error"])
    assert "sk-drawn" not in str(found)


async def test_a_missing_key_is_said_before_anything_is_sent(tmp_path: Path, dsn: str) -> None:
    flow = json.loads(json.dumps(CHAT))
    flow["nodes"][1]["data"] = {}
    app = create_app(Settings(data_dir=tmp_path, api_key=KEY), dsn)
    async with serving(app) as client:
        found = await chat(client, "hi", flow=flow)

    assert found["error"]["code"] == "missing_key"
    assert "FLOWSERVER_OPENAI_API_KEY" in found["error"]["message"]


@pytest.mark.skipif(not COMPAT.exists(), reason="the editor's own drawings are not beside this repository")
@pytest.mark.parametrize("file", ["kaiflow-basic-agent.json", "kaifusion-basic-agent.json"])
async def test_the_editors_basic_agent_streams_and_remembers(
    client: Client, openai: OpenAIServer, file: str
) -> None:
    flow = json.loads((COMPAT / file).read_text())["flow_data"]

    first = await client.post(
        "/runs", json={"flow_data": flow, "input": "one", "session_id": "s", "mode": "stream"}
    )
    second = await chat(client, "two", "s", flow)
    other = await chat(client, "three", "t", flow)

    assert "text" in [event["event"] for event in events_of(first.text)]
    assert (second["output"], other["output"]) == ("echo: two", "echo: three")
    said = [[m["content"] for m in body["messages"] if m["role"] == "user"] for body in openai.chats]
    assert said == [["one"], ["one", "two"], ["three"]]
