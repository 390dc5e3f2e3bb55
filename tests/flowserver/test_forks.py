"""Forks over HTTP: again after a failure, again from a step, from a checkpoint, with other values."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from flowserver.app import create_app
from flowserver.settings import Settings
from tests.server import KEY, drawing, edge, events_of, node, serving, told
from tests.web_server import Raw, Reply, Request, WebServer

STORED = "SELECT count(*) FROM checkpoint_writes WHERE channel = 'good.out'"


@pytest.fixture
async def web() -> AsyncIterator[WebServer]:
    async with WebServer() as web:
        yield web


@pytest.fixture
async def client(tmp_path: Path, dsn: str, web: WebServer) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(data_dir=tmp_path, api_key=KEY, outbound_allow=(web.door,), grace_seconds=1)
    async with serving(create_app(settings, dsn)) as client:
        yield client


def call(web: WebServer, id: str, **more: Any) -> dict[str, Any]:
    return node(id, "HttpRequest", url=web.url(f"/{id}"), max_retries=0, **more)


def chain(web: WebServer) -> dict[str, Any]:
    """Two effects, with a text after each."""
    return drawing(
        node("start", "StartNode"),
        call(web, "first"),
        node("note", "Template", template="first said {{ first.content }}"),
        call(web, "second"),
        node("end", "Template", template="{{ note }}, second said {{ second.content }}"),
        edge("start", "first"),
        edge("first", "note"),
        edge("note", "second"),
        edge("second", "end"),
    )


async def run(client: httpx.AsyncClient, flow: dict[str, Any], **more: Any) -> dict[str, Any]:
    response = await client.post("/runs", json={"flow_data": flow, **more})
    assert response.status_code in (200, 202), response.text
    return dict(response.json())


async def forked(client: httpx.AsyncClient, run: str, **body: Any) -> dict[str, Any]:
    """A fork of `run` when it has ended."""
    response = await client.post(f"/runs/{run}/fork", json=body)
    assert response.status_code == 201, response.text
    new = response.json()
    assert response.headers["location"] == f"/api/v1/runs/{new['id']}"
    await events(client, new["id"])
    return dict((await client.get(f"/runs/{new['id']}")).json())


async def events(client: httpx.AsyncClient, run: str) -> list[dict[str, Any]]:
    return events_of((await client.get(f"/runs/{run}/events", params={"after": 0})).text)


def paths(web: WebServer) -> list[str]:
    return [request.path for request in web.requests]


async def test_a_failed_run_is_tried_again_from_where_it_failed(
    client: httpx.AsyncClient, web: WebServer
) -> None:
    web.on("/first", Reply(body=b"one"))
    web.on("/second", Reply(status=500), Reply(body=b"two"))
    failed = await run(client, chain(web))

    again = await forked(client, failed["id"])

    assert (failed["status"], again["status"]) == ("failed", "succeeded")
    assert again["output"] == "first said one, second said two"
    assert again["forked_from"] == {"run": failed["id"]}
    assert paths(web) == ["/first", "/second", "/second"]
    first, *rest = await events(client, again["id"])
    assert (first["event"], first["forked_from"]) == ("run.created", {"run": failed["id"]})
    assert set(first["kept"]) == {"start", "first", "note"}
    assert told(rest)[:2] == ["run.started", "step.started second"]


async def test_what_branches_had_done_when_another_failed_is_kept(
    client: httpx.AsyncClient, web: WebServer, dsn: str
) -> None:
    async def when_the_other_is_stored(request: Request, writer: asyncio.StreamWriter) -> None:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
            while not (await (await conn.execute(STORED)).fetchone() or (0,))[0]:
                await asyncio.sleep(0.02)
        writer.write(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    web.on("/good", Reply(body=b"good"))
    web.on("/bad", Raw(when_the_other_is_stored), Reply(body=b"fine"))
    flow = drawing(
        node("start", "StartNode"),
        call(web, "good"),
        call(web, "bad"),
        node("end", "Template", template="{{ good.content }} {{ bad.content }}"),
        edge("start", "good"),
        edge("start", "bad"),
        edge("good", "end"),
        edge("bad", "end"),
    )
    failed = await run(client, flow, durability="sync")

    again = await forked(client, failed["id"])

    assert (failed["status"], again["output"]) == ("failed", "good fine")
    assert sorted(paths(web)) == ["/bad", "/bad", "/good"]


async def test_a_step_is_run_again_with_all_that_comes_after_it(
    client: httpx.AsyncClient, web: WebServer
) -> None:
    web.on("/first", Reply(body=b"one"), Reply(body=b"1"))
    web.on("/second", Reply(body=b"two"), Reply(body=b"2"))
    before = await run(client, chain(web))

    late = await forked(client, before["id"], step="second")
    early = await forked(client, before["id"], step="first")

    assert before["output"] == "first said one, second said two"
    assert late["output"] == "first said one, second said 2"
    assert late["forked_from"] == {"run": before["id"], "step": "second"}
    assert early["output"] == "first said 1, second said 2"
    assert paths(web) == ["/first", "/second", "/second", "/first", "/second"]


async def test_a_run_goes_back_to_a_checkpoint(client: httpx.AsyncClient, web: WebServer) -> None:
    web.on("/first", Reply(body=b"one"))
    web.on("/second", Reply(body=b"two"), Reply(body=b"2"))
    before = await run(client, chain(web), durability="sync")

    found = (await client.get(f"/runs/{before['id']}/checkpoints")).json()
    after_first = next(each for each in found["items"] if "first" in each["changed"])
    again = await forked(client, before["id"], checkpoint=after_first["id"])

    assert found["next"] is None
    assert [each["superstep"] for each in found["items"]] == list(range(-1, len(found["items"]) - 1))
    assert [step for each in found["items"] for step in each["changed"]] == [
        "start",
        "first",
        "note",
        "second",
        "end",
    ]
    assert again["output"] == "first said one, second said 2"
    assert again["forked_from"] == {"run": before["id"], "checkpoint": after_first["id"]}
    assert paths(web) == ["/first", "/second", "/second"]


async def test_checkpoints_come_in_pages(client: httpx.AsyncClient, web: WebServer) -> None:
    web.on("/first", Reply())
    web.on("/second", Reply())
    id = (await run(client, chain(web), durability="sync"))["id"]
    whole = (await client.get(f"/runs/{id}/checkpoints")).json()["items"]

    found, cursor = [], None
    while True:
        page = (
            await client.get(
                f"/runs/{id}/checkpoints", params={"limit": 1, **({"cursor": cursor} if cursor else {})}
            )
        ).json()
        found += page["items"]
        if (cursor := page["next"]) is None:
            break

    assert found == whole
    assert len(whole) > 2


async def test_a_value_is_changed_and_what_follows_runs_again(
    client: httpx.AsyncClient, web: WebServer
) -> None:
    web.on("/first", Reply(body=b"one"))
    web.on("/second", Reply(body=b"two"), Reply(body=b"2"))
    before = await run(client, chain(web))

    changed = await forked(client, before["id"], set={"note": {"text": "never mind"}})

    assert changed["output"] == "never mind, second said 2"
    assert paths(web) == ["/first", "/second", "/second"]


async def test_a_failed_step_is_given_a_value_instead(client: httpx.AsyncClient, web: WebServer) -> None:
    web.on("/first", Reply(body=b"one"))
    web.on("/second", Reply(status=500))
    failed = await run(client, chain(web))

    given = await forked(client, failed["id"], set={"second": {"content": "nothing much"}})

    assert given["output"] == "first said one, second said nothing much"
    assert paths(web) == ["/first", "/second"]


def routed() -> dict[str, Any]:
    return drawing(
        node("start", "StartNode"),
        node("if", "ConditionNode", value1="{{ input }}", value2="yes"),
        node("a", "Template", template="yes it is"),
        node("b", "Template", template="no it is not"),
        edge("start", "if"),
        edge("if", "a", "true"),
        edge("if", "b", "false"),
    )


async def test_a_router_is_made_to_choose_the_other_way(client: httpx.AsyncClient) -> None:
    before = await run(client, routed(), input="no")

    other = await forked(client, before["id"], routes={"if": "true"})

    assert (before["output"], other["output"]) == ("no it is not", "yes it is")


async def test_another_input_runs_everything_again_from_the_start(client: httpx.AsyncClient) -> None:
    before = await run(client, routed(), input="no")

    other = await forked(client, before["id"], step="start", input="yes")

    assert other["input"] == "yes"
    assert other["output"] == "yes it is"


def counting() -> dict[str, Any]:
    """A loop that counts to three, in a variable."""
    flow = drawing(
        node("start", "StartNode"),
        node("count", "SetVariable", variable="n", value=1, max_rounds=5),
        node("done", "ConditionNode", value1="{{ vars.n }}", value2="3"),
        node("end", "Template", template="counted {{ vars.n }}"),
        edge("start", "count"),
        edge("count", "done"),
        edge("done", "count", "false"),
        edge("done", "end", "true"),
    )
    return {**flow, "settings": {"variables": {"n": {"initial": 0, "reducer": "add"}}}}


async def test_a_loop_is_run_again_as_a_whole_from_its_first_step_and_in_its_last_round_from_another(
    client: httpx.AsyncClient,
) -> None:
    before = await run(client, counting(), durability="sync")

    whole = await forked(client, before["id"], step="count")
    last = await forked(client, before["id"], step="done")

    assert before["output"] == whole["output"] == last["output"] == "counted 3"
    rounds = [
        each["within"][0]["round"]
        for each in await events(client, whole["id"])
        if each["event"] == "step.started" and each["step"] == "count"
    ]
    assert rounds == [1, 2, 3]
    again = [each for each in await events(client, last["id"]) if each["event"] == "step.started"]
    assert [each["step"] for each in again] == ["done", "end"]
    assert again[0]["within"] == [{"step": "count", "round": 3}]


async def test_a_run_that_waits_can_be_forked_and_asks_anew(client: httpx.AsyncClient) -> None:
    flow = drawing(
        node("start", "StartNode"),
        node("ask", "HumanInput", question="ok?"),
        node("end", "Template", template="said {{ ask.answer }}"),
        edge("start", "ask"),
        edge("ask", "end"),
    )
    waiting = await run(client, flow)

    response = await client.post(f"/runs/{waiting['id']}/fork", json={})
    other = response.json()["id"]
    await events(client, other)
    asked = (await client.get(f"/runs/{other}")).json()
    await client.post(f"/runs/{other}/resume", json={"answer": "fine"})
    await client.get(f"/runs/{other}/events", params={"after": asked["last_seq"]})

    assert asked["status"] == "waiting"
    assert asked["questions"][0]["id"] != waiting["questions"][0]["id"]
    assert (await client.get(f"/runs/{other}")).json()["output"] == "said fine"
    assert (await client.get(f"/runs/{waiting['id']}")).json()["status"] == "waiting"


async def test_a_mended_workflow_goes_on_with_what_the_broken_one_had_done(
    client: httpx.AsyncClient, web: WebServer
) -> None:
    web.on("/first", Reply(body=b"one"))
    web.on("/second", Reply(status=500))
    web.on("/better", Reply(body=b"two"))
    saved = (await client.post("/workflows", json={"name": "w", "flow_data": chain(web)})).json()
    failed = (await client.post(f"/workflows/{saved['id']}/runs", json={})).json()
    mended = chain(web)
    mended["nodes"][3]["data"]["url"] = web.url("/better")
    await client.put(f"/workflows/{saved['id']}", json={"flow_data": mended})

    again = await forked(client, failed["id"], version="current")

    assert again["output"] == "first said one, second said two"
    assert again["version"] != failed["version"]
    assert paths(web) == ["/first", "/second", "/better"]


async def test_a_large_value_is_taken_over(client: httpx.AsyncClient, web: WebServer) -> None:
    web.on("/first", Reply(body=b"x" * 100_000))
    web.on("/second", Reply(status=500), Reply(body=b"two"))
    failed = await run(client, chain(web))

    again = await forked(client, failed["id"])

    assert again["output"] == f"first said {'x' * 100_000}, second said two"
    assert paths(web) == ["/first", "/second", "/second"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"step": "frist"}, 422, "there is no step 'frist'"),
        ({"checkpoint": "1f0"}, 404, "there is no checkpoint of this run 1f0"),
        ({"set": {"note": {"txt": 1}}}, 422, "'note' has no output 'txt'; it has: text"),
        ({"routes": {"note": "true"}}, 422, "'note' has no route 'true'; it has: none: it is no router"),
        ({"version": "current"}, 422, "is not one of a saved workflow"),
        ({"steps": ["note"]}, 400, "unknown field"),
    ],
)
async def test_a_fork_that_cannot_begin_is_refused_in_words(
    client: httpx.AsyncClient, web: WebServer, body: dict[str, Any], status: int, words: str
) -> None:
    web.on("/first", Reply())
    web.on("/second", Reply())
    before = await run(client, chain(web))

    refused = await client.post(f"/runs/{before['id']}/fork", json=body)

    assert refused.status_code == status
    assert words in refused.json()["detail"]
    assert len((await client.get("/runs")).json()["items"]) == 1
