"""Processes that die, stall, stop or are mistaken about the time at the worst moments."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from tests.faults.checks import (
    attempts,
    check_events,
    check_line,
    events,
    no_job_is_left,
    paths,
    rows,
    run_is,
    settled,
    start,
    until,
)
from tests.faults.drawings import Gate, chain, effect, keeping
from tests.faults.nursery import Child, Family
from tests.faults.sabotage import KILLED, Point, Sabotage
from tests.server import drawing, edge, node, told
from tests.web_server import Reply, WebServer

PUT = "flowserver.saver.FencedSaver.aput"
END = "flowserver.execution.Execution._end"


@pytest.fixture
def allow(web: WebServer) -> dict[str, str]:
    return {"FLOWSERVER_OUTBOUND_ALLOW": web.door}


@pytest.fixture
async def survivor(children: Family, dsn: str, allow: dict[str, str]) -> Child:
    return await children.bear(dsn, settings=allow)


async def dies(children: Family, dsn: str, allow: dict[str, str], point: Point, body: Any) -> str:
    """Execute a run on a server that dies at `point`; return the run's id."""
    victim = await children.bear(dsn, settings=allow, sabotage=Sabotage(points=(point,), takes_jobs=False))
    async with victim.client.stream("POST", "/runs", json={"mode": "stream", **body}) as response:
        assert await victim.ended() == KILLED
        return str(response.headers["x-run-id"])


@pytest.mark.parametrize(
    ("point", "effects"),
    [
        pytest.param(Point(at=PUT, do="die"), {1}, id="flt_04-before-the-first-checkpoint"),
        # The first step begins while the input is being stored: its effect may have been had by then.
        pytest.param(Point(at=PUT, do="die", when="after"), {1, 2}, id="flt_05-after-the-input-is-stored"),
        # The effect was in flight: it has been had, and its checkpoint is the one that is not stored.
        pytest.param(Point(at=PUT, do="die", nth=2), {2}, id="flt_05-before-the-second-checkpoint"),
    ],
)
async def test_flt_04_flt_05_flt_06_a_run_whose_process_dies_at_its_very_beginning_gets_its_input_once(
    children: Family,
    survivor: Child,
    web: WebServer,
    dsn: str,
    allow: dict[str, str],
    point: Point,
    effects: set[int],
) -> None:
    """The second one of a session: what the first has left is no answer to it."""
    for label in ("one", "two"):
        web.on(f"/{label}/a", Reply())
    body = {"flow_data": keeping(web, "a"), "session_id": "s", "durability": "sync"}
    first = (await survivor.client.post("/runs", json=body | {"input": {"label": "one"}})).json()

    run = await dies(children, dsn, allow, point, body | {"input": {"label": "two"}})
    ended = await run_is(survivor.client, run, "succeeded")

    assert (first["output"], ended["output"]) == ('["one"]', '["one","two"]')
    assert paths(web)[0] == "/one/a"
    assert set(paths(web)[1:]) == {"/two/a"}
    assert len(paths(web)[1:]) in effects
    found = await events(survivor.client, run)
    check_events(found)
    assert attempts(found) in ([1, 2], [2])  # the first one may not have been told before it died
    assert paths(web).count("/two/a") <= told(found).count("step.started s0")
    await check_line(dsn, run)


async def test_flt_08_a_kill_between_the_last_checkpoint_and_the_end_repeats_nothing(
    children: Family, survivor: Child, web: WebServer, dsn: str, allow: dict[str, str]
) -> None:
    for path in ("a", "b"):
        web.on(f"/x/{path}", Reply(body=path.encode()))
    body = {"flow_data": chain(web, "a", "b"), "input": {"label": "x"}, "durability": "sync"}

    run = await dies(children, dsn, allow, Point(at=END, do="die"), body)
    ended = await run_is(survivor.client, run, "succeeded")

    assert ended["output"] == "b"
    assert paths(web) == ["/x/a", "/x/b"]
    found = await events(survivor.client, run)
    check_events(found)
    assert told(found).count("step.finished s1") == 1


