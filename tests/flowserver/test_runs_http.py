"""Runs over HTTP: the modes, questions, cancelling, and what the events tell."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from tests.server import drawing, edge, events_of, node, told

Client = httpx.AsyncClient

HELLO = drawing(
    node("start", "StartNode"),
    node("greet", "Template", template="Hello, {{ input }}!"),
    node("end", "EndNode"),
    edge("start", "greet"),
    edge("greet", "end"),
)

ASK = drawing(
    node("start", "StartNode"),
    node("ask", "HumanInput", question="Shall we? {{ input }}", actions=["yes", "no"]),
    node("did", "Template", template="did it"),
    node("not", "Template", template="let it be"),
    edge("start", "ask"),
    edge("ask", "did", "yes"),
    edge("ask", "not", "no"),
)


async def run(client: Client, flow_data: dict[str, Any], **more: Any) -> Any:
    return await client.post("/runs", json={"flow_data": flow_data, **more})


async def stream(client: Client, flow_data: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    response = await run(client, flow_data, mode="stream", **more)
    assert response.headers["content-type"].startswith("text/event-stream")
    return events_of(response.text)


async def test_a_run_that_is_waited_for_answers_with_its_output(client: Client) -> None:
    response = await run(client, HELLO, input="Ada")

    assert response.status_code == 200
    found = response.json()
    assert (found["status"], found["output"], found["input"]) == ("succeeded", "Hello, Ada!", "Ada")
    assert (await client.get(f"/runs/{found['id']}")).json() == found


async def test_a_stream_tells_every_step_once_and_in_order(client: Client) -> None:
    events = await stream(client, HELLO, input="Ada")

    assert told(events) == [
        "run.created",
        "run.started",
        "step.started start",
        "step.finished start",
        "step.started greet",
        "step.finished greet",
        "step.started end",
        "step.finished end",
        "run.succeeded",
    ]
    assert [event["seq"] for event in events] == list(range(1, 10))
    assert events[-1]["output"] == "Hello, Ada!"


async def test_accept_asks_for_a_stream_too(client: Client) -> None:
    response = await client.post("/runs", json={"flow_data": HELLO}, headers={"Accept": "text/event-stream"})

    assert told(events_of(response.text))[-1] == "run.succeeded"


async def test_a_background_run_is_accepted_and_can_be_followed(client: Client) -> None:
    response = await run(client, HELLO, input="Ada", mode="background")

    assert response.status_code == 202
    assert response.headers["location"] == f"/api/v1/runs/{response.json()['id']}"
    followed = await client.get(f"/runs/{response.json()['id']}/events")
    assert told(events_of(followed.text))[-1] == "run.succeeded"


async def test_a_saved_workflow_runs_as_it_stands_or_in_an_older_version(client: Client) -> None:
    saved = (await client.post("/workflows", json={"name": "w", "flow_data": HELLO})).json()
    newer = drawing(node("t", "Template", template="Bye, {{ input }}!"))
    await client.put(f"/workflows/{saved['id']}", json={"flow_data": newer})

    now = await client.post(f"/workflows/{saved['id']}/runs", json={"input": "Ada"})
    then = await client.post(
        f"/workflows/{saved['id']}/runs", json={"input": "Ada", "version": saved["version"]}
    )

    assert (now.json()["output"], then.json()["output"]) == ("Bye, Ada!", "Hello, Ada!")
    assert now.json()["workflow_id"] == saved["id"]


async def test_a_drawing_with_errors_is_refused_with_all_of_them(client: Client) -> None:
    broken = drawing(
        node("a", "Templat", template="x"),
        node("b", "Template"),
        node("c", "Template", template="{{ nobody }}"),
        edge("b", "c"),
    )

    response = await run(client, broken)

    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    codes = [each["code"] for each in response.json()["problems"]]
    assert sorted(codes) == ["missing_config", "unknown_reference", "unknown_type"]
    assert (await client.get("/runs")).json()["items"] == []


@pytest.mark.parametrize(("last", "expected"), [("0", 9), ("4", 5), ("8", 1)])
async def test_events_after_the_last_one_seen_are_each_shown_once(
    client: Client, last: str, expected: int
) -> None:
    id = (await run(client, HELLO)).json()["id"]

    by_header = await client.get(f"/runs/{id}/events", headers={"Last-Event-ID": last})
    by_query = await client.get(f"/runs/{id}/events?after={last}")

    seqs = [event["seq"] for event in events_of(by_header.text)]
    assert seqs == list(range(int(last) + 1, 10))
    assert len(seqs) == expected
    assert by_query.text == by_header.text


async def test_str_05_positions_that_no_event_can_have_are_refused(client: Client) -> None:
    id = (await run(client, HELLO)).json()["id"]

    for last in ("-1", "abc", "1" + "0" * 30, "²"):
        response = await client.get(f"/runs/{id}/events", headers={"Last-Event-ID": last.encode()})
        assert response.status_code == 400, last
    assert (await client.get(f"/runs/{id}/events", headers={"Last-Event-ID": "9"})).status_code == 204
    assert (await client.get(f"/runs/{uuid4()}/events")).status_code == 404


async def test_events_come_as_pages_too(client: Client) -> None:
    id = (await run(client, HELLO)).json()["id"]
    accept = {"Accept": "application/json"}

    first = (await client.get(f"/runs/{id}/events?limit=4", headers=accept)).json()
    rest = (await client.get(f"/runs/{id}/events?after={first['next']}", headers=accept)).json()

    assert [event["seq"] for event in first["items"]] == [1, 2, 3, 4]
    assert [event["seq"] for event in rest["items"]] == [5, 6, 7, 8, 9]
    assert rest["next"] is None


async def test_a_run_waits_for_its_answer_and_goes_on_from_the_chosen_port(client: Client) -> None:
    asked = await run(client, ASK, input="now")

    assert asked.status_code == 202
    found = asked.json()
    assert found["status"] == "waiting"
    assert found["questions"][0]["payload"]["question"] == "Shall we? now"
    assert [each["id"] for each in found["questions"][0]["actions"]] == ["yes", "no"]

    resumed = await client.post(f"/runs/{found['id']}/resume", json={"answer": "no"})
    events = events_of((await client.get(f"/runs/{found['id']}/events?after={found['last_seq']}")).text)

    assert resumed.status_code == 202
    assert told(events) == [
        "run.started",
        "step.finished ask",
        "step.skipped did",
        "step.started not",
        "step.finished not",
        "run.succeeded",
    ]
    assert events[-1]["output"] == "let it be"


async def test_a_question_takes_one_answer(client: Client) -> None:
    found = (await run(client, ASK)).json()
    body = {"question_id": found["questions"][0]["id"], "answer": "yes"}

    answers = await asyncio.gather(*(client.post(f"/runs/{found['id']}/resume", json=body) for _ in range(5)))
    again = await client.post(f"/runs/{found['id']}/resume", json={"answer": "yes"})

    assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409, 409]
    assert again.status_code == 409
    assert again.json()["type"] == "urn:flowserver:problem:question_not_open"


@pytest.mark.parametrize("answer", ["maybe", None, {"action": "yes", "more": 1}, {"values": {}}, 7])
async def test_an_answer_that_does_not_fit_is_refused_and_the_run_still_waits(
    client: Client, answer: Any
) -> None:
    found = (await run(client, ASK)).json()

    refused = await client.post(f"/runs/{found['id']}/resume", json={"answer": answer})

    assert refused.status_code == 422
    assert (await client.get(f"/runs/{found['id']}")).json()["status"] == "waiting"


async def test_two_questions_at_once_are_answered_one_by_one(client: Client) -> None:
    both = drawing(
        node("start", "StartNode"),
        node("a", "HumanInput", question="A?"),
        node("b", "HumanInput", question="B?"),
        node("end", "EndNode"),
        edge("start", "a"),
        edge("start", "b"),
        edge("a", "end"),
        edge("b", "end"),
    )
    found = (await run(client, both)).json()
    ids = {each["step"]: each["id"] for each in found["questions"]}
    assert sorted(ids) == ["a", "b"]

    unnamed = await client.post(f"/runs/{found['id']}/resume", json={"answer": "?"})
    await client.post(f"/runs/{found['id']}/resume", json={"question_id": ids["b"], "answer": "beta"})
    await client.get(f"/runs/{found['id']}/events?after={found['last_seq']}")
    waiting = (await client.get(f"/runs/{found['id']}")).json()
    await client.post(f"/runs/{found['id']}/resume", json={"answer": "alpha"})
    events = events_of((await client.get(f"/runs/{found['id']}/events?after=0")).text)

    assert unnamed.status_code == 422
    assert [each["step"] for each in waiting["questions"]] == ["a"]
    assert events[-1]["output"] == ["alpha", "beta"]
    assert told(events).count("step.finished a") == told(events).count("step.finished b") == 1


async def test_a_waiting_run_can_be_cancelled_once_and_for_all(client: Client) -> None:
    found = (await run(client, ASK)).json()

    cancelled = await client.post(f"/runs/{found['id']}/cancel")
    again = await client.post(f"/runs/{found['id']}/cancel")
    answered = await client.post(f"/runs/{found['id']}/resume", json={"answer": "yes"})
    events = events_of((await client.get(f"/runs/{found['id']}/events?after=0")).text)

    assert (cancelled.status_code, cancelled.json()["status"]) == (202, "cancelled")
    assert (again.status_code, again.json()["status"]) == (202, "cancelled")
    assert answered.status_code == 409
    assert told(events)[-1] == "run.cancelled"


async def test_a_run_that_is_over_cannot_be_cancelled(client: Client) -> None:
    found = (await run(client, HELLO)).json()

    refused = await client.post(f"/runs/{found['id']}/cancel")

    assert refused.status_code == 409
    assert (await client.get(f"/runs/{found['id']}")).json()["status"] == "succeeded"


async def test_a_failing_step_is_named_with_what_went_wrong(client: Client) -> None:
    found = (
        await run(client, drawing(node("t", "Template", template="{{ input.name }}")), input={"nam": 1})
    ).json()

    assert found["status"] == "failed"
    assert found["error"] == {
        "code": "missing_value",
        "step": "t",
        "message": "'{{ input.name }}' finds nothing at 'name': there is an object with nam",
    }


async def test_flt_32_a_session_waits_for_its_open_question(client: Client) -> None:
    first = (await run(client, ASK, session_id="s")).json()

    second = await run(client, ASK, session_id="s")
    other = await run(client, ASK, session_id="t")

    assert second.status_code == 409
    assert first["id"] in second.json()["detail"]
    assert other.status_code == 202


async def test_runs_are_listed_newest_first_in_pages(client: Client) -> None:
    ids = [(await run(client, HELLO, session_id=f"s{i % 2}")).json()["id"] for i in range(5)]

    first = (await client.get("/runs?limit=3")).json()
    second = (await client.get(f"/runs?limit=3&cursor={first['next']}")).json()
    of_session = (await client.get("/runs?session_id=s1")).json()

    assert [each["id"] for each in first["items"] + second["items"]] == ids[::-1]
    assert second["next"] is None
    assert [each["id"] for each in of_session["items"]] == [ids[3], ids[1]]
    assert (await client.get("/runs?cursor=nonsense")).status_code == 422


async def test_dead_branches_are_skipped_with_the_reason_and_joins_run_once(client: Client) -> None:
    flow = drawing(
        node("start", "StartNode"),
        node("is_long", "ConditionNode", operation="contains", value2="long"),
        node("a", "Template", template="A"),
        node("a2", "Template", template="{{ a }}2"),
        node("b", "Template", template="B"),
        node("c", "Template", template="C"),
        node("join", "Template", template="{{ a2 | default('-') }}{{ b }}{{ c }}"),
        node("end", "EndNode"),
        edge("start", "is_long"),
        edge("is_long", "a", "true_output"),
        edge("a", "a2"),
        edge("start", "b"),
        edge("start", "c"),
        edge("a2", "join"),
        edge("b", "join"),
        edge("c", "join"),
        edge("join", "end"),
    )

    short = await stream(client, flow, input="short")
    long = await stream(client, flow, input="long")

    skipped = [event for event in short if event["event"] == "step.skipped"]
    assert [event["step"] for event in skipped] == ["a", "a2"]
    assert skipped[1]["because"]["message"] == "'is_long' chose 'false_output', not 'true_output'"
    assert skipped[1]["because"]["routers"][0]["values"]["value1"] == "short"
    assert short[-1]["output"] == "-BC"
    assert long[-1]["output"] == "A2BC"
    for events in (short, long):
        assert told(events).count("step.finished join") == 1


async def test_everything_of_another_organisation_is_not_there(client: Client, dsn: str) -> None:
    saved = (await client.post("/workflows", json={"name": "w", "flow_data": ASK})).json()
    run_ = (await client.post(f"/workflows/{saved['id']}/runs", json={})).json()
    secret = {"name": "c", "data": {"api_key": "sk-ours"}}
    kept = (await client.post("/credentials", json=secret)).json()
    saved = (await client.post(f"/workflows/{saved['id']}/publish")).json()
    hook = (await client.post("/webhooks", json={"workflow_id": saved["id"]})).json()
    await client.post(str(client.base_url.copy_with(path=hook["url"])))
    delivery = (await client.get(f"/webhooks/{hook['id']}/deliveries")).json()["items"][0]["id"]
    timing = {"workflow_id": saved["id"], "timing": {"every": 86_400}}
    schedule = (await client.post("/schedules", json=timing)).json()
    callback = {"callback": {"url": "https://example.com/"}}
    called_back = (await client.post(f"/workflows/{saved['id']}/runs", json=callback)).json()
    await client.post(f"/runs/{called_back['id']}/cancel")
    message = (await client.get(f"/callbacks?run_id={called_back['id']}")).json()["items"][0]
    file = (await client.post("/files", files={"file": ("a.txt", b"ours")})).json()
    stranger = {"Authorization": "Bearer key-of-a-stranger"}
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        await conn.execute("INSERT INTO org (id, name) VALUES (%s, 'strangers')", (other := uuid4(),))
        await conn.execute(
            "INSERT INTO api_key (id, org_id, name, digest)"
            " VALUES (%s, %s, 'k', sha256('key-of-a-stranger'))",
            (uuid4(), other),
        )

    given = {"name": "docs", "model": "m", "dimension": 2}
    made, document = (await client.post("/collections", json=given)).json(), str(uuid4())

    calls = [
        ("GET", f"/workflows/{saved['id']}", None),
        ("PUT", f"/workflows/{saved['id']}", {"name": "mine"}),
        ("DELETE", f"/workflows/{saved['id']}", None),
        ("GET", f"/workflows/{saved['id']}/plan", None),
        ("GET", f"/workflows/{saved['id']}/picture", None),
        ("POST", f"/workflows/{saved['id']}/runs", {}),
        ("GET", f"/runs/{run_['id']}", None),
        ("GET", f"/runs/{run_['id']}/checkpoints", None),
        ("POST", f"/runs/{run_['id']}/fork", {}),
        ("GET", f"/runs/{run_['id']}/events", None),
        ("POST", f"/runs/{run_['id']}/cancel", None),
        ("POST", f"/runs/{run_['id']}/resume", {"question_id": run_["questions"][0]["id"], "answer": "yes"}),
        ("GET", f"/collections/{made['id']}", None),
        ("DELETE", f"/collections/{made['id']}", None),
        ("POST", f"/collections/{made['id']}/search", {"query": "x"}),
        ("GET", f"/collections/{made['id']}/documents", None),
        ("GET", f"/collections/{made['id']}/documents/{document}", None),
        ("DELETE", f"/collections/{made['id']}/documents/{document}", None),
        ("GET", f"/credentials/{kept['id']}", None),
        ("PATCH", f"/credentials/{kept['id']}", {"data": {"api_key": "sk-theirs"}}),
        ("DELETE", f"/credentials/{kept['id']}", None),
        ("GET", f"/files/{file['id']}", None),
        ("GET", f"/files/{file['id']}/content", None),
        ("DELETE", f"/files/{file['id']}", None),
    ]
    of_ours = [
        ("POST", f"/workflows/{saved['id']}/publish"),
        ("POST", f"/workflows/{saved['id']}/unpublish"),
        ("GET", f"/workflows/{saved['id']}/versions"),
        *((method, f"/webhooks/{hook['id']}") for method in ("GET", "PATCH", "DELETE")),
        *((method, f"/schedules/{schedule['id']}") for method in ("GET", "PATCH", "DELETE")),
        *(("GET", f"/webhooks/{hook['id']}/{each}") for each in ("statistics", "deliveries", "listen")),
        ("GET", f"/webhooks/{hook['id']}/deliveries/{delivery}"),
        ("POST", f"/webhooks/{hook['id']}/deliveries/{delivery}/redeliver"),
        ("POST", f"/webhooks/{hook['id']}/secrets/rotate"),
        ("POST", f"/schedules/{schedule['id']}/trigger"),
        ("GET", f"/schedules/{schedule['id']}/firings"),
        ("GET", f"/callbacks/{message['id']}"),
        ("POST", f"/callbacks/{message['id']}/redeliver"),
    ]
    calls += [(method, path, {} if method in ("PATCH", "POST") else None) for method, path in of_ours]
    ids = (
        saved["id"],
        run_["id"],
        kept["id"],
        hook["id"],
        schedule["id"],
        message["id"],
        made["id"],
        file["id"],
    )
    served = (await client.get(str(client.base_url.copy_with(path="/schema/openapi.json")))).json()["paths"]
    with_ids = {
        (method.upper(), path) for path, methods in served.items() if "{id}" in path for method in methods
    }
    parts = {delivery: "{delivery}", document: "{document}", **dict.fromkeys(ids, "{id}")}
    templates = [re.sub("|".join(parts), lambda found: parts[found[0]], path) for _, path, _ in calls]
    tried = {(call[0], "/api/v1" + path) for call, path in zip(calls, templates, strict=True)}
    assert tried == with_ids  # a new route needs a row here
    calls += [
        ("POST", "/workflows/execute", {"workflow_id": saved["id"]}),
        ("POST", "/workflows/execute", {"workflow_id": saved["id"], "flow_data": ASK}),
        ("POST", "/webhooks", {"workflow_id": saved["id"]}),
        ("POST", "/schedules", timing),
        ("PATCH", "/organisation", {"error_workflow": saved["id"]}),
    ]
    for method, path, body in calls:
        response = await client.request(method, path, json=body, headers=stranger)
        assert response.status_code == 404, (method, path)
        assert response.json()["type"] == "urn:flowserver:problem:not_found"
    of_saved = f"/runs?workflow_id={saved['id']}"
    for path in (
        "/workflows",
        "/runs",
        of_saved,
        "/credentials",
        "/webhooks",
        "/schedules",
        "/callbacks",
        "/files",
        "/collections",
        "/collections?name=docs",
    ):
        assert (await client.get(path, headers=stranger)).json()["items"] == []
    assert (await client.get(f"/workflows/{saved['id']}")).json() == saved
    assert (await client.get(f"/collections/{made['id']}")).json() == {**made, "chunks": 0, "documents": 0}
    assert (await client.get(f"/runs/{run_['id']}")).json() == run_


async def test_a_key_of_another_organisation_is_another_key(client: Client, dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        await conn.execute("INSERT INTO org (id, name) VALUES (%s, 'strangers')", (other := uuid4(),))
        await conn.execute(
            "INSERT INTO api_key (id, org_id, name, digest)"
            " VALUES (%s, %s, 'k', sha256('key-of-a-stranger'))",
            (uuid4(), other),
        )
    body = {"flow_data": ASK}

    ours = await client.post("/runs", json=body, headers={"Idempotency-Key": "k"})
    theirs = await client.post(
        "/runs", json=body, headers={"Idempotency-Key": "k", "Authorization": "Bearer key-of-a-stranger"}
    )

    assert (ours.status_code, theirs.status_code) == (202, 202)
    assert ours.json()["id"] != theirs.json()["id"]
    assert "idempotency-replayed" not in theirs.headers
