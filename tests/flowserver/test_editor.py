"""The editor's own way to run a drawing: its frames, its fields, its node ids, and no secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from flowserver.app import create_app
from flowserver.settings import Settings
from tests.openai_server import OpenAIServer, Reply
from tests.server import KEY, drawing, edge, node, serving

SECRET = "sk-a-secret-of-the-drawing"


def frames(text: str) -> list[dict[str, Any]]:
    """The stream as the editor reads it: nothing but `data:` lines."""
    lines = [line for line in text.split("\n") if line]
    assert all(line.startswith("data: ") for line in lines), text
    return [json.loads(line.removeprefix("data: ")) for line in lines]


HELLO = drawing(
    node("start__7", "StartNode"),
    node("text__9", "Template", template="hi {{ input }}"),
    node("end__1", "EndNode"),
    edge("start__7", "text__9"),
    edge("text__9", "end__1"),
)


async def test_the_editor_sees_its_nodes_start_and_end_and_the_result(client: httpx.AsyncClient) -> None:
    body = {
        "flow_data": HELLO,
        "input_text": "Ada",
        "session_id": "s1",
        "node_id": "start__7",
        "execution_type": "manual",
        "trigger_source": "start_node_double_click",
    }

    response = await client.post("/workflows/execute", json=body)

    told = frames(response.text)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert [(each["type"], each.get("node_id")) for each in told] == [
        ("start", None),
        ("node_start", "start__7"),
        ("node_end", "start__7"),
        ("node_start", "text__9"),
        ("node_end", "text__9"),
        ("node_start", "end__1"),
        ("node_end", "end__1"),
        ("complete", None),
    ]
    assert {each["session_id"] for each in told} == {"s1"}
    last = told[-1]
    assert last["result"] == "hi Ada"
    assert last["executed_nodes"] == ["start__7", "text__9", "end__1"]
    assert last["node_outputs"]["text__9"] == {"text": "hi Ada"}
    run = (await client.get(f"/runs/{last['execution_id']}")).json()
    assert (run["status"], run["trigger"]["type"], run["session_id"]) == ("succeeded", "editor", "s1")


async def test_without_a_session_one_is_made(client: httpx.AsyncClient) -> None:
    first = frames((await client.post("/workflows/execute", json={"flow_data": HELLO})).text)
    second = frames(
        (await client.post("/workflows/execute", json={"flow_data": HELLO, "chatflow_id": "c"})).text
    )

    assert first[0]["session_id"].startswith("session_")
    assert first[-1]["result"] == "hi Hello"
    assert second[0]["session_id"] == "c"


async def test_a_saved_workflow_runs_without_its_drawing(client: httpx.AsyncClient) -> None:
    saved = (await client.post("/workflows", json={"name": "w", "flow_data": HELLO})).json()

    known = await client.post("/workflows/execute", json={"workflow_id": saved["id"], "input_text": "Bo"})
    unknown = await client.post("/workflows/execute", json={"workflow_id": "0" * 8 + saved["id"][8:]})

    assert frames(known.text)[-1]["result"] == "hi Bo"
    assert unknown.status_code == 404


@pytest.mark.parametrize("flow", [None, {"nodes": [], "edges": []}, drawing(node("x", "NoSuchType"))])
async def test_what_cannot_run_is_said_before_any_frame(client: httpx.AsyncClient, flow: Any) -> None:
    response = await client.post("/workflows/execute", json={"flow_data": flow})

    assert response.status_code == 400
    assert response.json()["detail"].startswith("Failed to run workflow: ")
    assert response.json()["problems"]


async def test_a_failure_names_its_node_once(client: httpx.AsyncClient) -> None:
    flow = drawing(
        node("s", "StartNode"), node("json", "Template", template="{{ input.name }}"), edge("s", "json")
    )

    told = frames((await client.post("/workflows/execute", json={"flow_data": flow, "input_text": {}})).text)

    (error,) = (each for each in told if each["type"] == "error")
    assert (error["node_id"], error["error_type"]) == ("json", "missing_value")
    assert error["timestamp"].endswith("Z")
    assert told[-1] is error


async def test_providers_light_up_and_no_secret_leaves(tmp_path: Path, dsn: str) -> None:
    async with OpenAIServer(Reply(tokens=["Hello ", "there"])) as server:
        settings = Settings(data_dir=tmp_path, api_key=KEY, outbound_allow=("127.0.0.1",), grace_seconds=1)
        flow = drawing(
            node("start", "StartNode"),
            node("model", "OpenAIChat", model_name="gpt-4o", api_key=SECRET, base_url=server.url),
            node("agent", "Agent", system_prompt="be brief"),
            edge("model", "agent", "output", "llm"),
            edge("start", "agent"),
        )
        async with serving(create_app(settings, dsn)) as client:
            response = await client.post("/workflows/execute", json={"flow_data": flow})

    told = frames(response.text)
    provider = next(each for each in told if each.get("node_id") == "model")
    assert provider["metadata"] == {"node_type": "provider", "provider_type": "OpenAIChat"}
    assert "".join(each["content"] for each in told if each["type"] == "token") == "Hello there"
    assert "model" not in told[-1]["node_outputs"]
    assert SECRET not in response.text


async def test_pressing_run_again_takes_the_place_of_a_run_that_waits(client: httpx.AsyncClient) -> None:
    ask = drawing(node("start", "StartNode"), node("ask", "HumanInput", question="ok?"), edge("start", "ask"))
    body = {"flow_data": ask, "session_id": "s"}

    first = frames((await client.post("/workflows/execute", json=body)).text)
    second = frames((await client.post("/workflows/execute", json=body)).text)

    assert first[-1]["type"] == second[-1]["type"] == "waiting"
    assert second[-1]["questions"][0]["step"] == "ask"
    old = (await client.get(f"/runs/{first[-1]['execution_id']}")).json()
    assert old["status"] == "cancelled"
