"""Schedules: what fires when, once, and what becomes of firings that are late or meet an earlier run.

The clock is Postgres'. A schedule is made due by putting its row back in time; nobody waits for a minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import httpx
import pytest

from flowserver.app import create_app
from flowserver.assembly import Flowserver, assemble
from flowserver.settings import Settings
from flowserver.ticker import Ticker
from tests.faults.checks import rows, until
from tests.server import drawing, edge, node, serving

Client = httpx.AsyncClient
FLOW = drawing(
    node("timer", "TimerStart", schedule_type="manual"), node("end", "EndNode"), edge("timer", "end")
)


@pytest.fixture
async def still(settings: Settings, dsn: str) -> AsyncIterator[Flowserver]:
    """A server that does nothing by itself."""
    async with assemble(settings, dsn, role="none") as flowserver:
        yield flowserver


@pytest.fixture
async def client(settings: Settings, dsn: str) -> AsyncIterator[Client]:
    """A server that executes no runs and looks for no schedules."""
    async with serving(create_app(settings, dsn, role="none")) as client:
        yield client


def ticker(flowserver: Flowserver) -> Ticker:
    return Ticker(flowserver.pool, flowserver.workflows, flowserver.runs)


async def published(client: Client, flow: dict[str, Any] = FLOW) -> str:
    saved = (await client.post("/workflows", json={"name": "w", "flow_data": flow})).json()
    assert (await client.post(f"/workflows/{saved['id']}/publish")).status_code == 200
    return str(saved["id"])


async def scheduled(client: Client, workflow: str, **timing: Any) -> str:
    made = await client.post(
        "/schedules", json={"workflow_id": workflow, "timing": timing, "input": {"n": 1}}
    )
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


async def came_due(dsn: str, schedule: str, ago: timedelta) -> None:
    """As if the schedule's next firing had been `ago`."""
    query = (
        "UPDATE schedule SET anchor = now() - %s::interval, next_at = now() - %s::interval,"
        " due_at = now() - %s::interval WHERE id = %s RETURNING id"
    )
    await rows(dsn, query, ago, ago, ago, schedule)


async def firings(client: Client, schedule: str) -> list[dict[str, Any]]:
    return list((await client.get(f"/schedules/{schedule}/firings")).json()["items"])


async def test_a_firing_starts_a_run_and_the_next_one_is_set(
    client: Client, still: Flowserver, dsn: str
) -> None:
    workflow = await published(client)
    schedule = await scheduled(client, workflow, every=3600)
    await came_due(dsn, schedule, timedelta(seconds=5))

    await ticker(still).look()
    await ticker(still).look()

    [firing] = await firings(client, schedule)
    run = (await client.get(f"/runs/{firing['run_id']}")).json()
    assert (firing["status"], firing["is_manual"]) == ("started", False)
    assert (run["status"], run["input"], run["workflow_id"]) == ("queued", {"n": 1}, workflow)
    assert run["trigger"]["type"] == "schedule"
    assert run["trigger"]["schedule"] == schedule
    assert datetime.fromisoformat(run["trigger"]["due"]) == datetime.fromisoformat(firing["at"])
    shown = (await client.get(f"/schedules/{schedule}")).json()
    assert (shown["fired"], shown["last_at"], len(shown["next"])) == (1, firing["at"], 10)
    assert datetime.fromisoformat(shown["next"][0]) > datetime.now(UTC)


@pytest.mark.parametrize(
    ("misfire", "starts"),
    [
        ({"misfire": "coalesce"}, 1),
        ({"misfire": "skip"}, 0),
        ({"misfire": "all", "misfire_limit": 7}, 7),
        ({}, 1),
    ],
)
async def test_flt_44_what_came_due_while_all_were_away_is_made_up_for_as_the_schedule_says(
    client: Client, still: Flowserver, dsn: str, misfire: dict[str, Any], starts: int
) -> None:
    schedule = await scheduled(client, await published(client), every=120, **misfire)
    await came_due(dsn, schedule, timedelta(hours=3, seconds=-50))  # the last one more than a minute ago

    await ticker(still).look()
    await ticker(still).look()

    found = await firings(client, schedule)
    assert [each["status"] for each in found] == (["started"] * starts or ["skipped"])
    assert len((await client.get("/runs")).json()["items"]) == starts
    instants = [datetime.fromisoformat(each["at"]) for each in found]
    assert instants == sorted(instants, reverse=True)
    assert all(a - b == timedelta(minutes=2) for a, b in pairwise(instants))
    shown = (await client.get(f"/schedules/{schedule}")).json()
    assert datetime.fromisoformat(shown["next"][0]) > datetime.now(UTC)


