"""The line to Postgres stalls, goes deaf or breaks; Postgres refuses, is full, or gives up on a statement."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier, Literal

from flowserver.app import create_app
from flowserver.settings import Settings
from tests.databases import Databases
from tests.faults.checks import (
    attempts,
    check_events,
    check_line,
    events,
    paths,
    rows,
    run_is,
    start,
    until,
)
from tests.faults.drawings import Gate, chain
from tests.faults.nursery import Child, Family
from tests.faults.proxy import Proxy
from tests.faults.sabotage import Point, Sabotage
from tests.server import KEY, drawing, node, serving
from tests.web_server import Reply, WebServer

END_SESSIONS: LiteralString = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
)


@pytest.fixture
def allow(web: WebServer) -> dict[str, str]:
    return {"FLOWSERVER_OUTBOUND_ALLOW": web.door}


@pytest.fixture
async def proxy(dsn: str) -> AsyncIterator[Proxy]:
    async with Proxy(dsn) as proxy:
        yield proxy


async def health(server: Child) -> int:
    url = server.client.base_url.copy_with(path="/health/ready")
    return (await server.client.get(url)).status_code


async def ready(server: Child) -> bool:
    return await health(server) == 200


async def says(child: Child, text: str) -> bool:
    return text in child.log.read_text()


async def exists(mark: Path) -> bool:
    return mark.exists()


async def posted(server: Child, flow: Any, label: str, **more: Any) -> str:
    """Start a run that this server executes."""
    body = {"flow_data": flow, "input": {"label": label}, **more}
    response = await server.client.post("/runs?timeout=0.05", json=body)
    assert response.status_code in (200, 202), response.text
    return str(response.json()["id"])


async def test_flt_18_connections_that_are_ended_in_the_middle_of_runs_lose_none(
    children: Family, web: WebServer, dsn: str, allow: dict[str, str]
) -> None:
    gate = Gate()
    server = await children.bear(dsn, settings=allow)
    for number in range(10):
        for path in "abc":
            web.on(f"/r{number}/{path}", gate.answer if path == "b" else Reply(), Reply())
    runs = [await start(server.client, chain(web, *"abc"), f"r{n}", durability="sync") for n in range(10)]
    await gate.arrivals(10)

    await rows(dsn, END_SESSIONS)
    gate.open.set()
    ended = [await run_is(server.client, run, "succeeded", "failed") for run in runs]

    assert [run["status"] for run in ended] == ["succeeded"] * 10
    for number, run in enumerate(runs):
        check_events(await events(server.client, run))
        assert paths(web).count(f"/r{number}/a") == 1
        await check_line(dsn, run)


async def test_flt_18_a_process_whose_ear_was_cut_off_hears_again(
    children: Family, web: WebServer, dsn: str, allow: dict[str, str]
) -> None:
    gate = Gate()
    web.on("/x/a", gate.answer)
    # Long leases: what is heard soon is not heard by the heartbeat.
    slow = allow | {"FLOWSERVER_LEASE_SECONDS": "60"}
    worker = await children.bear(dsn, settings=slow, sabotage=Sabotage(takes_jobs=False))
    other = await children.bear(dsn, settings=slow)
    run = await posted(worker, chain(web, "a"), "x")
    await gate.arrivals()
    listening = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query = 'LISTEN flowserver'"
    )
    before = {row["pid"] for row in await rows(dsn, listening)}

    await rows(dsn, "SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", list(before))

    async def listens_again() -> bool:
        found = {row["pid"] for row in await rows(dsn, listening)}
        return len(found) == len(before) and not found & before

    await until(listens_again, "every process listens again", 10)
    await other.client.post(f"/runs/{run}/cancel")
    await gate.departures()

    assert len(before) == 2
    assert (await run_is(other.client, run, "cancelled", seconds=5))["attempt"] == 1


@pytest.mark.parametrize("half_open", [False, True], ids=["stalled", "half-open"])
async def test_flt_19_a_line_that_stalls_is_given_up_and_the_run_goes_on_elsewhere(
    children: Family, web: WebServer, dsn: str, proxy: Proxy, allow: dict[str, str], half_open: bool
) -> None:
    gate = Gate(b"late")
    web.on("/x/a", Reply())
    web.on("/x/b", gate.answer, Reply(body=b"elsewhere"))
    web.on("/y/c", Reply(body=b"healed"))
    impatient = Sabotage(values={"flowserver.db.MOST_HELD": 3.0})
    stalled = await children.bear(proxy.dsn, settings=allow, sabotage=impatient)
    run = await posted(stalled, chain(web, "a", "b"), "x", durability="sync")
    await gate.arrivals()
    other = await children.bear(dsn, settings=allow)

    proxy.turn("stall")
    if half_open:
        proxy.close_towards_database()
    ended = await run_is(other.client, run, "succeeded")
    await gate.departures()
    before = await events(other.client, run)
    asked = time.monotonic()
    not_ready = await health(stalled)
    seconds = time.monotonic() - asked
    proxy.turn("pass")
    await until(lambda: ready(stalled), "it is ready again", 20)
    fresh = await run_is(stalled.client, await posted(stalled, chain(web, "c"), "y"), "succeeded")

    assert (ended["output"], ended["attempt"]) == ("elsewhere", 2)
    assert (not_ready, seconds < 8) == (503, True)
    assert fresh["output"] == "healed"
    assert await events(other.client, run) == before
    check_events(before)
    assert paths(web)[:3] == ["/x/a", "/x/b", "/x/b"]
    await check_line(dsn, run)


@pytest.mark.parametrize(
    ("held", "nth"),
    [
        ("flowserver.journal.Journal._commit", 2),
        ("flowserver.execution.Execution._end", 1),
        ("flowserver.saver.FencedSaver.aput", 2),
        ("flowserver.executor.Executor._take", 1),
    ],
    ids=["events", "end", "checkpoint", "claim"],
)
async def test_flt_20_an_answer_of_postgres_that_is_lost_is_found_out_by_looking(
    children: Family,
    web: WebServer,
    dsn: str,
    proxy: Proxy,
    allow: dict[str, str],
    tmp_path: Path,
    held: str,
    nth: int,
) -> None:
    """It has committed, and the process that asked it to is never told."""
    for path in "ab":
        web.on(f"/x/{path}", Reply(body=path.encode()))
    mark = tmp_path / "held"
    point = Point(at=held, do="hold", nth=nth, mark=str(mark))
    front = await children.bear(dsn, "serve", "--no-worker", settings=allow)
    server = await children.bear(proxy.dsn, settings=allow, sabotage=Sabotage(points=(point,)))
    run = await start(front.client, chain(web, "a", "b"), "x", durability="sync")
    await until(lambda: exists(mark), "it is about to write")

    proxy.turn("drop_answers")
    dropped = proxy.dropped
    mark.unlink()

    async def swallowed() -> bool:
        return proxy.dropped > dropped

    await until(swallowed, "an answer was lost", 5)
    proxy.cut()
    proxy.turn("pass")
    ended = await run_is(front.client, run, "succeeded", "failed")

    found = await events(front.client, run)
    check_events(found)
    assert (ended["status"], ended["output"]) == ("succeeded", "b")
    assert ended["attempt"] <= 2
    assert paths(web).count("/x/a") == 1 and paths(web).count("/x/b") <= 2
    await check_line(dsn, run)
    assert server.lives


@pytest.mark.parametrize("durability", ["sync", "exit"])
async def test_flt_21_cut_off_from_postgres_but_not_from_the_world_a_process_stops_acting(
    children: Family, web: WebServer, dsn: str, proxy: Proxy, allow: dict[str, str], durability: str
) -> None:
    gate = Gate()
    web.on("/x/a", Reply())
    web.on("/x/b", gate.answer)
    web.on("/x/c", Reply())
    server = await children.bear(proxy.dsn, settings=allow, sabotage=Sabotage(takes_jobs=False))
    await posted(server, chain(web, *"abc"), "x", durability=durability)
    await gate.arrivals()

    cut_at = time.monotonic()
    proxy.turn("stall")
    await gate.departures()
    gave_up = time.monotonic() - cut_at

    assert gave_up < 2 + 1.5, "it acts for longer than its lease"
    url = server.client.base_url.copy_with(path="/health/live")
    assert (await server.client.get(url)).status_code == 200
    assert paths(web) == ["/x/a", "/x/b"]


async def test_flt_22_with_all_connections_taken_clients_are_told_and_leases_are_kept(
    web: WebServer, dsn: str, tmp_path: Path
) -> None:
    gate = Gate()
    web.on("/x/a", gate.answer)
    settings = Settings(data_dir=tmp_path, api_key=KEY, outbound_allow=(web.door,), lease_seconds=1)
    app = create_app(settings, dsn)
    async with serving(app) as client:
        run = await start(client, chain(web, "a"), "x")
        await gate.arrivals()
        pool = app.state.flowserver.pool
        taken = [await pool.getconn() for _ in range(pool.max_size)]

        asked = time.monotonic()
        refused = await client.post("/runs", json={"flow_data": drawing(node("t", "Template", template="x"))})
        waited = time.monotonic() - asked
        lease = await rows(dsn, "SELECT lease_until > now() AS held FROM run WHERE id = %s", run)
        for conn in taken:
            await pool.putconn(conn)
        gate.open.set()
        ended = await run_is(client, run, "succeeded")

    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
    assert 1 < waited < 5, "it waited for longer than a lease, and not for long"
    assert lease == [{"held": True}]
    assert ended["attempt"] == 1


async def test_flt_23_a_database_that_lets_nobody_in_for_a_while_costs_nothing_but_time(
    children: Family, web: WebServer, dsn: str, databases: Databases, allow: dict[str, str]
) -> None:
    gate = Gate(b"first")
    web.on("/x/a", gate.answer, Reply(body=b"second"))
    server = await children.bear(dsn, settings=allow)
    run = await start(server.client, chain(web, "a"), "x")
    await gate.arrivals()
    name = str(conninfo_to_dict(dsn)["dbname"])

    with psycopg.connect(databases.dsn, autocommit=True) as admin:

        def let_in(yes: bool) -> None:
            admin.execute(
                SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}").format(Identifier(name), Literal(yes))
            )

        let_in(False)
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = %s AND pid <> pg_backend_pid()",
            (name,),
        )
        shut_out = await health(server)
        await until(lambda: says(server, "another process has it now"), "it gives the run up", 10)
        let_in(True)
    await until(lambda: ready(server), "it is ready again", 10)
    ended = await run_is(server.client, run, "succeeded")

    assert shut_out == 503
    assert (ended["output"], ended["attempt"]) == ("second", 1)
    check_events(await events(server.client, run))
    # No crash loop, and no storm of attempts to get in either: a pool's own pauses grow.
    assert server.log.read_text().count("error connecting") < 60


async def trouble(
    dsn: str, on: LiteralString, sqlstate: str, times: int, when: LiteralString = "true"
) -> None:
    """Let Postgres refuse the first statements of a kind, so many times."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        await conn.execute("CREATE SEQUENCE trouble")  # it counts also what is rolled back
        await conn.execute(
            SQL(
                "CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                " IF nextval('trouble') <= {} THEN RAISE EXCEPTION 'trouble' USING ERRCODE = {}; END IF;"
                " RETURN NEW; END $$"
            ).format(Literal(times), Literal(sqlstate))
        )
        await conn.execute(
            SQL("CREATE TRIGGER trouble BEFORE {} FOR EACH ROW WHEN ({}) EXECUTE FUNCTION trouble()").format(
                SQL(on), SQL(when)
            )
        )


