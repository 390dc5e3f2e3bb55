"""The queue brings runs to workers at least once; jobs may be lost, doubled or left behind, runs may not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.faults.checks import check_events, events, no_job_is_left, paths, rows, run_is, start, until
from tests.faults.drawings import Gate, chain
from tests.faults.nursery import Family
from tests.faults.sabotage import Sabotage
from tests.server import drawing, node
from tests.web_server import Reply, WebServer


@pytest.fixture
def allow(web: WebServer) -> dict[str, str]:
    return {"FLOWSERVER_OUTBOUND_ALLOW": web.door}


async def test_a_server_without_a_worker_leaves_its_runs_to_workers(
    children: Family, web: WebServer, dsn: str, allow: dict[str, str]
) -> None:
    """Those that are waited for and streamed too, from their first event on."""
    web.on("/x/a", Reply(body=b"done"))
    web.on("/y/a", Reply(body=b"done"))
    server = await children.bear(dsn, "serve", "--no-worker", settings=allow)
    body = {"flow_data": chain(web, "a"), "input": {"label": "x"}}
    quickly = await server.client.post("/runs?timeout=0.1", json=body)
    streaming = asyncio.create_task(
        server.client.post("/runs", json=body | {"input": {"label": "y"}, "mode": "stream"})
    )
    before = list(web.requests)

    worker = await children.bear(dsn, "worker", settings=allow)
    ended = await run_is(server.client, quickly.json()["id"], "succeeded")
    streamed = (await streaming).text

    assert (quickly.status_code, quickly.json()["status"]) == (202, "queued")
    assert before == []
    assert ended["output"] == "done"
    assert streamed.count("event: run.succeeded") == 1
    workers = await rows(dsn, "SELECT DISTINCT worker FROM run")
    assert [row["worker"].rpartition(":")[2] for row in workers] == [str(worker.pid)]


async def test_flt_29_a_job_that_is_delivered_many_times_executes_its_run_once(
    children: Family, web: WebServer, dsn: str, allow: dict[str, str]
) -> None:
    gate = Gate(b"once")
    web.on("/x/a", gate.answer)
    server = await children.bear(dsn, "serve", "--no-worker", settings=allow)
    run = await start(server.client, chain(web, "a"), "x")
    await rows(dsn, "SELECT defer_run(%s) FROM generate_series(1, 10)", run)
    waiting = await rows(
        dsn, "SELECT id FROM procrastinate_jobs WHERE queue_name = 'runs' AND status = 'todo'"
    )

    await asyncio.gather(*(children.bear(dsn, "worker", settings=allow) for _ in range(2)))
    await gate.arrivals()
    await rows(dsn, "SELECT defer_run(%s) FROM generate_series(1, 10)", run)

    async def taken() -> bool:
        return not await rows(
            dsn, "SELECT 1 FROM procrastinate_jobs WHERE queue_name = 'runs' AND status = 'todo'"
        )

    await until(taken, "all jobs have been taken")
    gate.open.set()
    ended = await run_is(server.client, run, "succeeded")
    await no_job_is_left(dsn)

    assert len(waiting) == 11
    assert (ended["output"], ended["attempt"]) == ("once", 1)
    assert paths(web) == ["/x/a"]
    check_events(await events(server.client, run))


async def test_flt_30_a_run_whose_job_was_lost_is_found_and_executed(
    children: Family, web: WebServer, dsn: str, allow: dict[str, str]
) -> None:
    web.on("/x/a", Reply(body=b"found"))
    server = await children.bear(dsn, "serve", "--no-worker", settings=allow)
    run = await start(server.client, chain(web, "a"), "x")
    await rows(dsn, "DELETE FROM procrastinate_jobs")

    await children.bear(dsn, "worker", settings=allow)
    ended = await run_is(server.client, run, "succeeded", seconds=15)

    assert ended["output"] == "found"
    assert paths(web) == ["/x/a"]


async def test_flt_30_jobs_that_nobody_works_on_any_more_are_cleared_away_and_others_are_not(
    children: Family, web: WebServer, dsn: str, allow: dict[str, str]
) -> None:
    """A job whose end could not be reported, one of a dead worker, and one whose run is at work."""
    gate = Gate()
    web.on("/busy/a", gate.answer)
    server = await children.bear(dsn, settings=allow)
    busy = await start(server.client, chain(web, "a"), "busy")
    await gate.arrivals()
    done = await start(server.client, drawing(node("t", "Template", template="x")), "done")
    await run_is(server.client, done, "succeeded")
    await rows(dsn, "UPDATE run SET finished_at = now() - interval '2 minutes' WHERE id = %s", done)
    stuck = (
        "INSERT INTO procrastinate_jobs (queue_name, task_name, args, status, worker_id)"
        " SELECT 'runs', 'execute', jsonb_build_object('run', %s::text), 'doing',"
        " CASE WHEN %s THEN (SELECT min(id) FROM procrastinate_workers) END"
    )
    await rows(dsn, stuck, done, True)
    await rows(dsn, stuck, busy, False)

    async def only_the_busy_one() -> bool:
        found = await rows(
            dsn, "SELECT args->>'run' AS run, worker_id FROM procrastinate_jobs WHERE queue_name = 'runs'"
        )
        return [row["run"] for row in found if row["worker_id"]] == [busy] and len(found) == 1

    await until(only_the_busy_one, "what is stuck is cleared away", 15)
    gate.open.set()
    ended = await run_is(server.client, busy, "succeeded")
    await no_job_is_left(dsn)

    assert ended["attempt"] == 1
    assert paths(web) == ["/busy/a"]


async def test_flt_30_reconcilers_that_look_at_once_defer_a_run_once(
    children: Family, dsn: str, allow: dict[str, str]
) -> None:
    """Four processes look, none of which takes jobs: a run that is left behind gets one job, not four."""
    server = await children.bear(dsn, "serve", "--no-worker", settings=allow)
    deaf = Sabotage(values={"flowserver.dispatcher.QUEUE": "of nobody"})
    await asyncio.gather(*(children.bear(dsn, "worker", sabotage=deaf) for _ in range(4)))
    runs = [await start(server.client, drawing(node("t", "Template", template="x")), "x") for _ in range(10)]
    await rows(dsn, "DELETE FROM procrastinate_jobs")
    await rows(dsn, "CREATE TABLE look (at timestamptz DEFAULT clock_timestamp())")
    await rows(
        dsn,
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO look DEFAULT VALUES; RETURN NULL; END $$",
    )
    await rows(
        dsn, "CREATE TRIGGER note AFTER INSERT ON procrastinate_jobs FOR EACH ROW EXECUTE FUNCTION note()"
    )
    before = await rows(dsn, "SELECT now() AS now")

    async def all_looked_twice() -> bool:
        found = await rows(
            dsn,
            "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database()"
            " AND query LIKE '%%FROM run%%' AND query_start > %s + interval '5 seconds'",
            before[0]["now"],
        )
        return bool(found[0]["n"])

    await until(all_looked_twice, "everybody has looked more than once", 20)
    jobs = await rows(dsn, "SELECT args->>'run' AS run FROM procrastinate_jobs WHERE queue_name = 'runs'")

    assert sorted(job["run"] for job in jobs) == sorted(runs)
    assert len(await rows(dsn, "SELECT 1 FROM look")) == 10


async def test_flt_42_more_runs_than_there_is_room_for_wait_and_begin_in_the_order_they_came(
    children: Family, web: WebServer, dsn: str, allow: dict[str, str]
) -> None:
    server = await children.bear(dsn, "serve", "--no-worker", settings=allow)
    flow = drawing(node("t", "Template", template="{{ input.label }}"))
    saved = (await server.client.post("/workflows", json={"name": "w", "flow_data": flow})).json()
    path, count = f"/workflows/{saved['id']}/runs", 200

    async def post(number: int) -> Any:
        body = {"input": {"label": f"r{number}"}, "mode": "background"}
        return (await server.client.post(path, json=body)).status_code

    statuses = [await post(number) for number in range(count)]
    tight = allow | {"FLOWSERVER_MAX_RUNS": "1"}
    worker = await children.bear(dsn, "worker", settings=tight)

    async def all_ended() -> bool:
        found = await rows(dsn, "SELECT count(*) AS n FROM run WHERE status = 'succeeded'")
        return bool(found[0]["n"] == count)

    await until(all_ended, "all have ended", 60)
    order = await rows(dsn, "SELECT input->>'label' AS label FROM run ORDER BY started_at")

    assert set(statuses) == {202}
    assert [row["label"] for row in order] == [f"r{number}" for number in range(count)]
    assert await rows(dsn, "SELECT 1 FROM run WHERE attempt <> 1") == []
    assert worker.lives