@pytest.mark.parametrize(
    ("overlap", "second"),
    [
        ("allow", ("started", None, "queued")),
        ("skip", ("skipped", "a run of an earlier firing is not over", "queued")),
        ("queue", ("waiting", None, "queued")),
        ("cancel_previous", ("started", None, "cancelled")),
    ],
)
async def test_a_firing_that_meets_a_run_of_an_earlier_one_does_what_the_schedule_says(
    client: Client, still: Flowserver, dsn: str, overlap: str, second: tuple[Any, ...]
) -> None:
    schedule = await scheduled(client, await published(client), every=3600, overlap=overlap)

    for _ in range(2):
        await came_due(dsn, schedule, timedelta(seconds=5))
        await ticker(still).look()

    newest, first = await firings(client, schedule)
    assert (first["status"], newest["status"], newest["because"], first["run_status"]) == ("started", *second)


async def test_firings_that_wait_start_in_order_when_their_turn_comes(
    client: Client, still: Flowserver, dsn: str
) -> None:
    schedule = await scheduled(client, await published(client), every=3600, overlap="queue")
    for _ in range(3):
        await came_due(dsn, schedule, timedelta(seconds=5))
        await ticker(still).look()

    before = [each["status"] for each in await firings(client, schedule)]
    for _ in range(3):
        open_ = (await client.get("/runs?status=queued")).json()["items"]
        assert len(open_) <= 1
        for run in open_:
            await client.post(f"/runs/{run['id']}/cancel")
        await ticker(still).look()
    found = await firings(client, schedule)

    assert before == ["waiting", "waiting", "started"]
    assert [each["status"] for each in found] == ["started"] * 3
    runs = [each["run_id"] for each in found]
    assert runs == sorted(runs, reverse=True)


async def test_it_fires_as_often_as_it_may_and_not_after_its_end(
    client: Client, still: Flowserver, dsn: str
) -> None:
    workflow = await published(client)
    twice = await scheduled(client, workflow, every=3600, max_count=2)
    for _ in range(4):
        await rows(
            dsn, "UPDATE schedule SET due_at = now(), next_at = now() WHERE next_at IS NOT NULL RETURNING id"
        )
        await ticker(still).look()
    once = await scheduled(client, workflow, once=(datetime.now(UTC) - timedelta(seconds=3)).isoformat())
    await ticker(still).look()
    await ticker(still).look()
    over = await scheduled(client, workflow, every=60, ends_at="2020-01-01T00:00:00Z")

    assert len(await firings(client, twice)) == 2
    assert [each["status"] for each in await firings(client, once)] == ["started"]
    for schedule in (twice, once, over):
        assert (await client.get(f"/schedules/{schedule}")).json()["next"] == []


async def test_sec_86_jitter_puts_each_firing_later_and_the_same_for_all(
    client: Client, still: Flowserver, dsn: str
) -> None:
    workflow = await published(client)
    for _ in range(20):
        await scheduled(client, workflow, cron="0 0 * * *", jitter=600)

    found = await rows(dsn, "SELECT due_at - next_at AS later, next_at FROM schedule")

    assert len({row["next_at"] for row in found}) == 1
    later = [row["later"].total_seconds() for row in found]
    assert all(0 <= each <= 600 for each in later)
    assert len(set(later)) == 20


