"""Questions that nobody answers in time: settled once, by whichever server looks, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString, TypeAlias

import httpx
import psycopg
import pytest

from flowserver.app import create_app
from flowserver.db import make_pool
from flowserver.questions import BATCH, expire
from flowserver.settings import Settings
from tests.server import drawing, edge, node, server_process, serving, told

Client = httpx.AsyncClient
Idle: TypeAlias = AbstractAsyncContextManager[Client]

CUT_SHORT = "UPDATE question SET deadline = now() - interval '1 second' WHERE deadline IS NOT NULL"
MORE = """
WITH made AS (
    INSERT INTO run (id, org_id, version, thread_id, trigger, status)
    SELECT gen_random_uuid(), org_id, version, 'thread ' || n, trigger, status
      FROM run, generate_series(1, %(more)s) AS n
    RETURNING id, org_id
)
INSERT INTO question (id, org_id, run_id, interrupt_id, step, question, deadline)
SELECT gen_random_uuid(), org_id, id, 'one', 'ask', '{}', now() FROM made
"""
TWO = drawing(
    node("start", "StartNode"),
    node("a", "HumanInput", question="A?", deadline=3600),
    node("b", "HumanInput", question="B?"),
    node("end", "EndNode"),
    edge("start", "a"),
    edge("start", "b"),
    edge("a", "end", "expired"),
    edge("b", "end"),
)


def ask(**settings: Any) -> dict[str, Any]:
    """A question whose answer and whose deadline go different ways."""
    return drawing(
        node("start", "StartNode"),
        node("ask", "HumanInput", question="Shall we?", **settings),
        node("said", "Template", template="said {{ ask.answer | json }}"),
        node("late", "Template", template="nobody: {{ ask.action }} {{ ask.answer | json }}"),
        edge("start", "ask"),
        edge("ask", "said", settings.get("actions", ["answer"])[0]),
        edge("ask", "late", "expired"),
    )


async def run(client: Client, flow_data: dict[str, Any], **more: Any) -> dict[str, Any]:
    response = await client.post("/runs", json={"flow_data": flow_data, **more})
    assert response.status_code in (200, 202), response.text
    return dict(response.json())


async def get(client: Client, id: str) -> dict[str, Any]:
    return dict((await client.get(f"/runs/{id}")).json())


async def journal(client: Client, id: str) -> list[dict[str, Any]]:
    """The events so far."""
    page = await client.get(f"/runs/{id}/events", headers={"Accept": "application/json"})
    return list(page.json()["items"])


async def until(happens: Callable[[], Awaitable[Any]], seconds: float = 20) -> Any:
    """What `happens` gives once it gives something."""
    async with asyncio.timeout(seconds):
        while not (found := await happens()):
            await asyncio.sleep(0.02)
        return found


async def ended(client: Client, id: str) -> dict[str, Any]:
    async def over() -> dict[str, Any] | None:
        found = await get(client, id)
        return found if found["finished_at"] else None

    return dict(await until(over))


async def resume(client: Client, id: str, answer: Any, **more: Any) -> httpx.Response:
    return await client.post(f"/runs/{id}/resume", json={"answer": answer, **more})


async def execute(dsn: str, statement: LiteralString, values: Mapping[str, Any] | None = None) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        await conn.execute(statement, values)


async def column(dsn: str, query: LiteralString) -> list[Any]:
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        return [row[0] for row in await (await conn.execute(query)).fetchall()]


async def statuses(dsn: str) -> list[Any]:
    """The statuses of all questions."""
    return await column(dsn, "SELECT status FROM question")


async def cut_short(dsn: str) -> None:
    """Move all deadlines into the past."""
    await execute(dsn, CUT_SHORT)


async def looked(client: Client) -> None:
    """Return when a deadline that began after this call has been seen to."""
    assert (await ended(client, (await run(client, ask(deadline=1)))["id"]))["status"] == "succeeded"


@pytest.fixture
def idle(settings: Settings, dsn: str) -> Idle:
    """A server that looks after nothing but what is launched there."""
    return serving(create_app(settings, dsn, role="own"))


@pytest.mark.parametrize(
    "given",
    [
        {"deadline": 1},
        {"timeout": "1"},
        {"expires_in": 1.0, "actions": ["yes", "no"]},
        {"deadline": 1, "form": [{"name": "why", "required": True}]},
    ],
)
async def test_a_run_that_nobody_answers_goes_on_by_its_own_port(
    client: Client, given: dict[str, Any]
) -> None:
    asked = await run(client, ask(**given))

    found = await ended(client, asked["id"])
    late = await resume(client, asked["id"], "yes", question_id=asked["questions"][0]["id"])
    events = await journal(client, asked["id"])

    assert asked["status"] == "waiting"
    assert (found["status"], found["output"]) == ("succeeded", "nobody: expired null")
    assert found["questions"] == []
    (finished,) = (each for each in events if each["event"] == "step.finished" and each["step"] == "ask")
    assert finished["outputs"] == {"answer": None, "action": "expired", "values": {}}
    assert told(events).count("run.started") == 2
    assert late.status_code == 409
    assert "expired before it was answered" in late.json()["detail"]


async def test_an_answer_in_time_wins_and_the_deadline_changes_nothing(client: Client, dsn: str) -> None:
    asked = await run(client, ask(deadline=3600))

    answered = await resume(client, asked["id"], "of course")
    found = await ended(client, asked["id"])
    events = await journal(client, asked["id"])
    await cut_short(dsn)
    await looked(client)

    assert answered.status_code == 202
    assert (found["status"], found["output"]) == ("succeeded", 'said "of course"')
    assert await get(client, asked["id"]) == found
    assert await journal(client, asked["id"]) == events
    assert sorted(await statuses(dsn)) == ["answered", "expired"]


@pytest.mark.parametrize(
    "answer",
    ["expired", "ZXhwaXJlZA==", {"expired": True}, {"action": "expired", "values": {}}, None, "\x00"],
)
async def test_no_answer_passes_for_a_deadline(client: Client, answer: Any) -> None:
    asked = await run(client, ask(deadline=60))

    answered = await resume(client, asked["id"], answer)
    found = await ended(client, asked["id"])

    assert answered.status_code == 202
    assert found["output"].startswith("said ")


async def test_expiring_is_no_button(client: Client) -> None:
    asked = await run(client, ask(deadline=60, actions=["yes", "no"]))

    refused = await resume(client, asked["id"], "expired")

    assert refused.status_code == 422
    assert (await get(client, asked["id"]))["status"] == "waiting"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"deadline": 0}, "'deadline' is 0; allowed is a number from 1 to "),
        ({"timeout": "soon"}, "'deadline' is 'soon'; allowed is a number from 1 to "),
        ({"deadline": 31_536_001}, "'deadline' is 31536001; allowed is a number from 1 to "),
        ({"deadline": 60, "actions": ["expired"]}, "an action is called 'expired', as is the port for "),
    ],
)
async def test_a_check_refuses_a_deadline_that_cannot_be(
    client: Client, given: dict[str, Any], words: str
) -> None:
    checked = (await client.post("/workflows/check", json={"flow_data": ask(**given)})).json()

    assert [(each["code"], each["where"]) for each in checked["problems"]] == [("bad_config", "ask")]
    assert checked["problems"][0]["message"].startswith(words)


async def test_a_check_refuses_a_template_as_a_deadline(client: Client) -> None:
    flow = ask(deadline="{{ input }}")

    checked = (await client.post("/workflows/check", json={"flow_data": flow})).json()

    assert [(each["code"], each["where"]) for each in checked["problems"]] == [("bad_template", "ask")]


async def test_the_deadline_is_told_with_the_question(client: Client) -> None:
    before = datetime.now(UTC)

    asked = await run(client, ask(deadline=3600))
    events = await journal(client, asked["id"])

    (question,) = asked["questions"]
    assert set(question) == {"id", "step", "payload", "deadline"}
    assert question["deadline"].endswith("Z")
    away = datetime.fromisoformat(question["deadline"]) - before
    assert timedelta(minutes=59) < away < timedelta(minutes=61)
    assert events[-1]["event"] == "run.waiting"
    assert events[-1]["questions"] == [question]


async def test_a_question_without_a_deadline_tells_none(client: Client) -> None:
    flow = drawing(node("start", "StartNode"), node("ask", "HumanInput", question="?"), edge("start", "ask"))

    (question,) = (await run(client, flow))["questions"]

    assert set(question) == {"id", "step", "payload"}


async def test_a_late_answer_is_refused_before_any_server_has_looked(
    idle: Idle, settings: Settings, dsn: str
) -> None:
    async with idle as client:
        asked = await run(client, ask(deadline=3600))
        await cut_short(dsn)

        named = await resume(client, asked["id"], "yes", question_id=asked["questions"][0]["id"])
        unnamed = await resume(client, asked["id"], "yes")
        waiting = await get(client, asked["id"])

    assert (named.status_code, unnamed.status_code) == (409, 409)
    for refused in (named, unnamed):
        assert refused.json()["type"] == "urn:flowserver:problem:question_not_open"
        assert refused.json()["detail"] == (
            f"question {asked['questions'][0]['id']} expired before it was answered"
        )
    assert waiting["status"] == "waiting"
    async with serving(create_app(settings, dsn)) as client:
        assert (await ended(client, asked["id"]))["output"] == "nobody: expired null"


async def test_answers_and_looks_at_the_same_moment_settle_every_question_once(idle: Idle, dsn: str) -> None:
    async with idle as client, make_pool(dsn) as pool:
        flow = ask(deadline=3600)
        asked = await asyncio.gather(*(run(client, flow) for _ in range(30)))

        async def one_is_answered() -> bool:
            return "answered" in await statuses(dsn)

        async def look() -> list[int]:
            await until(one_is_answered)
            await cut_short(dsn)
            return await asyncio.gather(*(expire(pool) for _ in range(3)))

        answers, expired = await asyncio.gather(
            asyncio.gather(*(resume(client, each["id"], "yes") for each in asked)), look()
        )
        runs = [await get(client, each["id"]) for each in asked]

    codes = [answer.status_code for answer in answers]
    assert set(codes) <= {202, 409}
    assert sum(expired) == codes.count(409)
    assert sorted(await statuses(dsn)) == ["answered"] * codes.count(202) + ["expired"] * codes.count(409)
    assert {each["status"] for each in runs} <= {"queued", "running", "succeeded"}


async def test_processes_that_look_at_once_share_more_than_one_takes(idle: Idle, dsn: str) -> None:
    async with idle as client:
        await run(client, ask(deadline=3600))
    async with make_pool(dsn) as pool:
        await execute(dsn, MORE, {"more": BATCH + 19})
        await cut_short(dsn)

        expired = await asyncio.gather(*(expire(pool) for _ in range(4)))

        again = await expire(pool)
    assert sum(expired) == BATCH + 20
    assert max(expired) <= BATCH
    assert again == 0
    assert set(await statuses(dsn)) == {"expired"}
    assert await column(dsn, "SELECT DISTINCT status FROM run") == ["queued"]


async def test_a_run_that_somebody_changes_is_left_for_the_next_look(idle: Idle, dsn: str) -> None:
    async with idle as client, make_pool(dsn) as pool:
        await run(client, ask(deadline=3600))
        await cut_short(dsn)

        async with await psycopg.AsyncConnection.connect(dsn) as ending:
            await ending.execute("SELECT FROM run FOR UPDATE")
            meanwhile = await asyncio.wait_for(expire(pool), 5)
        after = await expire(pool)

    assert (meanwhile, after) == (0, 1)


async def test_a_cancelled_run_stays_cancelled(client: Client, dsn: str) -> None:
    asked = await run(client, ask(deadline=3600))

    await client.post(f"/runs/{asked['id']}/cancel")
    events = await journal(client, asked["id"])
    await cut_short(dsn)
    await looked(client)

    assert (await get(client, asked["id"]))["status"] == "cancelled"
    assert await journal(client, asked["id"]) == events
    assert sorted(await statuses(dsn)) == ["closed", "expired"]


async def test_a_question_put_again_keeps_its_deadline(client: Client) -> None:
    asked = await run(client, TWO)
    first = {each["step"]: each for each in asked["questions"]}

    await resume(client, asked["id"], "beta", question_id=first["b"]["id"])

    async def waits_again() -> list[dict[str, Any]]:
        return [each for each in await journal(client, asked["id"]) if each["event"] == "run.waiting"][1:]

    (again,) = await until(waits_again)
    assert again["questions"] == [first["a"]]


async def test_of_two_questions_the_late_one_expires_and_the_other_still_waits(
    client: Client, dsn: str
) -> None:
    asked = await run(client, TWO)
    ids = {each["step"]: each["id"] for each in asked["questions"]}
    await cut_short(dsn)

    async def only_b_waits() -> bool:
        found = await get(client, asked["id"])
        return found["status"] == "waiting" and [each["step"] for each in found["questions"]] == ["b"]

    await until(only_b_waits)
    late = await resume(client, asked["id"], "alpha", question_id=ids["a"])
    await resume(client, asked["id"], "beta")
    found = await ended(client, asked["id"])

    assert late.status_code == 409
    assert (found["status"], found["output"]) == ("succeeded", [None, "beta"])


async def test_a_question_that_expires_while_its_run_is_at_work_is_not_forgotten(
    idle: Idle, settings: Settings, dsn: str
) -> None:
    """As when another question of it is answered: the run does not wait, so there is nothing to queue."""
    async with idle as client:
        asked = await run(client, TWO)
        ids = {each["step"]: each["id"] for each in asked["questions"]}
        await resume(client, asked["id"], "beta", question_id=ids["b"])
        await cut_short(dsn)

    async with serving(create_app(settings, dsn)) as client:
        found = await ended(client, asked["id"])

    assert found["output"] == [None, "beta"]


async def test_two_servers_on_one_database_expire_a_question_once(dsn: str, tmp_path: Path) -> None:
    async with server_process(dsn, tmp_path) as first, server_process(dsn, tmp_path) as second:
        clients = (first.client, second.client)
        asked = [await run(clients[n % 2], ask(deadline=1)) for n in range(10)]

        found = [await ended(first.client, each["id"]) for each in asked]
        journals = [await journal(second.client, each["id"]) for each in asked]

    assert {each["output"] for each in found} == {"nobody: expired null"}
    for events in journals:
        assert told(events).count("run.started") == 2
        assert told(events).count("step.finished ask") == told(events).count("step.finished late") == 1
        assert [each["seq"] for each in events] == list(range(1, len(events) + 1))


async def test_a_deadline_counts_while_no_server_runs(dsn: str, tmp_path: Path) -> None:
    async with server_process(dsn, tmp_path) as server:
        asked = await run(server.client, ask(deadline=1))
        await server.kill()

    async with server_process(dsn, tmp_path) as server:
        found = await ended(server.client, asked["id"])

    assert asked["status"] == "waiting"
    assert found["output"] == "nobody: expired null"