async def troubles(dsn: str) -> int:
    return int((await rows(dsn, "SELECT last_value FROM trouble"))[0]["last_value"])


@pytest.mark.parametrize("sqlstate", ["40001", "40P01"], ids=["serialization", "deadlock"])
@pytest.mark.parametrize(
    ("on", "when"),
    [
        ("INSERT ON run_event", "NEW.type <> 'run.created'"),
        ("INSERT ON checkpoints", "true"),
        ("INSERT ON checkpoint_writes", "true"),
        ("UPDATE ON run", "NEW.status = 'succeeded'"),
    ],
    ids=["events", "checkpoint", "writes", "end"],
)
async def test_flt_25_a_transaction_that_postgres_gave_up_is_tried_again(
    children: Family,
    web: WebServer,
    dsn: str,
    allow: dict[str, str],
    on: LiteralString,
    when: LiteralString,
    sqlstate: str,
) -> None:
    for path in "ab":
        web.on(f"/x/{path}", Reply(body=path.encode()))
    server = await children.bear(dsn, settings=allow)
    await trouble(dsn, on, sqlstate, 3, when)

    run = await start(server.client, chain(web, "a", "b"), "x", durability="sync")
    ended = await run_is(server.client, run, "succeeded", "failed")

    assert (ended["status"], ended["output"], ended["attempt"]) == ("succeeded", "b", 1)
    assert paths(web) == ["/x/a", "/x/b"]
    found = await events(server.client, run)
    check_events(found)
    assert attempts(found) == [1]
    assert await troubles(dsn) > 3


