"""Refusals that name what is allowed: query parameters, fields, values of enumerations, methods, sizes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from flowserver.app import create_app
from flowserver.settings import Settings
from tests.server import KEY, drawing, node, serving

NOBODY = "00000000-0000-7000-8000-00000000abcd"
FLOW = drawing(node("start", "StartNode"))


async def detail(client: httpx.AsyncClient, status: int, method: str, path: str, **more: Any) -> str:
    answer = await client.request(method, path, **more)
    assert answer.status_code == status, answer.text
    return str(answer.json()["detail"])


QUERIES = (
    (
        "/runs?sesion_id=ada",
        "did you mean 'session_id'? allowed: workflow_id, status, session_id, limit, cursor",
    ),
    ("/runs?limt=3", "did you mean 'limit'?"),
    (f"/runs/{NOBODY}?verbose=1", "'verbose' here; none is allowed"),
    (f"/runs/{NOBODY}/events?from=3", "allowed: after, limit"),
    ("/workflows?title=x", "allowed: name, limit, cursor, skip"),
    ("/workflows?name=a&name=b", "'name' more than once"),
    ("/workflows?name=a%00b", "'name' in the query holds U+0000"),
    ("/credentials?name=%00", "'name' in the query holds U+0000"),
    ("/workflows?name=%FF", "not UTF-8"),
    ("/runs?status=done", "status: Invalid enum value 'done'; allowed: cancelled, failed, queued, running, "),
    (f"/workflows/{NOBODY}/picture?format=sgv", "did you mean 'svg'? allowed: mermaid, svg"),
)


async def test_a_query_that_is_not_understood_is_refused(client: httpx.AsyncClient) -> None:
    for path, expected in QUERIES:
        assert expected in await detail(client, 400, "GET", path)


async def test_a_misspelt_parameter_starts_nothing(client: httpx.AsyncClient) -> None:
    wrong = await detail(client, 400, "POST", "/runs?time_out=3", json={"flow_data": FLOW})

    assert "did you mean 'timeout'?" in wrong
    assert (await client.get("/runs")).json()["items"] == []


RUN = {"flow_data": FLOW}
METHODS = {"methods": ["GTE"]}
BODIES: tuple[tuple[str, str, Any, str], ...] = (
    ("POST", "/runs", {**RUN, "inputs": 1}, "`inputs`; did you mean 'input'? allowed: input, session_id, "),
    ("POST", "/runs", {**RUN, "limits": {"step": 1}}, "did you mean 'steps'? allowed: steps, seconds, "),
    (
        "POST",
        "/runs",
        {**RUN, "callback": {"to": "x"}},
        "callback: Object contains unknown field `to`; allowed: ",
    ),
    ("POST", "/runs", {**RUN, "mode": "strem"}, "did you mean 'stream'? allowed: background, stream, wait"),
    ("POST", "/runs", {**RUN, "on_busy": "x"}, "allowed: enqueue, interrupt, reject, rollback"),
    (
        "POST",
        "/webhooks",
        {"workflow_id": NOBODY, "hook": METHODS},
        "did you mean 'GET'? allowed: DELETE, GET, ",
    ),
    ("PATCH", f"/webhooks/{NOBODY}", {"enabled": True}, "did you mean 'is_enabled'? allowed: "),
    ("POST", f"/workflows/{NOBODY}/publish", {"ver": "x"}, "did you mean 'version'? allowed: version"),
    ("POST", "/workflows", {**RUN, "name": "a", "description": "\x00"}, "'description' holds U+0000"),
)


async def test_a_body_that_is_not_understood_is_refused(client: httpx.AsyncClient) -> None:
    for method, path, body, expected in BODIES:
        assert expected in await detail(client, 400, method, path, json=body)


async def test_a_method_that_is_not_allowed_is_told_which_are(client: httpx.AsyncClient) -> None:
    assert await detail(client, 405, "PUT", "/runs") == "PUT is not allowed here; allowed: GET, POST"
    assert (await detail(client, 405, "POST", f"/workflows/{NOBODY}")).endswith("allowed: DELETE, GET, PUT")


@pytest.fixture
async def small(tmp_path: Path, dsn: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that takes little."""
    settings = Settings(data_dir=tmp_path, api_key=KEY, max_body_bytes=2000, max_upload_mb=0.001)
    async with serving(create_app(settings, dsn)) as client:
        yield client


async def test_a_body_that_is_too_large_is_told_the_setting(small: httpx.AsyncClient) -> None:
    body = await detail(small, 413, "POST", "/runs", json={"flow_data": FLOW, "input": "x" * 2000})
    upload = await detail(small, 413, "POST", "/files", files={"file": ("a.txt", b"x" * 1001, "text/plain")})
    form = await detail(small, 413, "POST", "/files", files={"file": ("a.txt", b"x" * 200_000, "text/plain")})

    assert body == "the body may have 2,000 bytes (FLOWSERVER_MAX_BODY_BYTES)"
    assert upload == form == "a file may have 1,000 bytes (FLOWSERVER_MAX_UPLOAD_MB)"


async def test_a_body_of_a_webhook_that_is_too_large_is_told_the_setting(client: httpx.AsyncClient) -> None:
    flow_data = drawing(node("hook", "WebhookTrigger", path="small", http_method="POST", max_payload_size=1))
    saved = (await client.post("/workflows", json={"name": "w", "flow_data": flow_data})).json()
    assert (await client.post(f"/workflows/{saved['id']}/publish", json={})).status_code == 200
    url = str(client.base_url.copy_with(path="/hooks/small"))

    assert await detail(client, 413, "POST", url, content=b"x" * 2000) == (
        "the body may have 1,024 bytes (the webhook's max_body_kb)"
    )


async def test_editors_count_pages_of_workflows_by_skip(client: httpx.AsyncClient) -> None:
    for name in ("one", "two", "three"):
        await client.post("/workflows", json={"name": name, "flow_data": FLOW})

    page = (await client.get("/workflows?skip=1&limit=100")).json()["items"]

    assert [each["name"] for each in page] == ["two", "one"]
