"""Secrets that somebody has typed into a drawing: they are in no row, no answer and no event."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import psycopg
import pytest
from psycopg import sql

from flowserver.app import create_app
from flowserver.drawings import COPIED, SEALED
from flowserver.settings import Settings
from graphs.config import spellings
from nodes.registry import discover
from tests.openai_server import OpenAIServer, Reply
from tests.server import drawing, edge, node, serving
from tests.strangers import stranger

Client = httpx.AsyncClient
CANARY = "CNRY-9d1e77"
WITH_SECRETS = {
    name: spellings(each, secret=True)
    for name, each in discover().types.items()
    if spellings(each, secret=True)
}


@pytest.fixture
async def openai() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as server:
        yield server


@pytest.fixture
async def client(settings: Settings, dsn: str, openai: OpenAIServer) -> AsyncIterator[Client]:
    allowed = msgspec.structs.replace(settings, outbound_allow=("127.0.0.1",))
    async with serving(create_app(allowed, dsn)) as client:
        yield client


async def everything(dsn: str) -> str:
    """All that is in the database, as text."""
    found = []
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        for (table,) in await (await conn.execute(query)).fetchall():
            rows = await conn.execute(sql.SQL("SELECT t::text FROM {} AS t").format(sql.Identifier(table)))
            found += [row[0] for row in await rows.fetchall()]
    return "\n".join(found)


def chat(openai: OpenAIServer, key: str = CANARY) -> dict[str, Any]:
    return drawing(
        node("start", "StartNode"),
        node("model", "OpenAIChat", base_url=openai.url, api_key=key, tavily_api_key=key),
        node("agent", "Agent"),
        node("end", "EndNode"),
        edge("start", "agent", None, "input"),
        edge("model", "agent", None, "llm"),
        edge("agent", "end"),
    )


async def test_mt_07_defect_11_no_node_types_secret_is_kept_or_told_in_the_open(
    client: Client, dsn: str
) -> None:
    parts = [
        node(f"{name}-1", name, **{key: CANARY for key in {*keys, *COPIED}})
        for name, keys in WITH_SECRETS.items()
    ]
    flow = drawing(node("start", "StartNode"), *parts, node("odd", "Nobody", password=CANARY))

    saved = (await client.post("/workflows", json={"name": "w", "flow_data": flow})).json()
    read = await client.get(f"/workflows/{saved['id']}")
    checked = await client.post("/workflows/check", json={"flow_data": flow})
    again = await client.put(f"/workflows/{saved['id']}", json={"flow_data": read.json()["flow_data"]})
    refused = await client.post(f"/workflows/{saved['id']}/runs", json={})

    assert len(WITH_SECRETS) >= 8
    told = [msgspec.json.encode(saved).decode(), read.text, checked.text, again.text, refused.text]
    assert CANARY not in "".join([*told, await everything(dsn)])
    assert again.json()["version"] == saved["version"]
    for part in read.json()["flow_data"]["nodes"][1:]:
        assert all(value.startswith(SEALED) for value in part["data"].values())


async def test_mt_07_a_sealed_secret_is_used_and_is_in_nothing_that_a_run_leaves(
    client: Client, dsn: str, openai: OpenAIServer
) -> None:
    openai.reply(Reply(tokens=["hi"]), Reply(tokens=["hi"]), Reply(tokens=["hi"]))

    saved = (await client.post("/workflows", json={"name": "w", "flow_data": chat(openai)})).json()
    first = (await client.post(f"/workflows/{saved['id']}/runs", json={"input": "a"})).json()
    await client.put(f"/workflows/{saved['id']}", json={"flow_data": saved["flow_data"]})
    second = (await client.post(f"/workflows/{saved['id']}/runs", json={"input": "b"})).json()
    unsaved = (await client.post("/runs", json={"flow_data": chat(openai), "input": "c"})).json()
    events = [(await client.get(f"/runs/{run['id']}/events")).text for run in (first, second, unsaved)]

    assert [run["output"] for run in (first, second, unsaved)] == ["hi"] * 3
    assert {request.headers["authorization"] for request in openai.requests} == {f"Bearer {CANARY}"}
    assert len({run["version"] for run in (first, second, unsaved)}) == 1
    assert CANARY not in "".join([*events, str(first), await everything(dsn)])


async def test_a_drawing_without_a_secret_comes_back_as_it_was_sent(
    client: Client, openai: OpenAIServer
) -> None:
    flow = chat(openai, "{{ vars.key }}") | {
        "settings": {"variables": {"key": {"initial": "x"}}},
        "viewport": {"x": 1},
    }

    saved = (await client.post("/workflows", json={"name": "w", "flow_data": flow})).json()

    assert saved["flow_data"] == flow


async def test_what_was_sealed_for_one_organisation_opens_nothing_for_another(
    client: Client, dsn: str, openai: OpenAIServer
) -> None:
    saved = (await client.post("/workflows", json={"name": "w", "flow_data": chat(openai)})).json()
    theirs = await stranger(dsn)

    await client.post("/runs", json={"flow_data": saved["flow_data"], "input": "a"}, headers=theirs)

    assert CANARY not in str([dict(request.headers) for request in openai.requests])


async def test_a_workflow_that_runs_another_keeps_that_ones_secrets_sealed(
    client: Client, dsn: str, openai: OpenAIServer
) -> None:
    openai.reply(Reply(tokens=["hi"]))
    await client.post("/workflows", json={"name": "inner", "flow_data": chat(openai)})
    outer = drawing(
        node("start", "StartNode"), node("sub", "Subflow", workflow="inner"), edge("start", "sub")
    )
    saved = (await client.post("/workflows", json={"name": "outer", "flow_data": outer})).json()

    run = (await client.post(f"/workflows/{saved['id']}/runs", json={"input": "a"})).json()

    assert run["output"] == "hi"
    assert CANARY not in await everything(dsn)


async def test_where_other_processes_may_lack_the_key_drawings_stay_as_they_are(
    settings: Settings, dsn: str, openai: OpenAIServer
) -> None:
    elsewhere = msgspec.structs.replace(settings, database_url=dsn)
    async with serving(create_app(elsewhere, dsn)) as client:
        saved = (await client.post("/workflows", json={"name": "w", "flow_data": chat(openai)})).json()

    assert saved["flow_data"] == chat(openai)
