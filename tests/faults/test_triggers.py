"""Outside systems and clocks start runs exactly once, whichever server they reach and whatever dies."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime
from itertools import cycle
from typing import Any

import httpx

from flowserver.signatures import sign
from tests.faults.checks import check_events, events, rows, run_is, until
from tests.faults.drawings import effect
from tests.faults.nursery import Child, Family
from tests.faults.sabotage import KILLED, Sabotage
from tests.server import drawing, edge, node
from tests.web_server import Reply, WebServer

KEYS = {"FLOWSERVER_ENCRYPTION_KEYS": "test:3q2+796tvu/erb7v3q2+796tvu/erb7v3q2+796tvu8="}


def hooked(web: WebServer, **settings: Any) -> dict[str, Any]:
    """A webhook whose deliveries are counted by their effects."""
    return drawing(
        node("hook", "WebhookTrigger", path="counted", **settings),
        effect("call", web, "effect"),
        edge("hook", "call"),
    )


async def publish(client: httpx.AsyncClient, flow: dict[str, Any]) -> str:
    saved = (await client.post("/workflows", json={"name": "w", "flow_data": flow})).json()
    published = await client.post(f"/workflows/{saved['id']}/publish")
    assert published.status_code == 200, published.text
    return str(saved["id"])


async def deliver(server: Child, label: str, **more: Any) -> httpx.Response:
    url = server.client.base_url.copy_with(path="/hooks/counted")
    headers = {"webhook-id": label, **more.pop("headers", {})}
    return await server.client.post(url, json={"label": label}, headers=headers, **more)


async def test_a_server_that_dies_at_any_statement_of_a_delivery_leaves_it_whole_or_not_there(
    children: Family, web: WebServer, dsn: str
) -> None:
    """The provider sends again what was not answered; that is one run, and one effect."""
    settings = {"FLOWSERVER_OUTBOUND_ALLOW": web.door}
    survivor = await children.bear(dsn, settings=settings)
    await publish(survivor.client, hooked(web, answer="at_once"))
    outcomes: list[tuple[bool, bool]] = []

    async def kill(statement: int, when: Any) -> None:
        label = f"{when}-{statement}"
        web.on(f"/{label}/effect", Reply(body=b"done"))
        counted = ("flowserver.receiving.Receiver.receive",)
        sabotage = Sabotage(statement=statement, when=when, counted=counted, takes_jobs=False)
        victim = await children.bear(dsn, settings=settings, sabotage=sabotage)
        try:
            await deliver(victim, label)
            died = False
        except httpx.TransportError:
            died = True
            assert await victim.ended() == KILLED
        stored = await rows(dsn, "SELECT run_id FROM delivery WHERE key = %s", f"id:{label}")
        jobs = await rows(dsn, "SELECT id FROM run WHERE input->>'label' = %s", label)
        assert len(stored) == len(jobs)
        again = await deliver(survivor, label)
        ended = await run_is(survivor.client, again.headers["x-run-id"], "succeeded")
        outcomes.append((died, bool(stored)))

        assert again.status_code == 202
        assert ("idempotency-replayed" in again.headers) == bool(stored)
        found = await rows(dsn, "SELECT id FROM run WHERE input->>'label' = %s", label)
        assert [str(row["id"]) for row in found] == [ended["id"]]
        assert [request.path for request in web.requests].count(f"/{label}/effect") == 1
        check_events(await events(survivor.client, ended["id"]))
        assert died or stored

    await asyncio.gather(*(kill(n, when) for n in range(3, 15) for when in ("before", "after")))

    assert (True, False) in outcomes, "no server died before its commit"
    assert (True, True) in outcomes, "no server died after its commit"


async def test_i10_two_replicas_under_five_hundred_deliveries_with_repeats_make_one_run_of_each(
    children: Family, web: WebServer, dsn: str
) -> None:
    settings = {"FLOWSERVER_OUTBOUND_ALLOW": web.door, **KEYS}
    servers = await asyncio.gather(*(children.bear(dsn, settings=settings) for _ in range(2)))
    workflow = await publish(
        servers[0].client,
        drawing(
            node("hook", "WebhookTrigger", path="counted", authentication="standard"),
            node("end", "EndNode"),
            edge("hook", "end"),
        ),
    )
    [hook] = (await servers[0].client.get(f"/webhooks?workflow_id={workflow}")).json()["items"]
    secret = (await servers[0].client.post(f"/webhooks/{hook['id']}/secrets/rotate", json={})).json()[
        "secret"
    ]
    order = [number for number in range(200) for _ in range(2)] + [*range(100)]
    random.Random(5).shuffle(order)
    answers: dict[int, set[tuple[int, str, str]]] = {}
    waiting = asyncio.Semaphore(40)

    async def send(number: int, server: Child) -> None:
        body = b'{"n": %d}' % number
        headers = sign([secret], f"msg_{number}", datetime.now(UTC), body)
        url = server.client.base_url.copy_with(path="/hooks/counted")
        async with waiting:
            answer = await server.client.post(url, content=body, headers=headers)
        answers.setdefault(number, set()).add((answer.status_code, answer.text, answer.headers["x-run-id"]))

    turns = cycle(servers)
    await asyncio.gather(*(send(number, next(turns)) for number in order))

    assert len(order) == 500
    assert {len(found) for found in answers.values()} == {1}
    assert all(found == {(200, f'{{"n":{n}}}', next(iter(found))[2])} for n, found in answers.items())
    assert (await rows(dsn, "SELECT count(*) AS runs FROM run"))[0]["runs"] == 200
    repeats = Counter(order)
    kept = await rows(dsn, "SELECT key, repeats FROM delivery")
    assert {row["key"]: row["repeats"] for row in kept} == {f"id:msg_{n}": c - 1 for n, c in repeats.items()}


async def test_flt_46_a_server_that_dies_at_any_statement_of_a_firing_fires_it_once_all_the_same(
    children: Family, web: WebServer, dsn: str
) -> None:
    settings = {"FLOWSERVER_OUTBOUND_ALLOW": web.door}
    steady = await children.bear(dsn, "serve", "--no-worker", settings=settings)
    flow = drawing(
        node("timer", "TimerStart", schedule_type="manual"),
        effect("call", web, "effect"),
        edge("timer", "call"),
    )
    workflow = await publish(steady.client, flow)

    async def due(label: str) -> str:
        timing = {"workflow_id": workflow, "timing": {"every": 86_400}, "input": {"label": label}}
        made = (await steady.client.post("/schedules", json=timing)).json()
        query = (
            "UPDATE schedule SET next_at = now() - '5 s'::interval, due_at = now() WHERE id = %s RETURNING id"
        )
        await rows(dsn, query, made["id"])
        return str(made["id"])

    deaths = 0
    for statement in range(1, 14):
        when: Any = "before" if statement % 2 else "after"
        label = f"{when}-{statement}"
        web.on(f"/{label}/effect", Reply(body=b"done"))
        counted = ("flowserver.ticker.Ticker.look",)
        victim = await children.bear(
            dsn,
            "worker",
            settings=settings,
            sabotage=Sabotage(statement=statement, when=when, counted=counted),
        )
        schedule = await due(label)

        async def over(victim: Child = victim, schedule: str = schedule) -> bool:
            done = await rows(dsn, "SELECT at FROM firing WHERE schedule_id = %s", schedule)
            return bool(done) or not victim.lives

        await until(over, "the firing or the death")
        deaths += not victim.lives
        await victim.kill()

    worker = await children.bear(dsn, "worker", settings=settings)
    await until(lambda: _all_fired(dsn), "every schedule to have fired")
    for run in (await steady.client.get("/runs?limit=100")).json()["items"]:
        await run_is(steady.client, run["id"], "succeeded")

    assert worker.lives
    assert deaths >= 8
    found = await rows(
        dsn, "SELECT count(*) AS times, count(run_id) AS runs FROM firing GROUP BY schedule_id"
    )
    assert [(row["times"], row["runs"]) for row in found] == [(1, 1)] * 13
    effects = Counter(request.path for request in web.requests)
    assert len(effects) == 13
    assert (await rows(dsn, "SELECT count(*) AS runs FROM run"))[0]["runs"] == 13


async def _all_fired(dsn: str) -> bool:
    query = "SELECT id FROM schedule WHERE fired <> 1 OR due_at <= now()"
    return not await rows(dsn, query)


async def test_invariant_8_a_worker_whose_clock_is_wrong_fires_by_the_databases(
    children: Family, web: WebServer, dsn: str
) -> None:
    early = await children.bear(dsn, sabotage=Sabotage(clock=86_400.0))
    late = await children.bear(dsn, sabotage=Sabotage(clock=-86_400.0))
    flow = drawing(
        node("timer", "TimerStart", schedule_type="manual"), node("end", "EndNode"), edge("timer", "end")
    )
    workflow = await publish(early.client, flow)
    soon = await rows(
        dsn, "SELECT to_char(now() + interval '3 s', 'YYYY-MM-DD\"T\"HH24:MI:SS.USOF:00') AS at"
    )
    made = await early.client.post(
        "/schedules", json={"workflow_id": workflow, "timing": {"once": soon[0]["at"]}}
    )
    assert made.status_code == 201, made.text
    tomorrow = {"workflow_id": workflow, "timing": {"cron": "0 0 1 1 *"}}
    other = (await late.client.post("/schedules", json=tomorrow)).json()["id"]

    async def fired() -> Any:
        return await rows(dsn, "SELECT at, fired_at FROM firing WHERE schedule_id = %s", made.json()["id"])

    [firing] = await until(fired, "the schedule to fire")

    assert 0 <= (firing["fired_at"] - firing["at"]).total_seconds() < 10
    assert await rows(dsn, "SELECT 1 AS one FROM firing WHERE schedule_id = %s", other) == []


async def test_a_callback_whose_sender_dies_is_sent_by_another(
    children: Family, web: WebServer, dsn: str
) -> None:
    settings = {"FLOWSERVER_OUTBOUND_ALLOW": web.door, **KEYS}
    sabotage = Sabotage(statement=2, when="before", counted=("flowserver.callbacks.Callbacks.look",))
    steady = await children.bear(dsn, "serve", "--no-worker", settings=settings)
    callback = {"url": web.on("/told", Reply(status=204))}
    flow = drawing(node("start", "StartNode"), node("end", "EndNode"), edge("start", "end"))
    body = {"flow_data": flow, "callback": callback, "mode": "background"}
    run = (await steady.client.post("/runs", json=body)).json()["id"]
    dying = await children.bear(dsn, "worker", settings=settings, sabotage=sabotage)

    await until(lambda: _gone(dying), "the worker to die over it")
    await rows(dsn, "UPDATE delivery SET next_at = now() WHERE direction = 'out' RETURNING id")
    await children.bear(dsn, "worker", settings=settings)

    async def told() -> Any:
        found = (await steady.client.get(f"/callbacks?run_id={run}")).json()["items"]
        return found[0] if found and found[0]["status"] == "delivered" else None

    sent = await until(told, "the callback to be delivered")
    assert sent["attempts"] >= 1
    assert len({request.headers.get("webhook-id") for request in web.requests}) == 1


async def _gone(child: Child) -> bool:
    return not child.lives
