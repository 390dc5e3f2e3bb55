"""`Idempotency-Key`: whose it is, for which request, and for how long."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from flowserver.db import make_pool
from flowserver.retention import prune
from tests.faults.checks import rows
from tests.server import drawing, edge, node
from tests.strangers import stranger

Client = httpx.AsyncClient
ECHO = drawing(node("start", "StartNode"), node("end", "EndNode"), edge("start", "end"))


async def start(client: Client, key: str, path: str = "/runs", **more: Any) -> httpx.Response:
    body = {"input": 1} | ({"flow_data": ECHO} if path == "/runs" else {})
    headers = {"Idempotency-Key": key, **more.pop("headers", {})}
    return await client.post(path, json=body | more, headers=headers)


async def test_mt_13_a_key_is_its_organisations_and_its_requests(client: Client, dsn: str) -> None:
    saved = (await client.post("/workflows", json={"name": "w", "flow_data": ECHO})).json()
    other = await stranger(dsn)

    first = await start(client, "k")
    again = await start(client, "k")
    elsewhere = await start(client, "k", f"/workflows/{saved['id']}/runs")
    strangers = await start(client, "k", headers=other)
    changed = await start(client, "k", input=2)

    assert (again.json()["id"], again.headers["idempotency-replayed"]) == (first.json()["id"], "true")
    assert len({each.json()["id"] for each in (first, elsewhere, strangers)}) == 3
    assert "idempotency-replayed" not in elsewhere.headers
    assert "idempotency-replayed" not in strangers.headers
    assert (changed.status_code, changed.json()["type"]) == (
        422,
        "urn:flowserver:problem:idempotency_key_reused",
    )


@pytest.mark.parametrize("key", ["x" * 256, "x" * 300, "", "a\tb"])
async def test_mt_13_a_key_that_cannot_be_kept_is_refused(client: Client, key: str) -> None:
    refused = await start(client, key)

    assert refused.status_code == 422
    assert "1 to 255 printable characters" in refused.json()["detail"]
    assert (await client.get("/runs")).json()["items"] == []


async def test_mt_13_after_a_day_a_key_may_be_used_again(client: Client, dsn: str) -> None:
    first = await start(client, "k")
    await rows(dsn, "UPDATE idempotency SET created_at = now() - interval '23 hours' RETURNING key")
    async with make_pool(dsn) as pool:
        await prune(pool)
        kept = await start(client, "k")
        await rows(dsn, "UPDATE idempotency SET created_at = now() - interval '25 hours' RETURNING key")
        await prune(pool)
    another = await start(client, "k", input=2)

    assert kept.json()["id"] == first.json()["id"]
    assert (another.status_code, another.json()["output"]) == (200, 2)
