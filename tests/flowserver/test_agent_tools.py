"""An agent's tools: told, approved, failing, other workflows; and answers by a schema."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from flowserver.app import create_app
from flowserver.settings import Settings
from tests.openai_server import OpenAIServer, Reply, ToolCall
from tests.server import KEY, drawing, edge, events_of, node, server_process, serving, told
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
        server.on("/look", reply_json({"sky": "blue"}))
        yield server


@pytest.fixture
async def client(tmp_path: Path, dsn: str, openai: OpenAIServer) -> AsyncIterator[Client]:
    settings = Settings(
        data_dir=tmp_path,
        api_key=KEY,
        openai_base_url=openai.url,
        openai_api_key="sk-operator",
        outbound_allow=("127.0.0.1",),
    )
    async with serving(create_app(settings, dsn)) as client:
        yield client


def agent(web: WebServer, /, **settings: Any) -> dict[str, Any]:
    return drawing(
        node("start", "StartNode"),
        node("model", "OpenAIChat"),
        node("memory", "BufferMemory"),
        node("p", "HttpRequest", name="pay", url=web.url("/pay"), method="POST"),
        node("l", "HttpRequest", name="look", url=web.url("/look")),
        node("agent", "Agent", **settings),
        node("end", "EndNode"),
        edge("start", "agent"),
        edge("model", "agent", "llm", "llm"),
        edge("memory", "agent", "memory", "memory"),
        edge("p", "agent", "response", "tools"),
        edge("l", "agent", "response", "tools"),
        edge("agent", "end"),
    )


async def start(client: Client, flow: Any, given: str = "go", **more: Any) -> dict[str, Any]:
    response = await client.post("/runs", json={"flow_data": flow, "input": given, **more})
    assert response.status_code in (200, 202), response.text
    return dict(response.json())


async def answer(client: Client, run: dict[str, Any], given: Any) -> dict[str, Any]:
    """Answer the run's question; the run when it has ended or asks again."""
    (question,) = run["questions"]
    response = await client.post(
        f"/runs/{run['id']}/resume", json={"question_id": question["id"], "answer": given}
    )
    assert response.status_code == 202, response.text
    async with asyncio.timeout(20):
        while True:
            found = (await client.get(f"/runs/{run['id']}")).json()
            asks = [each["id"] for each in found["questions"]]
            if found["status"] in ("succeeded", "failed") or (asks and asks != [question["id"]]):
                return dict(found)
            await asyncio.sleep(0.02)


async def events(client: Client, run: dict[str, Any]) -> list[dict[str, Any]]:
    return events_of((await client.get(f"/runs/{run['id']}/events", params={"after": 0})).text)


async def test_each_call_of_a_tool_is_told_with_what_came_of_it(
    client: Client, openai: OpenAIServer, web: WebServer
) -> None:
    openai.reply(
        Reply(tool_calls=[ToolCall("look", {"query": {"at": "x"}}, "c1"), ToolCall("nothing", {}, "c2")]),
        "done",
    )

    run = await start(client, agent(web))

    assert run["output"] == "done"
    found = [each for each in await events(client, run) if each["event"].startswith("tool.")]
    assert [(each["event"], each["call"], each["tool"]) for each in found if each["call"] == "c1"] == [
        ("tool.called", "c1", "look"),
        ("tool.returned", "c1", "look"),
    ]
    assert found[0]["step"] == "agent"
    called, returned = [each for each in found if each["call"] == "c1"]
    assert called["arguments"] == {"query": {"at": "x"}}
    assert "blue" in returned["result"] and returned["ms"] >= 0
    assert "nothing" in openai.chats[1]["messages"][-1]["content"]


