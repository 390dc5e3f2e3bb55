"""What clients send twice is done once, whichever server they send it to and whatever dies in between."""

from __future__ import annotations

import asyncio
import json
from itertools import cycle
from typing import Any

import httpx
import pytest

from tests.faults.checks import check_events, events, rows, run_is, start, until
from tests.faults.drawings import Gate, chain, effect, keeping
from tests.faults.nursery import Child, Family
from tests.faults.sabotage import KILLED, Sabotage
from tests.server import drawing, edge, node, told
from tests.web_server import Reply, WebServer


@pytest.fixture
async def servers(children: Family, web: WebServer, dsn: str) -> tuple[Child, Child]:
    """Two servers on one database."""
    allow = {"FLOWSERVER_OUTBOUND_ALLOW": web.door}
    first, second = await asyncio.gather(
        children.bear(dsn, settings=allow), children.bear(dsn, settings=allow)
    )
    return first, second


async def test_flt_01_flt_02_a_server_that_dies_while_it_takes_a_run_takes_it_once(
    children: Family, web: WebServer, dsn: str
) -> None:
    """At every statement of the submission, before and after: all of it is there, or nothing."""
    allow = {"FLOWSERVER_OUTBOUND_ALLOW": web.door}
    survivor = await children.bear(dsn, settings=allow)
    flow = chain(web, "once")
    outcomes: list[tuple[bool, bool]] = []

    async def kill(statement: int, when: Any) -> None:
        label = f"{when}-{statement}"
        web.on(f"/{label}/once", Reply(body=b"done"))
        sabotage = Sabotage(
            statement=statement, when=when, counted=("flowserver.runs.Runs.start",), takes_jobs=False
        )
        victim = await children.bear(dsn, settings=allow, sabotage=sabotage)
        request = {
            "json": {"flow_data": flow, "input": {"label": label}, "mode": "background"},
            "headers": {"Idempotency-Key": label},
        }
        try:
            await victim.client.post("/runs", **request)
            died = False
        except httpx.TransportError:
            died = True
            assert await victim.ended() == KILLED
        stored = await rows(dsn, "SELECT id FROM run WHERE input->>'label' = %s", label)
        again = await survivor.client.post("/runs", **request)
        ended = await run_is(survivor.client, again.json()["id"], "succeeded")
        found = await rows(dsn, "SELECT id FROM run WHERE input->>'label' = %s", label)
        outcomes.append((died, bool(stored)))

        assert again.status_code == 202
        assert ("idempotency-replayed" in again.headers) == bool(stored)
        assert [str(row["id"]) for row in found] == [ended["id"]]
        assert [request.path for request in web.requests].count(f"/{label}/once") == 1
        check_events(await events(survivor.client, ended["id"]))
        assert died or stored

    statements = range(1, 8)
    await asyncio.gather(*(kill(n, when) for n in statements for when in ("before", "after")))

    assert (True, False) in outcomes, "no server died before its commit"
    assert (True, True) in outcomes, "no server died after its commit"
    assert await rows(dsn, "SELECT 1 FROM idempotency GROUP BY key HAVING count(*) <> 1") == []
    unowned = "SELECT 1 FROM run_event WHERE run_id NOT IN (SELECT id FROM run)"
    assert await rows(dsn, unowned) == []


async def test_flt_03_twenty_equal_posts_with_one_key_are_one_run(
    servers: tuple[Child, Child], web: WebServer, dsn: str
) -> None:
    web.on("/x/a", Reply(body=b"done"))
    body = {"flow_data": chain(web, "a"), "input": {"label": "x"}, "mode": "background"}
    key = {"Idempotency-Key": "the same"}

    posts = [
        server.client.post("/runs", json=body, headers=key)
        for server, _ in zip(cycle(servers), range(20), strict=False)
    ]
    answers = await asyncio.gather(*posts)
    other = await servers[0].client.post("/runs", json=body | {"input": {"label": "y"}}, headers=key)
    too_long = await servers[0].client.post("/runs", json=body, headers={"Idempotency-Key": "k" * 256})

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert [answer.headers.get("idempotency-replayed") for answer in answers].count("true") == 19
    assert (other.status_code, too_long.status_code) == (422, 422)
    await run_is(servers[1].client, answers[0].json()["id"], "succeeded")
    assert len(await rows(dsn, "SELECT id FROM run")) == 1
    assert [request.path for request in web.requests] == ["/x/a"]


