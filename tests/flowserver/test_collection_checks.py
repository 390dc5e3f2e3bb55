"""That a collection has vectors of another model is told when a drawing is checked."""

from __future__ import annotations

from typing import Any

import httpx
import psycopg
import pytest

from tests.server import drawing, edge, node

Client = httpx.AsyncClient


@pytest.fixture(autouse=True)
async def docs(client: Client) -> None:
    given = {"name": "docs", "model": "text-embedding-3-small", "dimension": 1536}
    assert (await client.post("/collections", json=given)).status_code == 201


def embedder(id: str = "e", **data: Any) -> dict[str, Any]:
    return node(id, "OpenAIEmbeddingsProvider", **data)


def user(type: str, id: str = "n", by: str = "e", **data: Any) -> tuple[dict[str, Any], ...]:
    return node(id, type, **{"collection_name": "docs"} | data), edge(by, id, None, "embedder")


def retriever(**data: Any) -> tuple[dict[str, Any], ...]:
    return (
        *user("RetrieverProvider", **data),
        node("m", "OpenAIChat"),
        node("a", "Agent"),
        edge("m", "a", "llm", "llm"),
        edge("n", "a", None, "tools"),
    )


async def problems(client: Client, *parts: Any) -> list[str]:
    checked = (await client.post("/workflows/check", json={"flow_data": drawing(*parts)})).json()
    wrong = any(each["severity"] == "error" for each in checked["problems"])
    assert (checked["plan"] is None) == wrong
    return [f"{each['code']} {each['where']} {each['pointer']}" for each in checked["problems"]]


@pytest.mark.parametrize(
    ("model", "parts", "found"),
    [
        ({}, user("Search"), []),
        ({}, user("VectorStoreOrchestrator"), []),
        ({"model": "text-embedding-3-large"}, user("Search"), ["model_mismatch n /nodes/1/data"]),
        ({"dimensions": 256}, user("Search"), ["model_mismatch n /nodes/1/data"]),
        ({"model": "other"}, user("VectorStoreOrchestrator"), ["model_mismatch n /nodes/1/data"]),
        ({"model": "other"}, retriever(), ["model_mismatch n /nodes/1/data"]),
        ({"model": "other"}, retriever(mode="keyword"), []),
        ({"model": "other"}, user("VectorStoreOrchestrator", pre_delete_collection=True), []),
        ({"model": "{{ input }}"}, user("Search"), []),
        ({"model": "other"}, user("Search", collection_name="{{ input }}"), []),
        (
            {},
            user("VectorStoreOrchestrator", search_algorithm="euclidean"),
            ["distance_mismatch n /nodes/1/data"],
        ),
        ({}, user("Search", collection_name="nowhere"), ["no_collection n /nodes/1/data"]),
        ({}, user("VectorStoreOrchestrator", collection_name="new"), []),
        ({}, user("Search", collection_name="nul\x00"), ["no_collection n /nodes/1/data"]),
        (
            {},
            user("VectorStoreOrchestrator", connection_string="postgresql://u:p@h/d"),
            ["unused_config n /nodes/1/data"],
        ),
        ({}, retriever(credential_id="of-a-database"), ["unused_config n /nodes/1/data"]),
    ],
    ids=[
        "search",
        "store",
        "another model",
        "other dimensions",
        "store by another",
        "retriever",
        "by words",
        "anew",
        "model of a run",
        "collection of a run",
        "distance",
        "no collection",
        "new collection",
        "no name",
        "elsewhere",
        "a credential",
    ],
)
async def test_what_does_not_fit_a_collection_is_told(
    client: Client, model: Any, parts: Any, found: list[str]
) -> None:
    assert await problems(client, embedder(**model), *parts) == found


async def test_two_nodes_must_agree_about_a_collection_that_is_not_there_yet(client: Client) -> None:
    parts = (
        embedder(),
        embedder("f", model="text-embedding-3-large"),
        *user("Search", "s", "f", collection_name="new"),
        *user("VectorStoreOrchestrator", "v", "e", collection_name="new"),
        edge("v", "s"),
    )

    assert await problems(client, *parts) == ["model_mismatch s /nodes/2/data"]


async def test_another_organisations_collection_means_nothing(client: Client, dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        await conn.execute("INSERT INTO org (id, name) VALUES (gen_random_uuid(), 'x')")
        await conn.execute("UPDATE collection SET org_id = (SELECT id FROM org WHERE name = 'x')")

    assert await problems(client, embedder(model="other"), *user("VectorStoreOrchestrator")) == []


async def test_a_saved_workflow_tells_it_too(client: Client) -> None:
    flow = drawing(embedder(model="other"), *user("Search"))

    saved = (await client.post("/workflows", json={"name": "w", "flow_data": flow})).json()

    assert [each["code"] for each in saved["problems"]] == ["model_mismatch"]