async def test_a_call_waits_for_approval_and_nothing_before_it_is_done_twice(
    client: Client, openai: OpenAIServer, web: WebServer, dsn: str
) -> None:
    openai.reply(
        Reply(tool_calls=[ToolCall("look", {}, "c1")]),
        Reply("I shall pay.", tool_calls=[ToolCall("pay", {"body": {"sum": 5}}, "c2")]),
        "Paid.",
    )

    run = await start(client, agent(web, approve_tools=["pay"]), "pay 5", session_id="s")

    assert run["status"] == "waiting"
    (question,) = run["questions"]
    assert question["payload"] == {
        "question": "May agent call pay?",
        "tool": "pay",
        "arguments": {"body": {"sum": 5}},
        "call": "c2",
        "text": "I shall pay.",
    }
    assert [each["id"] for each in question["actions"]] == ["approve", "reject"]
    assert "kept" not in json.dumps(await events(client, run)) + json.dumps(run)
    assert [request.path for request in web.requests] == ["/look"]

    run = await answer(client, run, "approve")

    assert (run["status"], run["output"]) == ("succeeded", "Paid.")
    assert [request.path for request in web.requests] == ["/look", "/pay"]
    assert len(openai.chats) == 3
    assert run["usage"]["model_calls"] == 3
    assert run["usage"]["tool_calls"] == 2
    assert [each["role"] for each in openai.chats[2]["messages"]] == [
        *("user", "assistant", "tool", "assistant", "tool"),
    ]
    await start(client, agent(web), "again", session_id="s")
    remembered = [(m["role"], m["content"]) for m in openai.chats[3]["messages"]]
    assert remembered == [("user", "pay 5"), ("assistant", "Paid."), ("user", "again")]


async def test_a_refused_call_is_not_made_and_the_model_is_told_why(
    client: Client, openai: OpenAIServer, web: WebServer
) -> None:
    openai.reply(Reply(tool_calls=[ToolCall("pay", {}, "c1")]), "Then not.")

    run = await start(client, agent(web, approve_tools="pay"))
    run = await answer(client, run, {"action": "reject", "values": {"reason": "too dear"}})

    assert run["output"] == "Then not."
    assert web.requests == []
    assert openai.chats[1]["messages"][-1]["content"] == "a person has refused this call: too dear"
    refused = [each for each in await events(client, run) if each["event"] == "tool.refused"]
    assert [(each["call"], each["because"]) for each in refused] == [
        ("c1", "a person has refused this call: too dear")
    ]


async def test_several_calls_are_decided_one_by_one_before_any_is_made(
    client: Client, openai: OpenAIServer, web: WebServer
) -> None:
    calls = [
        ToolCall("pay", {"body": 1}, "c1"),
        ToolCall("look", {}, "c2"),
        ToolCall("pay", {"body": 2}, "c3"),
    ]
    openai.reply(Reply(tool_calls=calls), "done")

    run = await start(client, agent(web, approve_tools=["pay"]))
    assert run["questions"][0]["payload"]["call"] == "c1"
    run = await answer(client, run, "approve")
    assert (run["status"], run["questions"][0]["payload"]["call"]) == ("waiting", "c3")
    assert web.requests == []
    run = await answer(client, run, "reject")

    assert run["output"] == "done"
    assert sorted(request.path for request in web.requests) == ["/look", "/pay"]
    assert next(each.body for each in web.requests if each.path == "/pay") == b"1"
    answers = [m for m in openai.chats[1]["messages"] if m["role"] == "tool"]
    assert [each["tool_call_id"] for each in answers] == ["c1", "c2", "c3"]


async def test_questions_of_several_turns_follow_each_other_and_count_against_one_limit(
    client: Client, openai: OpenAIServer, web: WebServer
) -> None:
    openai.answer = lambda body: Reply(tool_calls=[ToolCall("pay", {}, f"c{len(body['messages'])}")])

    run = await start(client, agent(web, approve_tools=["*"], max_iterations=3))
    for paid in range(3):
        assert (run["status"], len(web.requests)) == ("waiting", paid)
        run = await answer(client, run, "approve")

    assert (run["status"], run["error"]["code"]) == ("failed", "limit_exceeded")
    assert len(openai.chats) == len(web.requests) == 3
    keys = {request.headers["idempotency-key"] for request in web.requests}
    assert len(keys) == 3  # the same call again is another call


async def test_an_approval_is_for_one_call_whatever_ids_the_model_gives(
    client: Client, openai: OpenAIServer, web: WebServer
) -> None:
    same = [ToolCall("pay", {"body": 1}, "call_0"), ToolCall("pay", {"body": 2}, "call_0")]
    openai.reply(Reply(tool_calls=same), Reply(tool_calls=[ToolCall("pay", {"body": 3}, "call_0")]), "done")

    run = await start(client, agent(web, approve_tools='["pay"]'))
    asked = []
    while run["status"] == "waiting":
        asked.append(run["questions"][0]["payload"]["arguments"]["body"])
        run = await answer(client, run, "approve" if len(asked) != 2 else "reject")

    assert run["output"] == "done"
    assert asked == [1, 2, 3]
    assert sorted(request.body for request in web.requests) == [b"1", b"3"]