async def test_flt_24_with_a_full_disk_nothing_is_half_submitted(children: Family, dsn: str) -> None:
    server = await children.bear(dsn)
    flow = drawing(node("t", "Template", template="fine"))
    await trouble(dsn, "INSERT ON run_event", "53100", 1)

    body = {"flow_data": flow, "mode": "background"}
    refused = await server.client.post("/runs", json=body, headers={"Idempotency-Key": "k"})
    stored = [
        await rows(dsn, "SELECT 1 FROM run"),
        await rows(dsn, "SELECT 1 FROM procrastinate_jobs WHERE queue_name = 'runs'"),
        await rows(dsn, "SELECT 1 FROM idempotency"),
    ]
    again = await server.client.post("/runs", json=body, headers={"Idempotency-Key": "k"})

    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
    assert stored == [[], [], []]
    assert (await run_is(server.client, again.json()["id"], "succeeded"))["output"] == "fine"


async def test_flt_24_a_run_outlasts_a_disk_that_is_full_for_many_leases(
    children: Family, web: WebServer, dsn: str, allow: dict[str, str]
) -> None:
    """Nobody died: what cannot be stored now is no attempt of the run's."""
    for path in "ab":
        web.on(f"/x/{path}", Reply(body=path.encode()))
    server = await children.bear(dsn, settings=allow | {"FLOWSERVER_LEASE_SECONDS": "0.5"})
    await trouble(dsn, "INSERT ON checkpoints", "53100", 5)

    run = await start(server.client, chain(web, "a", "b"), "x", durability="sync")
    ended = await run_is(server.client, run, "succeeded", "failed")

    assert (ended["status"], ended["output"]) == ("succeeded", "b")
    check_events(await events(server.client, run))
    assert paths(web).count("/x/b") == 1
    assert await troubles(dsn) > 5