async def test_flt_09_a_job_whose_run_ended_before_its_worker_died_changes_nothing(
    children: Family, web: WebServer, dsn: str, allow: dict[str, str]
) -> None:
    web.on("/x/a", Reply(body=b"done"))
    server = await children.bear(dsn, "serve", "--no-worker", settings=allow)
    worker = await children.bear(
        dsn, "worker", settings=allow, sabotage=Sabotage(points=(Point(at=END, do="die", when="after"),))
    )
    run = await start(server.client, chain(web, "a"), "x")
    assert await worker.ended() == KILLED
    before = await events(server.client, run)
    jobs = await rows(dsn, "SELECT status FROM procrastinate_jobs WHERE queue_name = 'runs'")
    assert [job["status"] for job in jobs] == ["doing"]

    # The dead worker is known to be dead, and the job is delivered again.
    await rows(dsn, "UPDATE procrastinate_workers SET last_heartbeat = now() - interval '2 minutes'")
    await rows(dsn, "SELECT defer_run(%s)", run)
    await children.bear(dsn, "worker", settings=allow)
    await no_job_is_left(dsn)

    assert before[-1]["event"] == "run.succeeded"
    assert await events(server.client, run) == before
    assert paths(web) == ["/x/a"]


async def test_flt_10_a_kill_in_a_fan_out_repeats_branches_at_most_once_and_joins_each_once(
    children: Family, survivor: Child, web: WebServer, dsn: str, allow: dict[str, str]
) -> None:
    gate = Gate()
    names = "abcde"
    for name in names:
        web.on(f"/x/{name}", *([gate.answer] if name in "de" else []), Reply(body=name.encode()))
    flow = drawing(
        node("start", "StartNode"),
        *(effect(name, web, name) for name in names),
        node("end", "EndNode"),
        *(edge("start", name) for name in names),
        *(edge(name, "end") for name in names),
    )
    victim = await children.bear(dsn, settings=allow, sabotage=Sabotage(takes_jobs=False))
    starting = asyncio.create_task(
        victim.client.post("/runs", json={"flow_data": flow, "input": {"label": "x"}})
    )
    await gate.arrivals(2)

    async def three_are_done() -> bool:
        done = await rows(dsn, "SELECT count(*) AS n FROM run_event WHERE type = 'step.finished'")
        return bool(done[0]["n"] >= 4)  # the start node too

    await until(three_are_done, "three branches are done")
    await victim.kill()
    await asyncio.gather(starting, return_exceptions=True)
    run = str((await rows(dsn, "SELECT id FROM run"))[0]["id"])
    ended = await run_is(survivor.client, run, "succeeded")

    assert ended["output"] == list(names)
    done = [path.removeprefix("/x/") for path in paths(web)]
    assert [done.count(name) for name in "de"] == [2, 2]
    assert all(done.count(name) <= 2 for name in "abc")
    found = await events(survivor.client, run)
    check_events(found)
    assert told(found).count("step.finished end") == 1


@pytest.mark.parametrize("answered", [False, True], ids=["its-call-hangs", "its-call-was-answered"])
async def test_flt_12_str_12_a_process_that_was_stopped_past_its_lease_writes_nothing_when_it_wakes(
    children: Family, web: WebServer, dsn: str, allow: dict[str, str], answered: bool
) -> None:
    gate = Gate(b"zombie")
    web.on("/x/a", Reply())
    web.on("/x/b", gate.answer, Reply(body=b"new owner"))
    web.on("/x/c", Reply(body=b"c"))
    web.on("/y/a", Reply(body=b"works"))
    flow = drawing(
        node("start", "StartNode"),
        *(effect(step, web, step) for step in "abc"),
        node("end", "Template", template="{{ b.content }}"),
        *(edge(x, y) for x, y in (("start", "a"), ("a", "b"), ("b", "c"), ("c", "end"))),
    )
    sleeper = await children.bear(dsn, settings=allow)
    body = {"flow_data": flow, "input": {"label": "x"}, "mode": "stream"}
    watching = asyncio.create_task(sleeper.client.post("/runs", json=body))
    await gate.arrivals()
    other = await children.bear(dsn, settings=allow)
    run = str((await rows(dsn, "SELECT id FROM run"))[0]["id"])

    sleeper.signal(signal.SIGSTOP)
    ended = await run_is(other.client, run, "succeeded")
    before, row = await events(other.client, run), await rows(dsn, "SELECT * FROM run WHERE id = %s", run)
    if answered:
        gate.open.set()
        await settled(web)
    sleeper.signal(signal.SIGCONT)

    async def gave_up() -> bool:
        log = sleeper.log.read_text()
        return "another process has it now" in log or "left after Fenced" in log

    await until(gave_up, "the process that was stopped gives the run up", 5)
    if not answered:
        await gate.departures()
    await watching
    fresh = await sleeper.client.post("/runs", json={"flow_data": chain(web, "a"), "input": {"label": "y"}})

    assert (ended["output"], ended["attempt"]) == ("new owner", 2)
    assert row[0]["worker"].endswith(f":{other.pid}")
    assert await events(other.client, run) == before
    assert await rows(dsn, "SELECT * FROM run WHERE id = %s", run) == row
    check_events(before)
    assert attempts(before) == [1, 2]
    assert [path for path in paths(web) if path.startswith("/x")] == ["/x/a", "/x/b", "/x/b", "/x/c"]
    assert fresh.json()["output"] == "works"
    await check_line(dsn, run)