async def test_nobody_answers_in_time(client: Client, openai: OpenAIServer, web: WebServer) -> None:
    openai.reply(Reply(tool_calls=[ToolCall("pay", {}, "c1")]), "Then not.")

    run = await start(client, agent(web, approve_tools=["pay"], approval_deadline=1))

    async with asyncio.timeout(20):
        while run["status"] != "succeeded":
            await asyncio.sleep(0.1)
            run = (await client.get(f"/runs/{run['id']}")).json()
    assert web.requests == []
    assert "nobody has approved" in openai.chats[1]["messages"][-1]["content"]


async def test_a_tool_that_is_to_be_approved_must_be_there(client: Client, web: WebServer) -> None:
    run = await start(client, agent(web, approve_tools=["payy"]))

    assert (run["status"], run["error"]["code"]) == ("failed", "bad_config")
    assert "'payy'; its tools: look, pay" in run["error"]["message"]


async def test_an_approval_outlives_the_process_that_asked(
    dsn: str, tmp_path: Path, openai: OpenAIServer, web: WebServer
) -> None:
    openai.reply(
        Reply(tool_calls=[ToolCall("look", {}, "c1")]), Reply(tool_calls=[ToolCall("pay", {}, "c2")]), "Paid."
    )
    settings = {"FLOWSERVER_OPENAI_BASE_URL": openai.url, "FLOWSERVER_OUTBOUND_ALLOW": "127.0.0.1"}
    async with server_process(dsn, tmp_path, settings) as server:
        run = await start(server.client, agent(web, approve_tools=["pay"]))
        assert run["status"] == "waiting"
        await server.kill()
    async with server_process(dsn, tmp_path, settings) as server:
        run = await answer(server.client, run, "approve")

    assert (run["status"], run["output"]) == ("succeeded", "Paid.")
    assert [request.path for request in web.requests] == ["/look", "/pay"]
    assert len(openai.chats) == 3


async def test_other_steps_go_on_while_an_agent_waits(
    client: Client, openai: OpenAIServer, web: WebServer
) -> None:
    openai.reply(Reply(tool_calls=[ToolCall("pay", {}, "c1")]), "Paid.")
    flow = agent(web, approve_tools=["pay"])
    flow["nodes"].append(node("beside", "HttpRequest", url=web.url("/look")))
    flow["edges"] += [edge("start", "beside"), edge("beside", "end", "content")]

    run = await start(client, flow)

    assert run["status"] == "waiting"
    assert "step.finished beside" in told(await events(client, run))
    assert (await answer(client, run, "approve"))["status"] == "succeeded"


async def test_an_agent_asks_inside_a_map_for_each_item(
    client: Client, openai: OpenAIServer, web: WebServer
) -> None:
    def say(body: Any) -> Reply | str:
        last, item = body["messages"][-1], body["messages"][0]["content"]
        if last["role"] == "user":
            return Reply(tool_calls=[ToolCall("look", {}, f"l-{item}")])
        if last["tool_call_id"][0] == "l":
            return Reply(tool_calls=[ToolCall("pay", {}, f"c-{item}")])
        return "paid"

    openai.answer = say
    flow = drawing(
        node("start", "StartNode"),
        node("map", "Map", items=["a", "b"]),
        node("model", "OpenAIChat"),
        node("p", "HttpRequest", name="pay", url=web.url("/pay"), method="POST"),
        node("agent", "Agent", approve_tools=["pay"]),
        edge("start", "map"),
        edge("map", "agent", "item"),
        edge("agent", "map", "output", "result"),
        edge("model", "agent", "llm", "llm"),
        edge("p", "agent", "response", "tools"),
        node("l", "HttpRequest", name="look", url=web.url("/look")),
        edge("l", "agent", "response", "tools"),
    )
    run = await start(client, flow)
    assert run["status"] == "waiting", run
    asked = [each["payload"]["call"] for each in run["questions"]]

    for question in list(run["questions"]):
        run = await answer(client, run | {"questions": [question]}, "approve")

    assert sorted(asked) == ["c-a", "c-b"]
    assert (run["status"], run["output"]) == ("succeeded", ["paid", "paid"])
    assert sorted(request.path for request in web.requests) == ["/look", "/look", "/pay", "/pay"]
    assert len(openai.chats) == 6