async def test_flt_26_a_claim_that_postgres_cancelled_is_made_again(
    children: Family, web: WebServer, dsn: str, allow: dict[str, str]
) -> None:
    web.on("/x/a", Reply(body=b"done"))
    front = await children.bear(dsn, "serve", "--no-worker", settings=allow)
    await trouble(dsn, "UPDATE ON run", "57014", 2, "OLD.status = 'queued' AND NEW.status = 'running'")
    worker = await children.bear(dsn, "worker", settings=allow)

    run = await start(front.client, chain(web, "a"), "x")
    ended = await run_is(front.client, run, "succeeded", "failed")

    assert (ended["output"], ended["attempt"]) == ("done", 1)
    assert paths(web) == ["/x/a"]
    assert await troubles(dsn) == 3
    assert worker.lives


async def test_flt_55_nobody_keeps_a_transaction_open_while_steps_wait_for_the_world(
    children: Family, web: WebServer, dsn: str, allow: dict[str, str]
) -> None:
    """A listener inside one would fill Postgres' queue of notifications, one beside it a pool."""
    gate = Gate()
    server = await children.bear(dsn, settings=allow)
    for number in range(20):  # more than the pool has connections
        web.on(f"/r{number}/a", gate.answer)
    runs = [await start(server.client, chain(web, "a"), f"r{number}") for number in range(20)]
    await gate.arrivals(20)

    held = []
    for _ in range(20):
        held += await rows(
            dsn,
            "SELECT state, query FROM pg_stat_activity WHERE datname = current_database()"
            " AND state <> 'idle' AND state_change < now() - interval '0.3 seconds'"
            " AND pid <> pg_backend_pid()",
        )
        assert await health(server) == 200
    listening = await rows(
        dsn,
        "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%%'",
    )
    gate.open.set()
    ended = [await run_is(server.client, run, "succeeded") for run in runs]

    assert held == []
    assert {row["state"] for row in listening} == {"idle"}
    assert [run["attempt"] for run in ended] == [1] * 20