async def test_flt_13_a_blocked_event_loop_keeps_its_runs(
    children: Family, survivor: Child, web: WebServer, dsn: str, allow: dict[str, str]
) -> None:
    gate = Gate()
    web.on("/quiet/a", gate.answer)
    web.on("/blocking/a", Reply(body=b"done"))
    # The third step to start is the blocking run's first: for more than two leases nothing else goes on.
    block = Point(at="flowserver.recorder.Recorder.started", do="block", nth=3, seconds=4.5)
    blocked = await children.bear(dsn, settings=allow, sabotage=Sabotage(points=(block,), takes_jobs=False))
    flow = chain(web, "a")
    quiet = asyncio.create_task(
        blocked.client.post("/runs", json={"flow_data": flow, "input": {"label": "quiet"}})
    )
    await gate.arrivals()

    blocking = await blocked.client.post("/runs", json={"flow_data": flow, "input": {"label": "blocking"}})
    gate.open.set()
    runs = [(await quiet).json(), blocking.json()]

    assert [(run["status"], run["attempt"]) for run in runs] == [("succeeded", 1)] * 2
    assert sorted(paths(web)) == ["/blocking/a", "/quiet/a"]
    assert await rows(dsn, "SELECT id FROM run WHERE epoch <> 1") == []


async def test_flt_14_a_run_that_kills_its_process_twice_is_set_aside(
    children: Family, web: WebServer, dsn: str, allow: dict[str, str]
) -> None:
    web.on("/good/a", Reply(body=b"fine"))
    server = await children.bear(dsn, "serve", "--no-worker", settings=allow)
    victims: list[Child] = []

    def shoot(request: Any) -> Reply:
        os.kill(victims[-1].pid, signal.SIGKILL)
        return Reply()

    web.on("/poison/a", shoot)
    settings = allow | {"FLOWSERVER_LEASE_SECONDS": "1"}
    poison = await start(server.client, chain(web, "a"), "poison")
    for _ in range(2):
        victims.append(await children.bear(dsn, "worker", settings=settings))
        assert await victims[-1].ended() == -signal.SIGKILL
    victims.append(await children.bear(dsn, "worker", settings=settings))
    good = await start(server.client, chain(web, "a"), "good")

    assert (await run_is(server.client, good, "succeeded"))["output"] == "fine"
    found = await run_is(server.client, poison, "failed")
    assert (found["error"]["code"], found["error"]["step"], found["attempt"]) == ("poisoned", "s0", 2)
    assert (
        found["error"]["message"].startswith("twice the process") and "at: 's0'" in found["error"]["message"]
    )
    assert paths(web).count("/poison/a") == 2
    assert victims[-1].lives
    told = await events(server.client, poison)
    check_events(told)
    assert [each["error"]["code"] for each in told if each["event"] == "step.failed"] == ["poisoned"]


async def test_a_run_that_gets_on_between_the_deaths_of_its_processes_is_not_set_aside(
    children: Family, web: WebServer, dsn: str, allow: dict[str, str]
) -> None:
    server = await children.bear(dsn, "serve", "--no-worker", settings=allow)
    victims: list[Child] = []

    def shoot(request: Any) -> Reply:
        os.kill(victims[-1].pid, signal.SIGKILL)
        return Reply()

    steps = ("a", "b", "c", "d")
    for each in steps:
        web.on(f"/unlucky/{each}", shoot, Reply(body=each.encode()))
    settings = allow | {"FLOWSERVER_LEASE_SECONDS": "1"}
    run = await start(server.client, chain(web, *steps), "unlucky")
    for _ in steps:
        victims.append(await children.bear(dsn, "worker", settings=settings))
        assert await victims[-1].ended() == -signal.SIGKILL
    victims.append(await children.bear(dsn, "worker", settings=settings))

    found = await run_is(server.client, run, "succeeded")
    assert (found["output"], found["attempt"]) == ("d", 5)