async def test_a_workflow_that_is_unpublished_or_deleted_fires_no_more(
    client: Client, still: Flowserver, dsn: str
) -> None:
    drawn = drawing(
        node(
            "timer",
            "TimerStartNode",
            schedule_type="interval",
            interval_seconds="3600",
            trigger_data='{"a": 1}',
        ),
        node("end", "EndNode"),
        edge("timer", "end"),
    )
    workflow = await published(client, drawn)
    await scheduled(client, workflow, every=3600)
    every = (await client.get(f"/schedules?workflow_id={workflow}")).json()["items"]
    assert [each["source"] for each in every] == ["api", "drawing"]

    await client.post(f"/workflows/{workflow}/unpublish")
    hushed = await rows(dsn, "SELECT next_at, due_at FROM schedule")
    await client.post(f"/workflows/{workflow}/publish")
    again = (await client.get(f"/schedules/{every[1]['id']}")).json()
    without = drawing(node("start", "StartNode"), node("end", "EndNode"), edge("start", "end"))
    await client.put(f"/workflows/{workflow}", json={"flow_data": without})
    drafted = (await client.get(f"/schedules/{every[1]['id']}")).json()
    await client.post(f"/workflows/{workflow}/publish")
    undrawn = (await client.get(f"/schedules/{every[1]['id']}")).json()
    await client.delete(f"/workflows/{workflow}")

    assert {(row["next_at"], row["due_at"]) for row in hushed} == {(None, None)}
    assert (again["is_live"], len(again["next"]), again["input"]) == (True, 10, {"a": 1})
    assert len(drafted["next"]) == 10  # what is only drawn is not published
    assert (undrawn["is_live"], undrawn["next"]) == (False, [])
    assert await rows(dsn, "SELECT id FROM schedule") == []


async def test_what_came_due_while_it_was_paused_is_not_made_up_for(
    client: Client, still: Flowserver, dsn: str
) -> None:
    schedule = await scheduled(client, await published(client), every=60)
    await came_due(dsn, schedule, timedelta(hours=1))

    paused = (await client.patch(f"/schedules/{schedule}", json={"is_paused": True})).json()
    await ticker(still).look()
    resumed = (await client.patch(f"/schedules/{schedule}", json={"is_paused": False})).json()
    await ticker(still).look()

    assert (paused["next"], len(resumed["next"])) == ([], 10)
    assert await firings(client, schedule) == []


async def test_another_zone_moves_what_is_to_come(client: Client) -> None:
    schedule = await scheduled(client, await published(client), cron="0 9 * * *", timezone="Europe/Berlin")
    before = (await client.get(f"/schedules/{schedule}")).json()["next"][0]

    timing = {"cron": "0 9 * * *", "timezone": "Asia/Tokyo"}
    after = (await client.patch(f"/schedules/{schedule}", json={"timing": timing})).json()["next"][0]

    assert datetime.fromisoformat(before).hour in (7, 8)
    assert datetime.fromisoformat(after).hour == 0


async def test_one_can_be_fired_by_hand_also_while_it_is_paused(client: Client) -> None:
    schedule = await scheduled(client, await published(client), every=60)
    await client.patch(f"/schedules/{schedule}", json={"is_paused": True})

    fired = await client.post(f"/schedules/{schedule}/trigger")

    assert (fired.status_code, fired.json()["status"], fired.json()["input"]) == (202, "queued", {"n": 1})
    [firing] = await firings(client, schedule)
    assert (firing["is_manual"], firing["run_id"]) == (True, fired.json()["id"])
    workflow = fired.json()["workflow_id"]
    await client.post(f"/workflows/{workflow}/unpublish")
    refused = await client.post(f"/schedules/{schedule}/trigger")
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:flowserver:problem:not_published")


async def test_a_workflow_that_cannot_run_any_more_says_so_in_its_firings(
    client: Client, still: Flowserver, dsn: str
) -> None:
    schedule = await scheduled(client, await published(client), every=3600)
    await rows(dsn, "UPDATE schedule SET step = 'nobody' RETURNING id")
    await came_due(dsn, schedule, timedelta(seconds=5))

    await ticker(still).look()

    [firing] = await firings(client, schedule)
    assert (firing["status"], firing["run_id"]) == ("failed", None)
    assert "'nobody' is not a trigger of this workflow" in firing["because"]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"cron": "* * * * * *"}, "five fields"),
    ({"cron": "0 0 30 2 *"}, "no cron expression"),
    ({"cron": "1," * 60 + "1 * * * *"}, "at most 100 characters"),
    ({"cron": "0 0 * * *", "timezone": "Mars/X"}, "no time zone"),
    ({"every": 0.2}, ">= 1"),
    ({}, "exactly one of"),
    ({"every": 60, "unknown": 1}, "unknown field `unknown`"),
]


