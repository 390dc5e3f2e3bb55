"""A wait holds no worker, ends by the database's clock, and outlasts whatever dies meanwhile."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.flowserver.test_deadlines import cut_short, ended, get, journal, resume, statuses, until
from tests.server import drawing, edge, node, server_process, told

Client = httpx.AsyncClient


def wait(**settings: Any) -> dict[str, Any]:
    return drawing(
        node("start", "StartNode"),
        node("wait", "Wait", **settings),
        node("after", "Template", template="{{ wait.output }} {{ wait.ended_early | json }}"),
        edge("start", "wait"),
        edge("wait", "after"),
    )


async def begin(client: Client, flow: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A run in the background, when it waits or has ended."""
    body = {"flow_data": flow, "input": "hi", "mode": "background", **more}
    id = (await client.post("/runs", json=body)).json()["id"]

    async def settled() -> dict[str, Any] | None:
        found = await get(client, id)
        return found if found["status"] not in ("queued", "running") else None

    return dict(await until(settled))


@pytest.mark.parametrize(
    "config",
    [
        {"duration": 0},
        {"seconds": "0.01"},
        {"duration": 0.0001, "unit": "minutes"},
        {"until": "2001-01-01"},
        {"until": "2001-01-01T00:00:00+01:00"},
        {"duration": "{{ input | length }}", "unit": "seconds"},
    ],
)
async def test_a_short_wait_or_one_for_the_past_is_over_at_once(
    client: Client, config: dict[str, Any]
) -> None:
    flow = wait(**config)
    given = "" if "{{" in str(config) else "hi"

    made = (await client.post("/runs", json={"flow_data": flow, "input": given})).json()

    assert (made["status"], made["output"].strip()) == ("succeeded", f"{given} false".strip())


async def test_a_long_wait_puts_the_run_aside_and_tells_until_when(client: Client) -> None:
    before = datetime.now(UTC)

    made = await begin(client, wait(duration=2, unit="hours"))

    (pause,) = made["questions"]
    assert (made["status"], pause["step"], pause["pause"]) == ("waiting", "wait", True)
    away = datetime.fromisoformat(pause["deadline"]) - before
    assert timedelta(minutes=119) < away < timedelta(minutes=121)


async def test_it_goes_on_when_its_time_has_come(client: Client, dsn: str) -> None:
    made = await begin(client, wait(duration=3600))
    await cut_short(dsn)

    found = await ended(client, made["id"])
    events = told(await journal(client, made["id"]))

    assert (found["status"], found["output"]) == ("succeeded", "hi false")
    assert events.count("run.waiting") == events.count("step.finished wait") == 1


async def test_until_a_moment_that_comes_soon(client: Client) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)

    made = (
        await client.post("/runs", json={"flow_data": wait(until=soon.isoformat()), "input": "hi"})
    ).json()

    assert (made["status"], made["output"]) == ("succeeded", "hi false")
    assert datetime.fromisoformat(made["finished_at"]) >= soon


async def test_who_waits_for_the_result_or_watches_stays_through_a_pause(client: Client, dsn: str) -> None:
    body = {"flow_data": wait(duration=3600), "input": "hi"}
    waiting = asyncio.create_task(client.post("/runs", json=body))
    streaming = asyncio.create_task(client.post("/runs", json=body | {"mode": "stream"}))

    async def both_pause() -> bool:
        return await statuses(dsn) == ["open", "open"]

    await until(both_pause)
    await cut_short(dsn)

    assert (await waiting).json()["output"] == "hi false"
    assert (await streaming).text.count("event: run.succeeded") == 1


async def test_somebody_may_end_a_wait_sooner_by_its_id_only(client: Client) -> None:
    made = await begin(client, wait(duration=3600))

    unnamed = await resume(client, made["id"], "go")
    named = await resume(client, made["id"], "go", question_id=made["questions"][0]["id"])

    assert unnamed.status_code == 409
    assert named.status_code == 202
    assert (await ended(client, made["id"]))["output"] == "hi true"


