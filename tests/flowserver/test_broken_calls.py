"""Tool calls that cannot be made: the model is told, and the conversation that it is sent is whole."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from flowserver.app import create_app
from flowserver.settings import Settings
from tests.openai_server import OpenAIServer, Reply, ToolCall
from tests.server import KEY, drawing, edge, events_of, node, serving
from tests.web_server import WebServer, reply_json

Client = httpx.AsyncClient


@pytest.fixture
async def openai() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as server:
        yield server


@pytest.fixture
async def web() -> AsyncIterator[WebServer]:
    async with WebServer() as server:
        server.on("/pay", reply_json({"paid": True}))
        yield server


@pytest.fixture
async def client(tmp_path: Path, dsn: str, openai: OpenAIServer, web: WebServer) -> AsyncIterator[Client]:
    settings = Settings(
        data_dir=tmp_path,
        api_key=KEY,
        openai_base_url=openai.url,
        openai_api_key="sk-operator",
        outbound_allow=(web.door,),
    )
    async with serving(create_app(settings, dsn)) as client:
        yield client


def agent(web: WebServer, **settings: Any) -> dict[str, Any]:
    return drawing(
        node("start", "StartNode"),
        node("model", "OpenAIChat", max_retries=0),
        node("memory", "BufferMemory"),
        node("p", "HttpRequest", name="pay", url=web.url("/pay"), method="POST"),
        node("agent", "Agent", max_iterations=5, **settings),
        edge("start", "agent"),
        edge("model", "agent", "llm", "llm"),
        edge("memory", "agent", "memory", "memory"),
        edge("p", "agent", "response", "tools"),
    )


async def run(client: Client, flow: Any, streams: bool, **more: Any) -> tuple[dict[str, Any], list[Any]]:
    body = {"flow_data": flow, "input": "go", "session_id": "s", **more}
    response = await client.post("/runs", json={**body, "mode": "stream" if streams else "wait"})
    assert response.status_code in (200, 202), response.text
    if streams:
        found = events_of(response.text)
        id = found[0]["run_id"] if "run_id" in found[0] else response.headers["location"].rsplit("/", 1)[-1]
    else:
        id = response.json()["id"]
        found = events_of((await client.get(f"/runs/{id}/events", params={"after": 0})).text)
    return (await client.get(f"/runs/{id}")).json(), found


def must_be_whole(body: dict[str, Any]) -> None:
    """What strict providers want of a conversation: each call has arguments of an object, and one answer."""
    messages = body["messages"]
    for at, message in enumerate(messages):
        calls = message.get("tool_calls") or []
        for call in calls:
            assert isinstance(json.loads(call["function"]["arguments"]), dict)
        answers = [each["tool_call_id"] for each in messages[at + 1 : at + 1 + len(calls)]]
        assert sorted(answers) == sorted(call["id"] for call in calls)


BROKEN = {
    "cut": '{"body": {"a": ',
    "cut in a text": '{"body": {"a": "hel',
    "cut after a value": '{"body": {"a": 1}',
    "no JSON": "body=1",
    "two objects": '{"body": 1}{"body": 2}',
    "a list": "[1]",
    "a list of objects": '[{"body": 1}]',
    "a text": '"pay"',
    "a number": "5",
    "true": "true",
    "no number": '{"body": NaN}',
    "nested too deeply": '{"body": ' + "[" * 5_000 + "]" * 5_000 + "}",
}


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", BROKEN)
async def test_a_call_with_broken_arguments_is_not_made_and_the_model_hears_why(
    client: Client, openai: OpenAIServer, web: WebServer, name: str, streams: bool
) -> None:
    openai.reply(
        Reply("I call.", tool_calls=[ToolCall("pay", BROKEN[name], "c1")]),
        Reply(tool_calls=[ToolCall("pay", {"body": {"sum": 5}}, "c2")]),
        "Paid.",
    )

    found, events = await run(client, agent(web), streams)

    assert (found["status"], found["output"]) == ("succeeded", "Paid."), found
    assert [request.json for request in web.requests] == [{"sum": 5}]
    for body in openai.chats:
        must_be_whole(body)
    told = openai.chats[1]["messages"][-1]
    assert told["tool_call_id"] == "c1"
    assert told["content"].startswith("the arguments are no JSON")
    assert BROKEN[name][:200] in told["content"]
    refused = [each for each in events if each["event"] == "tool.refused"]
    assert [(each["call"], each["tool"]) for each in refused] == [("c1", "pay")]
    assert found["usage"]["tool_calls"] == 1


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("arguments", ["", "null", "{}", " \n"])
async def test_no_arguments_are_an_empty_object(
    client: Client, openai: OpenAIServer, web: WebServer, arguments: str, streams: bool
) -> None:
    openai.reply(Reply(tool_calls=[ToolCall("pay", arguments, "c1")]), "Paid.")

    found, _ = await run(client, agent(web), streams)

    assert (found["output"], len(web.requests)) == ("Paid.", 1)
    must_be_whole(openai.chats[1])


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("ids", [("c1", "c2", "c3"), ("c", "c", "c")], ids=["ids", "one id"])
async def test_a_broken_call_beside_good_ones_keeps_none_of_them_back(
    client: Client, openai: OpenAIServer, web: WebServer, ids: tuple[str, str, str], streams: bool
) -> None:
    arguments = ('{"b', {"body": {"k": 1}}, "[1]")
    calls = [ToolCall("pay", given, id) for given, id in zip(arguments, ids, strict=True)]
    openai.reply(Reply("I call.", tool_calls=calls), "Paid.", "Next.")

    found, _ = await run(client, agent(web), streams)
    again, _ = await run(client, agent(web), streams)

    assert (found["output"], again["output"]) == ("Paid.", "Next.")
    assert [request.json for request in web.requests] == [{"k": 1}]
    must_be_whole(openai.chats[1])
    contents = [each["content"] for each in openai.chats[1]["messages"] if each["role"] == "tool"]
    assert sum(each.startswith("the arguments are no JSON") for each in contents) == 2
    assert sum("paid" in each for each in contents) == 1


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
async def test_nobody_is_asked_to_approve_a_call_that_cannot_be_made(
    client: Client, openai: OpenAIServer, web: WebServer, streams: bool
) -> None:
    openai.reply(
        Reply(tool_calls=[ToolCall("pay", '{"b', "c1"), ToolCall("pay", {"body": 1}, "c2")]), "Paid."
    )

    asks, _ = await run(client, agent(web, approve_tools=["pay"]), streams)
    (question,) = asks["questions"]
    await client.post(f"/runs/{asks['id']}/resume", json={"answer": "approve"})
    done = (await client.get(f"/runs/{asks['id']}/events", params={"after": asks["last_seq"]})).text

    assert (question["payload"]["call"], question["payload"]["arguments"]) == ("c2", {"body": 1})
    assert events_of(done)[-1]["output"] == "Paid."
    assert len(web.requests) == 1
    must_be_whole(openai.chats[1])


SCHEMA = {"type": "object", "properties": {"items": {"type": "array"}}, "required": ["items"]}


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("arguments", ['{"items": [1, 2', "[1]", "null", ""])
async def test_an_answer_by_a_schema_that_was_cut_off_is_none(
    client: Client, openai: OpenAIServer, web: WebServer, arguments: str, streams: bool
) -> None:
    openai.reply(
        Reply(tool_calls=[ToolCall("answer", arguments, "c1")]),
        Reply(tool_calls=[ToolCall("answer", {"items": [1, 2, 3]}, "c2")]),
    )

    found, _ = await run(client, agent(web, output_schema=SCHEMA), streams)

    assert (found["status"], found["output"]) == ("succeeded", {"items": [1, 2, 3]}), found
    must_be_whole(openai.chats[1])


@pytest.mark.parametrize("arguments", ['{"category": "a', '["a"]'])
async def test_a_classifier_asks_again_after_broken_arguments(
    client: Client, openai: OpenAIServer, arguments: str
) -> None:
    flow = drawing(
        node("start", "StartNode"),
        node("model", "OpenAIChat", max_retries=0),
        node(
            "sort",
            "Extractor",
            schema={"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
        ),
        edge("start", "sort"),
        edge("model", "sort", "llm", "llm"),
    )
    openai.answer = lambda body: Reply(
        tool_calls=[
            ToolCall(body["tools"][0]["function"]["name"], arguments if len(openai.chats) == 1 else {"a": 1})
        ]
    )

    found, _ = await run(client, flow, False)

    assert found["status"] == "succeeded", found
    must_be_whole(openai.chats[1])