async def test_sec_86_what_is_no_timing_is_refused_in_words(client: Client) -> None:
    workflow = await published(client)

    for timing, words in REFUSED:
        refused = await client.post("/schedules", json={"workflow_id": workflow, "timing": timing})

        assert refused.status_code in (400, 422), timing
        assert words in refused.json()["detail"]
    assert (await client.get("/schedules")).json()["items"] == []


MISTAKES: list[tuple[dict[str, Any], str, str]] = [
    ({"schedule_type": "cron", "cron_expression": "* * * * * *"}, "cron_expression", "five fields"),
    ({"schedule_type": "once"}, "", "'scheduled_time' says when"),
    ({"schedule_type": "once", "scheduled_time": "soon"}, "scheduled_time", "'soon' is no instant"),
    ({"timezone": "Berlin"}, "timezone", "'Berlin' is no time zone"),
    ({"interval_seconds": 0}, "interval_seconds", "from 1 to 31622400"),
    ({"interval_seconds": "{{ vars.n }}"}, "interval_seconds", "must be known before the run"),
]


async def test_a_timer_that_cannot_fire_is_named_when_it_is_checked(client: Client) -> None:
    for settings_, pointer, words in MISTAKES:
        timer = node("timer", "TimerStart", **settings_)
        flow = drawing(timer, node("end", "EndNode"), edge("timer", "end"))

        [problem] = (await client.post("/workflows/check", json={"flow_data": flow})).json()["problems"]

        assert problem["severity"] == "error"
        assert words in problem["message"]
        assert problem["pointer"] == "/nodes/0/data" + (f"/{pointer}" if pointer else "")


async def test_mt_17_what_a_drawing_says_is_changed_there(client: Client) -> None:
    drawn = drawing(node("timer", "TimerStart"), node("end", "EndNode"), edge("timer", "end"))
    workflow = await published(client, drawn)
    [schedule] = (await client.get(f"/schedules?workflow_id={workflow}")).json()["items"]

    changed = await client.patch(f"/schedules/{schedule['id']}", json={"timing": {"every": 5}})
    deleted = await client.delete(f"/schedules/{schedule['id']}")
    paused = await client.patch(f"/schedules/{schedule['id']}", json={"is_paused": True})

    assert (changed.status_code, deleted.status_code, paused.status_code) == (409, 409, 200)


async def test_a_timer_gives_what_it_is_to_start_with_and_when_it_was_due(
    settings: Settings, dsn: str
) -> None:
    async with serving(create_app(settings, dsn)) as client:
        flow = drawing(
            node(
                "timer", "TimerStart", name="timer", trigger_data='{"message": "hi"}', interval_seconds=3600
            ),
            node("t", "Template", template="{{ timer.message }} {{ timer.schedule_info.schedule }}"),
            edge("timer", "t"),
        )
        by_hand = (
            await client.post(
                "/runs",
                json={
                    "flow_data": drawing(
                        *flow["nodes"][:1],
                        node("t", "Template", template="{{ timer.message }}"),
                        edge("timer", "t"),
                    )
                },
            )
        ).json()
        workflow = await published(client, flow)
        [schedule] = (await client.get(f"/schedules?workflow_id={workflow}")).json()["items"]
        await came_due(dsn, schedule["id"], timedelta(seconds=5))

        async def ended() -> Any:
            found = (await client.get(f"/runs?workflow_id={workflow}&status=succeeded")).json()["items"]
            return found[0] if found else None

        run = await until(ended, "a run of the schedule to end")

        assert by_hand["output"] == "hi"
        assert run["output"] == f"hi {schedule['id']}"


async def test_i10_flt_46_ten_processes_that_look_at_once_fire_each_instant_once(
    client: Client, settings: Settings, dsn: str
) -> None:
    workflow = await published(client)
    schedules = [await scheduled(client, workflow, every=3600) for _ in range(10)]
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(assemble(settings, dsn, role="none")) for _ in range(5)]
        for _ in range(3):
            for schedule in schedules:
                await came_due(dsn, schedule, timedelta(seconds=5))
            await asyncio.gather(*(ticker(server).look() for server in servers for _ in range(2)))

    found = await rows(
        dsn, "SELECT schedule_id, count(*) AS times, count(run_id) AS runs FROM firing GROUP BY 1"
    )
    assert [(row["times"], row["runs"]) for row in found] == [(3, 3)] * 10
    assert (await rows(dsn, "SELECT count(*) AS runs FROM run"))[0]["runs"] == 30