async def test_beside_a_wait_the_only_question_need_not_be_named(client: Client, dsn: str) -> None:
    flow = wait(duration=3600)
    flow["nodes"] += [node("ask", "HumanInput", question="?"), node("end", "EndNode")]
    flow["edges"] += [edge("start", "ask"), edge("ask", "end"), edge("after", "end")]
    made = await begin(client, flow)

    answered = await resume(client, made["id"], "yes")

    async def waits_on() -> bool:
        found = await get(client, made["id"])
        return found["status"] == "waiting" and [each["step"] for each in found["questions"]] == ["wait"]

    await until(waits_on)
    await cut_short(dsn)
    assert answered.status_code == 202
    assert (await ended(client, made["id"]))["output"] == ["yes", "hi false"]


async def test_a_session_goes_on_after_the_run_that_pauses_in_it(client: Client, dsn: str) -> None:
    first = await begin(client, wait(duration=3600), session_id="s")
    second = await client.post(
        "/runs", json={"flow_data": wait(duration=0), "input": "two", "mode": "background", "session_id": "s"}
    )

    assert second.status_code == 202
    assert (await get(client, second.json()["id"]))["status"] == "queued"
    await cut_short(dsn)
    assert (await ended(client, first["id"]))["output"] == "hi false"
    assert (await ended(client, second.json()["id"]))["output"] == "two false"


async def test_a_wait_in_a_map_waits_for_every_item(client: Client, dsn: str) -> None:
    flow = drawing(
        node("start", "StartNode"),
        node("each", "Map", items=[1, 2, 3]),
        node("wait", "Wait", duration=3600),
        edge("start", "each"),
        edge("each", "wait", "item"),
        edge("wait", "each", "output", "result"),
    )
    made = await begin(client, flow)

    async def over() -> dict[str, Any] | None:
        await cut_short(dsn)
        found = await get(client, made["id"])
        return found if found["finished_at"] else None

    assert (await until(over))["output"] == [1, 2, 3]


async def test_a_wait_outlasts_the_death_of_its_server(dsn: str, tmp_path: Path) -> None:
    async with server_process(dsn, tmp_path) as server:
        made = await begin(server.client, wait(duration=6))
        await server.kill()
    await cut_short(dsn)

    async with server_process(dsn, tmp_path) as server:
        found = await ended(server.client, made["id"])

    assert made["status"] == "waiting"
    assert (found["status"], found["output"]) == ("succeeded", "hi false")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "there is neither of 'duration' and 'until'; allowed is one"),
        ({"duration": 1, "until": "2030-01-01"}, "there is both of 'duration' and 'until'; allowed is one"),
        ({"duration": 366, "unit": "days"}, "366 days are too long; allowed is a year"),
        ({"duration": -1}, "'duration' is -1; allowed is a number of at least 0"),
        ({"duration": "soon"}, "'duration' is 'soon'; allowed is a number of at least 0"),
        ({"until": "tomorrow"}, "'until' is 'tomorrow'; allowed is a date or time as 2025-01-31 or "),
        ({"duration": 1, "unit": "{{ input }}"}, "'unit' must be known before the run"),
    ],
)
async def test_a_wait_that_cannot_be_is_told_when_the_drawing_is_checked(
    client: Client, config: dict[str, Any], words: str
) -> None:
    checked = (await client.post("/workflows/check", json={"flow_data": wait(**config)})).json()

    assert checked["problems"][0]["message"].startswith(words), checked["problems"]


@pytest.mark.parametrize("given", ["tomorrow", "", "9999-12-31T23:59:59-14:00"])
async def test_a_moment_that_is_none_fails_the_step(client: Client, given: str) -> None:
    made = (await client.post("/runs", json={"flow_data": wait(until="{{ input }}"), "input": given})).json()

    assert (made["status"], made["error"]["code"]) == ("failed", "bad_config")
