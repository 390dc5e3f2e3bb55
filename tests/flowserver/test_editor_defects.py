"""What the editor's original server got wrong with agents and models (its verified defects, by number)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
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


@pytest.fixture
async def stranger(dsn: str, client: Client) -> dict[str, str]:
    """The headers of another organisation."""
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        await conn.execute("INSERT INTO org (id, name) VALUES (%s, 'strangers')", (org := uuid4(),))
        await conn.execute(
            "INSERT INTO api_key (id, org_id, name, digest)"
            " VALUES (%s, %s, 'k', sha256('key-of-a-stranger'))",
            (uuid4(), org),
        )
    return {"Authorization": "Bearer key-of-a-stranger"}


def chain(*agents: str, **settings: Any) -> dict[str, Any]:
    """Agents one after another, with one model."""
    ids = ["start", *agents, "end"]
    return drawing(
        node("start", "StartNode"),
        node("model", "OpenAIChat", **settings),
        *(node(id, "Agent") for id in agents),
        node("end", "EndNode"),
        *(edge(a, b) for a, b in pairwise(ids)),
        *(edge("model", id, "output", "llm") for id in agents),
    )


async def run(client: Client, flow: Any, given: str = "hi", **more: Any) -> Any:
    return (await client.post("/runs", json={"flow_data": flow, "input": given, **more})).json()


async def test_1_parallel_agents_run_together_and_meet(client: Client) -> None:
    flow = drawing(
        node("start", "StartNode"),
        node("model", "OpenAIChat"),
        node("a", "Agent", prompt="A"),
        node("b", "Agent", prompt="B"),
        node("both", "Template", template="{{ a }}+{{ b }}"),
        edge("start", "a"),
        edge("start", "b"),
        edge("a", "both"),
        edge("b", "both"),
        edge("model", "a", "output", "llm"),
        edge("model", "b", "output", "llm"),
    )

    assert (await run(client, flow))["output"] == "echo: A+echo: B"


async def test_2_an_agent_gets_what_the_step_before_it_gave(client: Client) -> None:
    assert (await run(client, chain("a", "b"), "hi"))["output"] == "echo: echo: hi"


async def test_2_every_tool_that_is_connected_can_be_called(client: Client, openai: OpenAIServer) -> None:
    async with WebServer() as web:
        web.on("/", reply_json({}))
        flow = chain("agent")
        for name in ("one", "two", "three"):
            flow["nodes"].append(node(name, "HttpRequest", name=name, url=web.url("/")))
            flow["edges"].append(edge(name, "agent", "response", "tools"))
        openai.reply(Reply(tool_calls=[ToolCall("three", {}), ToolCall("one", {})]), "done")

        found = await run(client, flow)

    assert found["output"] == "done"
    assert len(web.requests) == 2


async def test_3_nobody_runs_with_the_credentials_of_others(
    client: Client, openai: OpenAIServer, stranger: dict[str, str]
) -> None:
    made = await client.post("/credentials", json={"name": "c", "data": {"api_key": "sk-ours"}})
    flow = chain("agent", credential_id=made.json()["id"])
    ours = await run(client, flow)
    theirs = await client.post("/runs", json={"flow_data": flow, "input": "x"}, headers=stranger)
    saved = await client.post("/workflows", json={"name": "w", "flow_data": flow}, headers=stranger)
    started = await client.post(f"/workflows/{saved.json()['id']}/runs", json={}, headers=stranger)

    assert ours["status"] == "succeeded"
    used = [each.headers["authorization"] for each in openai.requests]
    assert used.count("Bearer sk-ours") == 1
    assert saved.json()["problems"][0]["code"] == "unknown_credential"
    for run_ in (theirs.json(), started.json()):  # with the server's own key, or not at all
        assert run_["status"] == "succeeded" or run_["error"]["code"] == "credential_not_found"


async def test_3_runs_at_the_same_time_keep_their_own_keys(client: Client, openai: OpenAIServer) -> None:
    flows = []
    for number in range(6):
        body = {"name": f"c{number}", "data": {"api_key": f"sk-{number}"}}
        made = (await client.post("/credentials", json=body)).json()
        flows.append(chain("agent", credential_id=made["id"]))

    await asyncio.gather(*(run(client, flow, str(number)) for number, flow in enumerate(flows)))

    used = {each.body["messages"][-1]["content"]: each.headers["authorization"] for each in openai.requests}
    assert used == {str(number): f"Bearer sk-{number}" for number in range(6)}


async def test_6_an_agent_that_fails_is_no_success(client: Client, openai: OpenAIServer) -> None:
    openai.answer = lambda body: Reply("no", status=400)

    found = await run(client, chain("agent", "after"))

    assert (found["status"], found["error"]["step"], found["output"]) == ("failed", "agent", None)


async def test_7_braces_are_just_text(client: Client, openai: OpenAIServer) -> None:
    flow = chain("agent")
    flow["nodes"][2]["data"]["system_prompt"] = "Answer: {input} {'a': {}} }"

    found = await run(client, flow, "{x} {{ y }} %s")

    assert found["output"] == "echo: {x} {{ y }} %s"
    assert openai.chats[0]["messages"][0]["content"] == "Answer: {input} {'a': {}} }"


async def test_8_an_agent_without_a_model_is_refused_before_it_runs(client: Client) -> None:
    flow = drawing(node("start", "StartNode"), node("agent", "Agent"), edge("start", "agent"))

    response = await client.post("/runs", json={"flow_data": flow})

    assert response.status_code == 422
    assert [each["code"] for each in response.json()["problems"]] == ["missing_input"]
    assert (await client.get("/runs")).json()["items"] == []


async def test_12_events_name_nodes_of_the_drawing_only(client: Client, openai: OpenAIServer) -> None:
    async with WebServer() as web:
        web.on("/", reply_json({}))
        flow = chain("agent")
        flow["nodes"].append(node("tool", "HttpRequest", name="tool", url=web.url("/")))
        flow["edges"].append(edge("tool", "agent", "response", "tools"))
        openai.reply(Reply(tool_calls=[ToolCall("tool", {})]), "done")

        body = {"flow_data": flow, "input": "x", "mode": "stream"}
        events = events_of((await client.post("/runs", json=body)).text)

    steps = {each["step"] for each in events if "step" in each}
    assert steps == {"start", "model", "agent", "end"}


@pytest.mark.parametrize("memory", ["BufferMemory", "ConversationMemory"])
async def test_17_one_session_id_is_two_conversations_in_two_organisations(
    client: Client, openai: OpenAIServer, stranger: dict[str, str], memory: str
) -> None:
    flow = chain("agent")
    flow["nodes"].append(node("memory", memory))
    flow["edges"].append(edge("memory", "agent", "output", "memory"))
    body = {"flow_data": flow, "session_id": "same"}

    await client.post("/runs", json={**body, "input": "our secret"})
    await client.post("/runs", json={**body, "input": "tell me"}, headers=stranger)
    await client.post("/runs", json={**body, "input": "and?"})

    shown = [[m["content"] for m in each["messages"]] for each in openai.chats]
    assert shown[1] == ["tell me"]
    assert shown[2] == ["our secret", "echo: our secret", "and?"]


async def test_4_a_run_of_a_session_knows_nothing_of_what_another_drawing_did_there(client: Client) -> None:
    def one(text: str) -> dict[str, Any]:
        name = text.lower()
        return drawing(node("start", "StartNode"), node(name, "Template", template=text), edge("start", name))

    for text in ("One", "Two"):
        body = {"flow_data": one(text), "session_id": "same", "input": "x", "mode": "stream"}
        events = events_of((await client.post("/runs", json=body)).text)

        assert events[-1]["output"] == text
        assert {each["step"] for each in events if "step" in each} == {"start", text.lower()}


async def test_9_a_circle_without_a_way_out_is_named_before_it_runs(client: Client) -> None:
    flow = drawing(
        node("start", "StartNode"),
        node("a", "Template", template="a"),
        node("b", "Template", template="b"),
        edge("start", "a"),
        edge("a", "b"),
        edge("b", "a"),
    )

    refused = await client.post("/runs", json={"flow_data": flow})

    assert refused.status_code == 422
    assert [each["where"] for each in refused.json()["problems"] if "loop" in each["code"]] != []


async def test_10_a_flow_of_a_trigger_alone_runs_and_a_webhook_runs_the_flow_that_it_is_in(
    client: Client,
) -> None:
    timer = drawing(
        node("timer_1", "TimerStartNode", schedule_type="manual", trigger_data={"message": "by hand"}),
        node("say", "Template", template="{{ timer_1.message }}"),
        edge("timer_1", "say"),
    )
    hook = drawing(
        node("hook", "WebhookTrigger", webhook_id="wh_0123456789ab"),
        node("say", "Template", template="mine: {{ hook.a }}"),
        edge("hook", "say", "webhook_endpoint"),
    )
    saved = (await client.post("/workflows", json={"name": "w", "flow_data": hook})).json()
    await client.post(f"/workflows/{saved['id']}/publish")

    by_hand = (await client.post("/runs", json={"flow_data": timer})).json()
    called = await client.post(str(client.base_url.copy_with(path="/hooks/wh_0123456789ab")), json={"a": 1})

    assert by_hand["output"] == "by hand"
    assert (called.status_code, called.json()) == (200, "mine: 1")