ASKS = drawing(
    node("start", "StartNode"),
    node("ask", "HumanInput", question="Who?"),
    node("again", "HumanInput", question="Sure, {{ ask.answer }}?"),
    node("end", "Template", template="{{ ask.answer }}, {{ again.answer }}"),
    edge("start", "ask"),
    edge("ask", "again"),
    edge("again", "end"),
)


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(Point(at="flowserver.runs.answer", do="die", when="after"), id="the-answer-is-taken"),
        pytest.param(
            Point(at="flowserver.recorder.Recorder.finished", do="die", nth=2), id="the-step-has-its-answer"
        ),
        pytest.param(
            Point(at="flowserver.execution.ask", do="die", nth=2), id="the-next-question-is-not-yet-put"
        ),
        pytest.param(
            Point(at="flowserver.execution.ask", do="die", nth=2, when="after"), id="the-next-question-is-put"
        ),
    ],
)
async def test_flt_35_a_kill_around_an_answer_loses_no_answer_and_gives_it_to_no_other_question(
    children: Family, dsn: str, point: Point
) -> None:
    victim = await children.bear(dsn, sabotage=Sabotage(points=(point,), takes_jobs=False))
    waiting = (await victim.client.post("/runs", json={"flow_data": ASKS})).json()
    path, first = f"/runs/{waiting['id']}/resume", waiting["questions"][0]["id"]
    request: dict[str, Any] = {
        "json": {"question_id": first, "answer": "Ada"},
        "headers": {"Idempotency-Key": "k"},
    }

    await asyncio.gather(victim.client.post(path, **request), return_exceptions=True)
    assert await victim.ended() == KILLED
    survivor = await children.bear(dsn)  # sooner, it might have been the one to go on with the run
    retry = await survivor.client.post(path, **request)

    async def asks_again() -> Any:
        found = (await survivor.client.get(f"/runs/{waiting['id']}")).json()
        return found if found["status"] == "waiting" and found["questions"][0]["id"] != first else None

    again = await until(asks_again, "the next question is open")
    await survivor.client.post(path, json={"question_id": again["questions"][0]["id"], "answer": "yes"})
    ended = await run_is(survivor.client, waiting["id"], "succeeded")

    assert (retry.status_code, retry.headers["idempotency-replayed"]) == (202, "true")
    assert again["questions"][0]["payload"]["question"] == "Sure, Ada?"
    assert ended["output"] == "Ada, yes"
    found = await events(survivor.client, waiting["id"])
    check_events(found)
    assert told(found).count("run.waiting") == 2


async def test_flt_36_a_cancel_reaches_a_run_of_another_process_and_its_call(
    children: Family, survivor: Child, web: WebServer, dsn: str, allow: dict[str, str]
) -> None:
    gate = Gate()
    web.on("/x/a", gate.answer)
    worker = await children.bear(dsn, settings=allow, sabotage=Sabotage(takes_jobs=False))
    body = {"flow_data": chain(web, "a"), "input": {"label": "x"}, "mode": "stream"}
    streaming = asyncio.create_task(worker.client.post("/runs", json=body))
    await gate.arrivals()
    run = str((await rows(dsn, "SELECT id FROM run"))[0]["id"])

    began = asyncio.get_running_loop().time()
    answers = [await survivor.client.post(f"/runs/{run}/cancel") for _ in range(2)]
    await gate.departures()
    await run_is(survivor.client, run, "cancelled")
    seconds = asyncio.get_running_loop().time() - began
    once_more = await survivor.client.post(f"/runs/{run}/cancel")
    found = told(await events(survivor.client, run))

    assert seconds < 5
    assert [answer.status_code for answer in (*answers, once_more)] == [202] * 3
    assert "run.cancelled" in (await streaming).text
    assert found.count("run.cancelled") == 1 and found[-1] == "run.cancelled"


async def test_flt_36_a_cancel_of_a_run_whose_process_is_dead_is_carried_out_by_another(
    children: Family, survivor: Child, web: WebServer, dsn: str, allow: dict[str, str]
) -> None:
    gate = Gate()
    web.on("/x/a", gate.answer)
    victim = await children.bear(dsn, settings=allow, sabotage=Sabotage(takes_jobs=False))
    body = {"flow_data": chain(web, "a"), "input": {"label": "x"}}
    running = asyncio.create_task(victim.client.post("/runs", json=body))
    await gate.arrivals()
    run = str((await rows(dsn, "SELECT id FROM run"))[0]["id"])
    await victim.kill()
    await asyncio.gather(running, return_exceptions=True)

    answer = await survivor.client.post(f"/runs/{run}/cancel")
    ended = await run_is(survivor.client, run, "cancelled", seconds=10)

    assert answer.status_code == 202
    assert ended["attempt"] == 1
    assert paths(web) == ["/x/a"]
    check_events(await events(survivor.client, run))