async def test_flt_03_a_request_that_is_sent_again_while_the_first_is_at_work_joins_it(
    servers: tuple[Child, Child], web: WebServer
) -> None:
    """As a client does that has lost its patience, or a webhook's caller (FLT-47)."""
    gate = Gate(b"done")
    web.on("/x/a", gate.answer)
    request: dict[str, Any] = {
        "json": {"flow_data": chain(web, "a"), "input": {"label": "x"}},
        "headers": {"Idempotency-Key": "k"},
    }

    first = asyncio.create_task(servers[0].client.post("/runs", **request))
    await gate.arrivals()
    again = asyncio.create_task(servers[1].client.post("/runs", **request))
    quickly = await servers[1].client.post("/runs?timeout=0.1", **request)
    gate.open.set()
    answers = [await first, await again]

    assert (quickly.status_code, quickly.json()["status"]) == (202, "running")
    assert [answer.json()["output"] for answer in answers] == ["done", "done"]
    assert answers[0].json()["id"] == answers[1].json()["id"] == quickly.json()["id"]
    assert len(web.requests) == 1


ASK = drawing(
    node("start", "StartNode"),
    node("ask", "HumanInput", question="Who?"),
    node("again", "HumanInput", question="Sure?"),
    node("end", "Template", template="{{ ask.answer }} {{ again.answer }}"),
    edge("start", "ask"),
    edge("ask", "again"),
    edge("again", "end"),
)


async def test_flt_34_of_many_answers_at_once_one_is_taken_and_none_reaches_the_next_question(
    servers: tuple[Child, Child],
) -> None:
    waiting = (await servers[0].client.post("/runs", json={"flow_data": ASK})).json()
    path, question = f"/runs/{waiting['id']}/resume", waiting["questions"][0]["id"]

    answers = await asyncio.gather(
        *(
            server.client.post(path, json={"question_id": question, "answer": f"no. {number}"})
            for server, number in zip(cycle(servers), range(12), strict=False)
        )
    )
    taken = [number for number, answer in enumerate(answers) if answer.status_code == 202]

    assert len(taken) == 1
    assert {answer.status_code for answer in answers} == {202, 409}

    async def asks_again() -> Any:
        found = (await servers[1].client.get(f"/runs/{waiting['id']}")).json()
        return found if found["questions"] and found["questions"][0]["id"] != question else None

    now = await until(asks_again, "the next question is asked")
    stale = await servers[1].client.post(path, json={"question_id": question, "answer": "late"})
    unknown = await servers[1].client.post(path, json={"question_id": waiting["id"], "answer": "?"})
    body = {"question_id": now["questions"][0]["id"], "answer": "yes"}
    key = {"Idempotency-Key": "once"}
    first = await servers[0].client.post(path, json=body, headers=key)
    retry = await servers[1].client.post(path, json=body, headers=key)
    other = await servers[1].client.post(path, json=body | {"answer": "no"}, headers=key)
    ended = await run_is(servers[1].client, waiting["id"], "succeeded")
    over = await servers[0].client.post(path, json=body)
    after = await servers[0].client.post(path, json=body, headers=key)

    assert (stale.status_code, unknown.status_code) == (409, 404)
    assert (first.status_code, retry.status_code, other.status_code) == (202, 202, 422)
    assert (over.status_code, after.status_code) == (409, 202)
    assert "idempotency-replayed" not in first.headers
    assert retry.headers["idempotency-replayed"] == after.headers["idempotency-replayed"] == "true"
    assert ended["output"] == f"no. {taken[0]} yes"
    found = await events(servers[0].client, waiting["id"])
    check_events(found)
    assert told(found).count("step.finished ask") == told(found).count("step.finished again") == 1


async def test_flt_34_a_cancelled_run_takes_no_answer(servers: tuple[Child, Child]) -> None:
    waiting = (await servers[0].client.post("/runs", json={"flow_data": ASK})).json()
    path = f"/runs/{waiting['id']}"

    cancelled, answered = await asyncio.gather(
        servers[0].client.post(f"{path}/cancel"),
        servers[1].client.post(f"{path}/resume", json={"answer": "me"}),
    )
    ended = await run_is(servers[1].client, waiting["id"], "cancelled", seconds=5)
    late = await servers[1].client.post(f"{path}/resume", json={"answer": "me"})

    assert cancelled.status_code == 202
    assert answered.status_code in (202, 409)
    assert late.status_code == 409
    assert ended["questions"] == []


