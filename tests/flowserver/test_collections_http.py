"""Collections over HTTP."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
import pytest

from flowserver.accounts import DEFAULT_ORG
from flowserver.db import Pool
from flowserver.vectors import OrgVectors
from nodes.vectors import Chunk, Embedder
from tests.embeddings import WordVectors, vector

Client = httpx.AsyncClient

NEW = {"name": "docs", "model": "words", "dimension": 64}


@pytest.fixture
async def filled(client: Client, pool: Pool) -> str:
    """The id of a collection with three documents of two chunks each."""
    chunks = [Chunk(f"chunk {n} of {doc}", {"n": n}, doc) for doc in ("a", "b", "c") for n in range(2)]
    stored = await OrgVectors(pool, DEFAULT_ORG).store("docs", chunks, Embedder("words", WordVectors(), 64))
    assert stored.collection is not None
    return str(stored.collection.id)


async def test_a_collection_is_made_read_listed_and_deleted(client: Client) -> None:
    made = await client.post("/collections", json=NEW | {"distance": "l2", "description": "d"})
    read = await client.get(f"/collections/{made.json()['id']}")
    listed = await client.get("/collections")
    named = await client.get("/collections", params={"name": "docs"})
    gone = await client.delete(f"/collections/{made.json()['id']}")

    assert made.status_code == 201
    assert made.headers["location"] == f"/api/v1/collections/{made.json()['id']}"
    assert read.json() == {**made.json(), "chunks": 0, "documents": 0}
    assert listed.json() == named.json() == {"items": [made.json()], "next": None}
    assert (made.json()["language"], made.json()["distance"]) == ("english", "l2")
    assert gone.status_code == 204
    assert (await client.get("/collections")).json()["items"] == []
    assert (await client.post("/collections", json=NEW)).status_code == 201


async def test_a_name_is_taken_once(client: Client) -> None:
    await client.post("/collections", json=NEW)

    again = await client.post("/collections", json=NEW | {"dimension": 3})

    assert (again.status_code, again.json()["type"]) == (409, "urn:flowserver:problem:conflict")
    assert "'docs' already" in again.json()["detail"]


@pytest.mark.parametrize(
    ("wrong", "status", "kind"),
    [
        ({"name": " "}, 422, "bad_name"),
        ({"name": "x" * 201}, 422, "bad_name"),
        ({"name": "nul\x00"}, 400, "bad_request"),
        ({"model": ""}, 422, "bad_name"),
        ({"description": "x" * 10_001}, 422, "bad_description"),
        ({"dimension": 0}, 422, "bad_vector"),
        ({"dimension": 10**9}, 422, "bad_vector"),
        ({"dimension": 10**30}, 422, "bad_vector"),
        ({"dimension": "many"}, 400, "bad_request"),
        ({"distance": "manhattan"}, 400, "bad_request"),
        ({"language": "klingon"}, 422, "bad_language"),
        ({"language": "english'); DROP TABLE org; --"}, 422, "bad_language"),
        ({"owner": "me"}, 400, "bad_request"),
    ],
    ids=str,
)
async def test_what_no_collection_can_be_is_refused(
    client: Client, wrong: Any, status: int, kind: str
) -> None:
    response = await client.post("/collections", json=NEW | wrong)

    assert (response.status_code, response.json()["type"]) == (status, f"urn:flowserver:problem:{kind}")
    assert (await client.get("/collections")).json()["items"] == []


async def test_lists_go_on_where_the_last_page_ended(client: Client, filled: str) -> None:
    for n in range(4):
        await client.post("/collections", json=NEW | {"name": f"c{n}"})

    for path, total in (("/collections", 5), (f"/collections/{filled}/documents", 3)):
        seen, after = [], None
        while True:
            params = {"limit": 2} | ({"cursor": after} if after else {})
            page = (await client.get(path, params=params)).json()
            seen += [each["id"] for each in page["items"]]
            if (after := page["next"]) is None:
                break
        assert len(set(seen)) == len(seen) == total


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ({"query": "chunk a"}, 6),
        ({"query": "nothing"}, 0),
        ({"vector": vector("chunk 0 of a"), "k": 1}, 1),
        ({"vector": vector("chunk 0 of a"), "query": "chunk", "filter": {"n": 1}}, 3),
        ({"vector": vector("chunk 0 of a"), "threshold": 0.999}, 1),
        ({"vector": vector("chunk 0 of a"), "diverse": True, "k": 2, "mode": "vector"}, 2),
    ],
    ids=["words", "no words", "vector", "both", "threshold", "diverse"],
)
async def test_a_collection_is_searched(client: Client, filled: str, search: Any, found: int) -> None:
    response = await client.post(f"/collections/{filled}/search", json=search)

    assert response.status_code == 200
    assert len(response.json()) == found
    for each in response.json():
        assert each.keys() == {"id", "document_id", "document", "content", "metadata", "score"}


@pytest.mark.parametrize(
    ("search", "status", "kind"),
    [
        ({"vector": [1.0]}, 422, "bad_vector"),
        ({"vector": [1e308] * 64}, 422, "bad_vector"),
        ({"query": "x", "mode": "vector"}, 422, "bad_request"),
        ({"query": "x", "k": 10**9}, 422, "bad_request"),
        ({"query": "x", "k": 0}, 422, "bad_request"),
        ({"query": "x", "filter": {"$where": "1"}}, 422, "bad_filter"),
        ({"query": "x", "filter": {"a": {"$in": list(range(1000))}}}, 422, "bad_filter"),
        ({"query": "x", "filter": []}, 400, "bad_request"),
        ({"question": "x"}, 400, "bad_request"),
    ],
    ids=str,
)
async def test_a_search_that_makes_no_sense_is_refused(
    client: Client, filled: str, search: Any, status: int, kind: str
) -> None:
    response = await client.post(f"/collections/{filled}/search", json=search)

    assert (response.status_code, response.json()["type"]) == (status, f"urn:flowserver:problem:{kind}")


async def test_deleting_a_document_deletes_its_chunks(client: Client, filled: str) -> None:
    documents = (await client.get(f"/collections/{filled}/documents")).json()["items"]
    first = next(each for each in documents if each["name"] == "a")
    path = f"/collections/{filled}/documents/{first['id']}"

    read = (await client.get(path)).json()
    deleted = await client.delete(path)

    assert first["chunks"] == 2
    assert (read["name"], sorted(each["content"] for each in read["chunks"])) == (
        "a",
        ["chunk 0 of a", "chunk 1 of a"],
    )
    assert deleted.status_code == 204
    assert [(await client.request(method, path)).status_code for method in ("GET", "DELETE")] == [404, 404]
    counted = (await client.get(f"/collections/{filled}")).json()
    assert (counted["chunks"], counted["documents"]) == (4, 2)


async def test_what_is_not_there_is_a_404(client: Client) -> None:
    for method, path, body in (
        ("GET", f"/collections/{uuid4()}", None),
        ("DELETE", f"/collections/{uuid4()}", None),
        ("POST", f"/collections/{uuid4()}/search", {}),
        ("GET", "/collections/docs", None),
    ):
        response = await client.request(method, path, json=body)
        assert (response.status_code, response.json()["type"]) == (404, "urn:flowserver:problem:not_found")