async def test_flt_36_queued_runs_are_cancelled_at_once_and_those_that_end_just_now_end_once(
    children: Family, web: WebServer, dsn: str, allow: dict[str, str]
) -> None:
    server = await children.bear(dsn, "serve", "--no-worker", settings=allow)
    queued = await start(server.client, chain(web, "never"), "x")
    at_once = await server.client.post(f"/runs/{queued}/cancel")
    await children.bear(dsn, "worker", settings=allow)
    flow = drawing(node("t", "Template", template="done"))
    runs = [await start(server.client, flow, "y") for _ in range(20)]

    answers = await asyncio.gather(*(server.client.post(f"/runs/{run}/cancel") for run in runs))
    ended = [await run_is(server.client, run, "succeeded", "cancelled", seconds=5) for run in runs]

    assert at_once.json()["status"] == "cancelled"
    assert web.requests == []
    assert {answer.status_code for answer in answers} <= {202, 409}
    for run in ended:
        found = await events(server.client, run["id"])
        check_events(found)
        assert found[-1]["event"] == f"run.{run['status']}"


async def test_flt_37_a_worker_that_is_told_to_stop_hands_over_and_counts_no_attempt(
    children: Family, web: WebServer, dsn: str, allow: dict[str, str]
) -> None:
    gate = Gate()
    server = await children.bear(dsn, "serve", "--no-worker", settings=allow)
    settings = allow | {"FLOWSERVER_GRACE_SECONDS": "0.5"}
    worker = await children.bear(dsn, "worker", settings=settings)
    short = [await start(server.client, chain(web, "s"), f"short{n}") for n in range(3)]
    for n in range(3):
        web.on(f"/short{n}/s", Reply(body=b"short"))
        web.on(f"/long{n}/before", Reply())
        web.on(f"/long{n}/l", gate.answer, Reply(body=b"long"))
    for run in short:
        await run_is(server.client, run, "succeeded", "failed")
    long = [await start(server.client, chain(web, "before", "l"), f"long{n}") for n in range(3)]
    asking = await start(server.client, ASKS, "asks")
    await gate.arrivals(3)
    await run_is(server.client, asking, "waiting")

    worker.signal(signal.SIGTERM)
    assert await worker.ended() == 0
    left = [(await server.client.get(f"/runs/{run}")).json() for run in long]
    await children.bear(dsn, "worker", settings=settings)
    ended = [await run_is(server.client, run, "succeeded") for run in long]

    assert [(run["status"], run["attempt"]) for run in left] == [("queued", 0)] * 3
    assert [(run["output"], run["attempt"]) for run in ended] == [("long", 1)] * 3
    for n in range(3):
        assert paths(web).count(f"/long{n}/before") == 1
    assert (await server.client.get(f"/runs/{asking}")).json()["status"] == "waiting"
    for run in long:
        check_events(await events(server.client, run))


async def test_flt_37_the_second_signal_ends_a_worker_at_once_and_another_recovers_its_run(
    children: Family, survivor: Child, web: WebServer, dsn: str, allow: dict[str, str]
) -> None:
    gate = Gate()
    web.on("/x/a", gate.answer, Reply(body=b"recovered"))
    patient = allow | {"FLOWSERVER_GRACE_SECONDS": "60"}
    server = await children.bear(dsn, settings=patient, sabotage=Sabotage(takes_jobs=False))
    running = asyncio.create_task(
        server.client.post("/runs", json={"flow_data": chain(web, "a"), "input": {"label": "x"}})
    )
    await gate.arrivals()
    run = str((await rows(dsn, "SELECT id FROM run"))[0]["id"])

    server.signal(signal.SIGTERM)
    await until(lambda: refuses(server), "it takes no more requests")
    server.signal(signal.SIGTERM)
    await asyncio.wait_for(server.ended(), 10)
    await asyncio.gather(running, return_exceptions=True)

    assert (await run_is(survivor.client, run, "succeeded"))["output"] == "recovered"
    check_events(await events(survivor.client, run))


