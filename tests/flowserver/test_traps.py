"""What the framework would get wrong by itself: deep JSON, bad UTF-8, other content types, unknown fields."""

from __future__ import annotations

import httpx
import pytest

Client = httpx.AsyncClient

JSON = {"Content-Type": "application/json"}
CALLS = ["/workflows", "/workflows/check", "/runs", "/collections"]


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"flow_data": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001,
        b'{"name": "\xff\xfe", "flow_data": {}}',
        b'{"name": "\\ud800", "flow_data": {}}',
        b"{",
        b"",
        b"null",
        b"[]",
        b'{"flow_data": 1}',
        b'{"name": "x", "flow_data": {"nodes": []}, "org_id": "x"}',
    ],
    ids=[
        "deep list",
        "deep object",
        "bad utf-8",
        "surrogate",
        "cut",
        "empty",
        "null",
        "list",
        "number",
        "unknown",
    ],
)
async def test_a_body_that_does_not_fit_is_a_4xx_with_a_reason(
    client: Client, path: str, body: bytes
) -> None:
    response = await client.post(path, content=body, headers=JSON)

    assert 400 <= response.status_code < 500
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"].startswith("urn:flowserver:problem:")
    assert problem["status"] == response.status_code
    assert problem["detail"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_only_json_is_taken(client: Client, kind: str) -> None:
    response = await client.post(
        "/workflows", content=b'{"name": "x", "flow_data": {"nodes": []}}', headers={"Content-Type": kind}
    )

    assert response.status_code == 415
    assert (await client.get("/workflows")).json()["items"] == []


async def test_an_unknown_field_is_named(client: Client) -> None:
    response = await client.post("/runs", json={"flow_data": {"nodes": []}, "flow": 1})

    assert response.status_code == 400
    assert "`flow`" in response.json()["detail"]


async def test_a_body_that_is_too_large_is_refused(client: Client) -> None:
    response = await client.post("/runs", content=b" " * 10_000_001, headers=JSON)

    assert response.status_code == 413


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"X-API-Key": "x" * 5000}])
@pytest.mark.parametrize("path", ["/workflows", "/runs", "/nothing"])
async def test_without_a_good_key_nothing_is_told(client: Client, path: str, headers: dict[str, str]) -> None:
    del client.headers["Authorization"]

    response = await client.post(path, content=b"[" * 1000, headers=headers)

    assert response.status_code in (401, 404)
    if path != "/nothing":
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"


async def test_the_key_is_taken_from_either_header(client: Client) -> None:
    key = client.headers.pop("Authorization").removeprefix("Bearer ")

    assert (await client.get("/runs", headers={"X-API-Key": key})).status_code == 200


async def test_health_and_schema_need_no_key(client: Client) -> None:
    del client.headers["Authorization"]
    root = client.base_url.join("/")

    assert (await client.get(root.join("health/live"))).json() == {"status": "live"}
    assert (await client.get(root.join("health/ready"))).json() == {"status": "ready"}
    schema = (await client.get(root.join("schema/openapi.json"))).json()
    assert "/api/v1/runs/{id}/resume" in schema["paths"]