async def test_a_tool_that_breaks_is_an_answer_for_the_model_without_secrets(
    client: Client, openai: OpenAIServer, web: WebServer
) -> None:
    flow = agent(web)
    flow["nodes"][3]["data"] |= {
        "url": "http://127.0.0.1:9/gone",
        "auth_type": "bearer",
        "auth_token": "tk-CNRY",
    }
    flow["nodes"][3]["data"] |= {"max_retries": 0}
    openai.reply(
        Reply(tool_calls=[ToolCall("pay", {}, "c1"), ToolCall("look", {"bad": 1}, "c2")]), "so be it"
    )

    run = await start(client, flow)

    assert run["output"] == "so be it"
    answers = {m["tool_call_id"]: m["content"] for m in openai.chats[1]["messages"] if m["role"] == "tool"}
    assert "nothing answers there" in answers["c1"]
    assert "bad_argument" in answers["c2"]
    assert "tk-CNRY" not in str(openai.requests) + json.dumps(await events(client, run))


async def test_tool_calls_count_against_the_limits_of_the_run(
    client: Client, openai: OpenAIServer, web: WebServer
) -> None:
    openai.answer = lambda body: Reply(tool_calls=[ToolCall("look", {})])

    run = await start(client, agent(web), limits={"tool_calls": 2})

    assert (run["status"], run["error"]["code"], run["error"]["limit"]) == (
        "failed",
        "limit_exceeded",
        "tool_calls",
    )
    assert len(web.requests) == 2


# Answers by a schema

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
    "required": ["city", "days"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("schema", [SCHEMA, json.dumps(SCHEMA)])
async def test_an_answer_by_a_schema_is_an_object(
    client: Client, openai: OpenAIServer, web: WebServer, schema: Any
) -> None:
    openai.reply(
        Reply(tool_calls=[ToolCall("look", {})]),
        Reply(tool_calls=[ToolCall("answer", {"city": "Ulm", "days": 2})]),
    )

    run = await start(client, agent(web, output_schema=schema))

    assert run["output"] == {"city": "Ulm", "days": 2}
    assert run["usage"]["tool_calls"] == 1
    assert "answer" in [each["function"]["name"] for each in openai.chats[0]["tools"]]


async def test_an_answer_that_does_not_fit_is_asked_for_again(
    client: Client, openai: OpenAIServer, web: WebServer
) -> None:
    openai.reply(
        Reply(tool_calls=[ToolCall("answer", {"city": "Ulm", "days": 0})]),
        Reply(tool_calls=[ToolCall("answer", {"city": "Ulm", "days": 1})]),
    )

    run = await start(client, agent(web, output_schema=SCHEMA))

    assert run["output"] == {"city": "Ulm", "days": 1}
    assert "days: 0 is less than the minimum of 1" in openai.chats[1]["messages"][-1]["content"]


async def test_a_model_that_never_fits_fails_the_step(
    client: Client, openai: OpenAIServer, web: WebServer
) -> None:
    openai.answer = lambda body: Reply(tool_calls=[ToolCall("answer", {"city": 5})])

    run = await start(client, agent(web, output_schema=SCHEMA, max_iterations=3))

    assert (run["status"], run["error"]["code"]) == ("failed", "limit_exceeded")
    assert len(openai.chats) == 3


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("{oops", "is not JSON"),
        ("[1]", "must be an object"),
        ({"type": "string"}, "must be the schema of an object"),
        ({"properties": {"a": {"type": "strin"}}}, "is no JSON schema"),
        ({"properties": {"a": {"$ref": "http://169.254.169.254/x"}}}, "refers to 'http://169.254"),
    ],
)
async def test_a_schema_that_is_none_is_a_mistake_of_the_drawing(
    client: Client, web: WebServer, schema: Any, words: str
) -> None:
    flow = agent(web, output_schema=schema)

    problems = (await client.post("/workflows/check", json={"flow_data": flow})).json()["problems"]

    assert any(words in each["message"] and each["where"] == "agent" for each in problems), problems


# Workflows as tools


