"""What is due is forgotten, and nothing else: events, checkpoints, runs, keys."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, LiteralString

import httpx
import pytest

from flowserver.app import create_app
from flowserver.db import Pool, make_pool
from flowserver.retention import BATCH, prune
from flowserver.settings import Settings
from tests.server import drawing, edge, node, serving

SOON = 1e-9
"""Days: less than a millisecond."""


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[Pool]:
    async with make_pool(dsn) as pool:
        yield pool


@pytest.fixture
async def client(settings: Settings, dsn: str) -> AsyncIterator[httpx.AsyncClient]:
    """A server that forgets nothing by itself: a worker may do so at any moment."""
    async with serving(create_app(settings, dsn, role="own")) as client:
        yield client


def hello(**days: float) -> dict[str, Any]:
    flow = drawing(
        node("start", "StartNode"), node("end", "Template", template="hi {{ input }}"), edge("start", "end")
    )
    return {**flow, "settings": {"retention": days}}


def counting() -> dict[str, Any]:
    """Counts the turns of a session."""
    flow = drawing(
        node("start", "StartNode"),
        node("count", "SetVariable", variable="n", value=1),
        node("end", "Template", template="turn {{ vars.n }}"),
        edge("start", "count"),
        edge("count", "end"),
    )
    variables = {"n": {"initial": 0, "reducer": "add", "persistent": True}}
    return {**flow, "settings": {"variables": variables, "retention": {"checkpoints": SOON}}}


async def run(client: httpx.AsyncClient, flow: dict[str, Any], **more: Any) -> dict[str, Any]:
    response = await client.post("/runs", json={"flow_data": flow, **more})
    assert response.status_code in (200, 202), response.text
    return dict(response.json())


async def count(pool: Pool, query: LiteralString) -> int:
    async with pool.connection() as conn:
        row = await (await conn.execute(query)).fetchone()
    return next(iter(row.values())) if row else 0


CHECKPOINTS: LiteralString = (
    "SELECT (SELECT count(*) FROM checkpoints) + (SELECT count(*) FROM checkpoint_blobs)"
    " + (SELECT count(*) FROM checkpoint_writes)"
)


async def test_flt_54_events_that_are_no_longer_kept_are_gone_and_the_result_is_not(
    client: httpx.AsyncClient, pool: Pool
) -> None:
    short = await run(client, hello(events=SOON), input="a")
    long = await run(client, hello(events=1), input="b")

    done = await prune(pool)

    assert done == {"events": 1, "checkpoints": 0, "runs": 0, "keys": 0}
    gone = await client.get(f"/runs/{short['id']}/events")
    assert gone.status_code == 410
    assert gone.json()["detail"] == (
        f"the events of run {short['id']} are no longer kept; its result is at /api/v1/runs/{short['id']}"
    )
    found = (await client.get(f"/runs/{short['id']}")).json()
    assert (found["output"], found["events_forgotten"]) == ("hi a", True)
    assert (await client.get(f"/runs/{long['id']}/events")).status_code == 200


async def test_checkpoints_that_are_no_longer_kept_are_gone_with_all_that_belongs_to_them(
    client: httpx.AsyncClient, pool: Pool
) -> None:
    id = (await run(client, hello(checkpoints=SOON), durability="sync"))["id"]
    before = (await client.get(f"/runs/{id}/checkpoints")).json()["items"]

    await prune(pool)

    assert len(before) > 1
    assert (await client.get(f"/runs/{id}/checkpoints")).json()["items"] == []
    assert await count(pool, CHECKPOINTS) == 0


async def test_a_run_that_is_no_longer_kept_leaves_nothing(client: httpx.AsyncClient, pool: Pool) -> None:
    id = (await run(client, hello(runs=SOON), durability="sync"))["id"]

    await prune(pool)

    assert (await client.get(f"/runs/{id}")).status_code == 404
    assert await count(pool, CHECKPOINTS) == 0
    assert await count(pool, "SELECT count(*) FROM run_event") == 0


async def test_a_session_goes_on_from_its_newest_state(client: httpx.AsyncClient, pool: Pool) -> None:
    for _ in range(3):
        await run(client, counting(), session_id="s", durability="sync")
    before = await count(pool, CHECKPOINTS)

    await prune(pool)

    after = await count(pool, CHECKPOINTS)
    assert (await run(client, counting(), session_id="s"))["output"] == "turn 4"
    assert 0 < after < before / 2


async def test_a_run_that_is_open_is_never_due(client: httpx.AsyncClient, pool: Pool) -> None:
    ask = node("ask", "HumanInput", question="ok?")
    flow = drawing(node("start", "StartNode"), ask, edge("start", "ask"))
    days = {"runs": SOON, "events": SOON, "checkpoints": SOON}
    waiting = await run(client, {**flow, "settings": {"retention": days}})

    nothing = await prune(pool)
    await client.post(f"/runs/{waiting['id']}/resume", json={"answer": "yes"})
    await client.get(f"/runs/{waiting['id']}/events", params={"after": waiting["last_seq"]})
    done = await prune(pool)

    assert not any(nothing.values())
    assert done["runs"] == 1


async def test_more_than_one_batch_is_dealt_with(client: httpx.AsyncClient, pool: Pool) -> None:
    await run(client, hello(events=SOON))
    async with pool.connection() as conn:
        await conn.execute(
            "INSERT INTO run (id, org_id, version, thread_id, trigger, status, forget_events_at)"
            " SELECT gen_random_uuid(), org_id, version, 'x', trigger, 'failed', now()"
            "   FROM run, generate_series(1, %s)",
            (2 * BATCH + 5,),
        )

    assert (await prune(pool))["events"] == 2 * BATCH + 6


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"runs": 0}, "'retention' at runs is 0; allowed is a number above 0"),
        ({"run": 1}, "'retention' at run means nothing; there can be: runs, events, checkpoints"),
    ],
)
async def test_days_that_cannot_be_are_a_problem(
    client: httpx.AsyncClient, given: dict[str, Any], words: str
) -> None:
    problems = (await client.post("/workflows/check", json={"flow_data": hello(**given)})).json()["problems"]

    assert [problem["code"] for problem in problems] == ["bad_settings"]
    assert words in problems[0]["message"]