async def refuses(server: Child) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", server.client.base_url.port)
    except ConnectionError:
        return True
    writer.close()
    return False


async def test_flt_38_what_this_version_cannot_run_fails_by_name_and_takes_nothing_along(
    children: Family, web: WebServer, dsn: str, allow: dict[str, str]
) -> None:
    """As after a deployment, when a worker of another version takes the job."""
    server = await children.bear(dsn, "serve", "--no-worker", settings=allow)
    flow = drawing(node("t", "Template", template="fine"))
    strange = await start(server.client, flow, "x")
    await rows(
        dsn,
        "UPDATE workflow_version SET flow_data = replace(flow_data::text, 'Template', 'FromTheFuture')::json",
    )
    good = await start(server.client, drawing(node("t", "Template", template="good")), "y")

    worker = await children.bear(dsn, "worker", settings=allow)
    failed = await run_is(server.client, strange, "failed")

    assert (failed["error"]["code"], failed["attempt"]) == ("incompatible_version", 1)
    assert (await run_is(server.client, good, "succeeded"))["output"] == "good"
    assert worker.lives


async def test_flt_59_a_run_keeps_the_version_it_was_started_with_wherever_it_goes_on(
    children: Family, dsn: str
) -> None:
    def asks(text: str) -> dict[str, Any]:
        return drawing(
            node("ask", "HumanInput", question="?"),
            node("end", "Template", template=text + " {{ ask.answer }}"),
            edge("ask", "end"),
        )

    first = await children.bear(dsn)
    saved = (await first.client.post("/workflows", json={"name": "w", "flow_data": asks("old")})).json()
    waiting = (await first.client.post(f"/workflows/{saved['id']}/runs", json={})).json()
    changed = await first.client.put(
        f"/workflows/{saved['id']}", json={"name": "w", "flow_data": asks("new")}
    )
    await first.kill()
    second = await children.bear(dsn)

    await second.client.post(f"/runs/{waiting['id']}/resume", json={"answer": "x"})

    assert changed.status_code == 200
    ended = await run_is(second.client, waiting["id"], "succeeded")
    assert (ended["output"], ended["version"]) == ("old x", waiting["version"])


@pytest.mark.parametrize("clock", [-60, -3600, 3600])
async def test_flt_27_servers_whose_clocks_disagree_share_sessions_and_leases(
    children: Family, survivor: Child, web: WebServer, dsn: str, allow: dict[str, str], clock: float
) -> None:
    strange = await children.bear(dsn, settings=allow, sabotage=Sabotage(clock=clock))
    flow = keeping(web, "a", "b")
    labels = [f"r{number}" for number in range(4)]
    found: dict[str, Any] = {}
    for label, server in zip(labels, (survivor, strange) * 2, strict=True):
        for path in ("a", "b"):
            web.on(f"/{label}/{path}", Reply())
        body = {"flow_data": flow, "session_id": "s", "input": {"label": label}}
        found = (await server.client.post("/runs", json=body)).json()
        assert (found["status"], found["attempt"]) == ("succeeded", 1)

    assert found["output"] == '["r0","r1","r2","r3"]'
    assert await rows(dsn, "SELECT 1 FROM run_event WHERE abs(extract(epoch FROM at - now())) > 50") == []


async def test_flt_28_a_clock_that_jumps_back_in_the_middle_of_a_run_does_no_harm(
    children: Family, survivor: Child, web: WebServer, dsn: str, allow: dict[str, str]
) -> None:
    """The process dies after the jump: the newest checkpoint must be the one that another finds."""
    for path in "abcd":
        web.on(f"/x/{path}", Reply(body=path.encode()))
    finished = "flowserver.recorder.Recorder.finished"
    points = (
        Point(at=finished, do="clock", nth=3, seconds=-3600),
        Point(at=finished, do="die", nth=5, when="after"),
    )
    victim = await children.bear(dsn, settings=allow, sabotage=Sabotage(points=points, takes_jobs=False))
    body = {"flow_data": chain(web, *"abcd"), "input": {"label": "x"}, "mode": "stream", "durability": "sync"}
    async with victim.client.stream("POST", "/runs", json=body) as response:
        run = response.headers["x-run-id"]
        assert await victim.ended() == KILLED

    ended = await run_is(survivor.client, run, "succeeded")

    assert ended["output"] == "d"
    assert [paths(web).count(f"/x/{path}") for path in "abcd"] == [1, 1, 1, 2]
    await check_line(dsn, run)