async def with_workflow(client: Client, inner: Any, **tool: Any) -> dict[str, Any]:
    await client.post("/workflows", json={"name": "inner", "flow_data": inner})
    return drawing(
        node("start", "StartNode"),
        node("model", "OpenAIChat"),
        node("sub", "Subflow", name="translate", workflow="inner", **tool),
        node("agent", "Agent"),
        node("end", "EndNode"),
        edge("start", "agent"),
        edge("model", "agent", "llm", "llm"),
        edge("sub", "agent", "output", "tools"),
        edge("agent", "end"),
    )


INNER = drawing(
    node("in", "StartNode"),
    node("say", "Template", template="<{{ input }}>"),
    node("out", "EndNode"),
    edge("in", "say"),
    edge("say", "out"),
)


async def test_a_workflow_serves_as_a_tool_as_often_as_it_is_called(
    client: Client, openai: OpenAIServer
) -> None:
    flow = await with_workflow(client, INNER, tool_description="Translates.")
    openai.reply(
        Reply(
            tool_calls=[
                ToolCall("translate", {"input": "a"}, "c1"),
                ToolCall("translate", {"input": "b"}, "c2"),
            ]
        ),
        "done",
    )

    run = await start(client, flow)

    assert run["output"] == "done", run
    answers = [m["content"] for m in openai.chats[1]["messages"] if m["role"] == "tool"]
    assert answers == ["<a>", "<b>"]
    assert openai.chats[0]["tools"][0]["function"]["description"] == "Translates."
    said = [each for each in await events(client, run) if each.get("step") == "say"]
    assert sorted(each["event"] for each in said) == ["step.finished"] * 2 + ["step.started"] * 2
    where = [each["within"] for each in said if each["event"] == "step.finished"]
    assert sorted(where, key=str) == [[{"step": "sub", "call": 1}], [{"step": "sub"}]]


async def test_the_words_of_an_agent_inside_a_tool_are_its_own(client: Client, openai: OpenAIServer) -> None:
    inner = drawing(
        node("in", "StartNode"),
        node("model", "OpenAIChat"),
        node("inside", "Agent"),
        node("out", "EndNode"),
        edge("in", "inside"),
        edge("model", "inside", "llm", "llm"),
        edge("inside", "out"),
    )
    flow = await with_workflow(client, inner)
    openai.reply(
        Reply(tool_calls=[ToolCall("translate", {"input": "a"}, "c1")]), "inner words", "outer words"
    )

    response = await client.post("/runs", json={"flow_data": flow, "input": "x", "mode": "stream"})

    found = events_of(response.text)
    texts: dict[str, str] = {}
    for each in found:
        if each["event"] == "text":
            texts[each["step"]] = texts.get(each["step"], "") + each["text"]
    assert texts == {"inside": "inner words", "agent": "outer words"}
    assert found[-1]["output"] == "outer words"


async def test_a_workflow_that_fails_as_a_tool_is_an_answer(client: Client, openai: OpenAIServer) -> None:
    inner = drawing(
        node("in", "StartNode"),
        node("get", "HttpRequest", url="http://127.0.0.1:9/", max_retries=0),
        edge("in", "get"),
    )
    flow = await with_workflow(client, inner)
    openai.reply(Reply(tool_calls=[ToolCall("translate", {"input": "a"})]), "so be it")

    run = await start(client, flow)

    assert (run["status"], run["output"]) == ("succeeded", "so be it")
    assert "nothing answers there" in openai.chats[1]["messages"][-1]["content"]


async def test_a_workflow_that_asks_a_person_is_no_tool(client: Client) -> None:
    inner = drawing(node("in", "StartNode"), node("ask", "HumanInput", question="?"), edge("in", "ask"))
    flow = await with_workflow(client, inner)

    problems = (await client.post("/workflows/check", json={"flow_data": flow})).json()["problems"]

    assert [(each["code"], each["where"]) for each in problems] == [("asks_in_tool", "sub")]


async def test_no_row_holds_a_conversation_that_was_kept_after_its_run(
    client: Client, openai: OpenAIServer, web: WebServer, dsn: str
) -> None:
    openai.reply(Reply(tool_calls=[ToolCall("pay", {}, "c1")]), "Paid.")
    run = await start(client, agent(web, approve_tools=["pay"]))
    await answer(client, run, "approve")

    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        rows = await (await conn.execute("SELECT question::text FROM question")).fetchall()
    assert len(rows) == 1