async def test_flt_31_runs_of_a_session_posted_to_two_servers_run_in_order_and_never_together(
    servers: tuple[Child, Child], web: WebServer, dsn: str
) -> None:
    flow = keeping(web, "call")
    labels = [f"r{number}" for number in range(12)]
    for label in labels:
        web.on(f"/{label}/call", Reply())
    saved = (await servers[0].client.post("/workflows", json={"name": "w", "flow_data": flow})).json()

    runs = []
    for server, label in zip(cycle(servers), labels, strict=False):
        body = {"input": {"label": label}, "session_id": "s", "mode": "background"}
        runs.append((await server.client.post(f"/workflows/{saved['id']}/runs", json=body)).json()["id"])
    ended = [await run_is(servers[0].client, run, "succeeded") for run in runs]

    assert [request.path for request in web.requests] == [f"/{label}/call" for label in labels]
    assert ended[-1]["output"] == json.dumps(labels, separators=(",", ":"))
    overlapping = await rows(
        dsn,
        "SELECT 1 FROM run AS a JOIN run AS b ON a.thread_id = b.thread_id AND a.created_at < b.created_at"
        " WHERE b.started_at < a.finished_at",
    )
    assert overlapping == []


async def test_flt_32_a_session_whose_run_asks_takes_no_other_on_any_server(
    servers: tuple[Child, Child],
) -> None:
    body = {"flow_data": ASK, "session_id": "s"}
    waiting = (await servers[0].client.post("/runs", json=body)).json()

    refused = [await server.client.post("/runs", json=body) for server in servers]

    assert [answer.status_code for answer in refused] == [409, 409]
    assert waiting["id"] in refused[1].json()["detail"]


@pytest.mark.parametrize(
    ("on_busy", "kept"), [("interrupt", '["one","two","three"]'), ("rollback", '["one","three"]')]
)
async def test_a_run_takes_the_place_of_the_one_before_on_another_server(
    servers: tuple[Child, Child], web: WebServer, on_busy: str, kept: str
) -> None:
    """Interrupted, a run leaves what it has stored; rolled back, it was never there."""
    gate = Gate()
    web.on("/one/call", Reply())
    web.on("/two/call", gate.answer)
    web.on("/three/call", Reply())
    for label in ("one", "two", "three"):
        web.on(f"/{label}/before", Reply())
    flow = keeping(web, "before", "call")
    first = await start(servers[0].client, flow, "one", session_id="s")
    await run_is(servers[0].client, first, "succeeded")
    second = await start(servers[0].client, flow, "two", session_id="s", durability="sync")
    await gate.arrivals()
    behind = await start(servers[1].client, flow, "behind", session_id="s")

    third = await start(servers[1].client, flow, "three", session_id="s", on_busy=on_busy)
    await gate.departures()
    cancelled = [await run_is(servers[1].client, run, "cancelled", seconds=5) for run in (second, behind)]
    ended = await run_is(servers[1].client, third, "succeeded", seconds=10)

    assert ended["output"] == kept
    assert [run["started_at"] is None for run in cancelled] == [False, True]
    assert not any(request.path.startswith("/behind") for request in web.requests)
    check_events(await events(servers[0].client, second))


async def test_rolled_back_a_waiting_run_leaves_nothing_behind(servers: tuple[Child, Child]) -> None:
    flow = drawing(
        node("start", "StartNode"),
        node("keep", "SetVariable", variable="seen", value="{{ input }}"),
        node("ask", "HumanInput", question="{{ vars.seen | json }}?"),
        edge("start", "keep"),
        edge("keep", "ask"),
    ) | {"settings": {"variables": {"seen": {"initial": [], "reducer": "append", "persistent": True}}}}
    body = {"flow_data": flow, "input": "one", "session_id": "s"}
    first = (await servers[0].client.post("/runs", json=body)).json()

    second = (
        await servers[1].client.post("/runs", json=body | {"input": "two", "on_busy": "rollback"})
    ).json()

    assert second["questions"][0]["payload"]["question"] == '["two"]?'
    assert (await servers[0].client.get(f"/runs/{first['id']}")).json()["status"] == "cancelled"


async def test_refused_a_run_leaves_the_one_before_alone(
    servers: tuple[Child, Child], web: WebServer
) -> None:
    gate = Gate()
    web.on("/one/call", gate.answer)
    flow = drawing(effect("call", web, "call"))
    first = await start(servers[0].client, flow, "one", session_id="s")
    await gate.arrivals()

    body = {"flow_data": flow, "input": {"label": "two"}, "session_id": "s", "on_busy": "reject"}
    refused = await servers[1].client.post("/runs", json=body)
    gate.open.set()

    assert refused.status_code == 409
    assert (await run_is(servers[1].client, first, "succeeded"))["output"] == "ok"
