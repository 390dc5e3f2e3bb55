"""Callbacks and error workflows: what happens after a run has ended."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from standardwebhooks import Webhook

from flowserver.app import create_app
from flowserver.settings import Settings
from tests.faults.checks import rows, until
from tests.server import drawing, edge, node, serving
from tests.web_server import Reply, WebServer

Client = httpx.AsyncClient
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ECHO = drawing(node("start", "StartNode"), node("end", "EndNode"), edge("start", "end"))
FAILING = drawing(
    node("start", "StartNode"), node("t", "Template", name="t", template="{{ input.x }}"), edge("start", "t")
)


@pytest.fixture
async def web() -> AsyncIterator[WebServer]:
    async with WebServer() as web:
        yield web


@pytest.fixture
async def client(settings: Settings, dsn: str, web: WebServer) -> AsyncIterator[Client]:
    allowed = msgspec.structs.replace(settings, outbound_allow=(web.door,))
    async with serving(create_app(allowed, dsn)) as client:
        yield client


async def message(client: Client, run: str, *statuses: str) -> dict[str, Any]:
    """The callback of a run, once it has one of `statuses`."""

    async def look() -> Any:
        found = (await client.get(f"/callbacks?run_id={run}")).json()["items"]
        return found[0] if found and found[0]["status"] in statuses else None

    return dict(await until(look, f"the callback to be {' or '.join(statuses)}"))


@pytest.mark.parametrize(
    ("flow", "body", "status"),
    [(ECHO, {"input": "hi"}, "succeeded"), (FAILING, {"input": {"y": 1}}, "failed")],
)
async def test_a_run_tells_its_end_signed(
    client: Client, web: WebServer, flow: dict[str, Any], body: dict[str, Any], status: str
) -> None:
    callback = {"url": web.on("/told", Reply(status=204)), "secret": SECRET}

    run = (await client.post("/runs", json={"flow_data": flow, "callback": callback, **body})).json()
    told = await message(client, run["id"], "delivered")

    [request] = web.requests
    headers = {name.lower(): value for name, value in request.headers.items()}
    Webhook(SECRET).verify(request.body, headers)
    sent = json.loads(request.body)
    assert (sent["type"], sent["data"]) == (f"run.{status}", (await client.get(f"/runs/{run['id']}")).json())
    assert headers["webhook-id"] == f"msg_{told['id']}"
    assert (told["attempts"], told["answer_status"], told["error"]) == (1, 204, None)


async def test_without_a_secret_of_its_own_it_is_signed_with_the_organisations(
    client: Client, web: WebServer
) -> None:
    callback = {"url": web.on("/told", Reply())}
    first = (await client.get("/callbacks/secret")).json()["secret"]
    run = (await client.post("/runs", json={"flow_data": ECHO, "callback": callback})).json()
    await message(client, run["id"], "delivered")

    second = (await client.post("/callbacks/secret/rotate")).json()["secret"]
    other = (await client.post("/runs", json={"flow_data": ECHO, "callback": callback})).json()
    await message(client, other["id"], "delivered")

    requests = [
        (request.body, {k.lower(): v for k, v in request.headers.items()}) for request in web.requests
    ]
    Webhook(first).verify(*requests[0])
    for secret in (first, second):  # for a day, receivers may check with either
        Webhook(secret).verify(*requests[1])
    assert first != second
    assert (await client.get("/callbacks/secret")).json()["secret"] == second


async def test_a_receiver_that_fails_is_told_again_until_it_has_taken_it(
    client: Client, web: WebServer, dsn: str
) -> None:
    callback = {"url": web.on("/told", Reply(status=500), Reply(status=503), Reply()), "secret": SECRET}
    run = (await client.post("/runs", json={"flow_data": ECHO, "callback": callback})).json()

    for status in (500, 503):

        async def tried(status: int = status) -> Any:
            found = (await client.get(f"/callbacks?run_id={run['id']}")).json()["items"]
            return found and found[0]["answer_status"] == status and found[0]["error"]

        error = await until(tried, f"the answer {status}")
        assert error["message"] == f"the receiver answered {status}"
        await rows(dsn, "UPDATE delivery SET next_at = now() WHERE direction = 'out' RETURNING id")
    told = await message(client, run["id"], "delivered")

    assert told["attempts"] == 3
    assert len({request.headers.get("webhook-id") for request in web.requests}) == 1


async def test_it_is_given_up_at_last_and_can_be_sent_again_by_hand(
    client: Client, web: WebServer, dsn: str
) -> None:
    callback = {"url": web.on("/told", Reply(status=410), Reply()), "secret": SECRET}
    run = (await client.post("/runs", json={"flow_data": ECHO, "callback": callback})).json()

    dead = await message(client, run["id"], "dead")
    again = await client.post(f"/callbacks/{dead['id']}/redeliver")
    told = await message(client, run["id"], "delivered")

    assert (dead["answer_status"], again.status_code, told["id"]) == (410, 202, dead["id"])
    listed = (await client.get("/callbacks?status=dead")).json()["items"]
    assert listed == []


async def test_the_last_of_many_attempts_is_the_last(client: Client, web: WebServer, dsn: str) -> None:
    callback = {"url": web.on("/told", Reply(status=500)), "secret": SECRET}
    run = (await client.post("/runs", json={"flow_data": ECHO, "callback": callback})).json()

    async def tried() -> Any:
        return await rows(
            dsn,
            "UPDATE delivery SET attempts = 10, next_at = now()"
            " WHERE attempts = 1 AND error IS NOT NULL RETURNING id",
        )

    await until(tried, "the first attempt")

    assert (await message(client, run["id"], "dead"))["attempts"] == 11


PRIVATE = ("http://127.0.0.1:1/x", "http://169.254.169.254/latest", "http://localhost/x", "http://[::1]/x")


async def test_sec_70_a_callback_reaches_no_private_address(client: Client) -> None:
    for url in PRIVATE:
        callback = {"url": url, "secret": SECRET}
        run = (await client.post("/runs", json={"flow_data": ECHO, "callback": callback})).json()

        dead = await message(client, run["id"], "dead")

        assert dead["error"]["code"] == "url_not_allowed", url


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"url": "ftp://example.com"}, "begins with http:// or https://"),
    ({"url": "https://user:pass@example.com"}, "names no user"),
    ({"url": "https://"}, "begins with http:// or https://"),
    ({"url": "https://example.com/" + "x" * 2000}, "begins with http:// or https://"),
    ({"url": "https://example.com", "secret": "plain"}, "a secret has at least"),
    ({"url": "https://example.com", "other": 1}, "unknown field `other`"),
]


async def test_a_callback_that_cannot_be_is_refused_before_anything_runs(client: Client) -> None:
    for callback, words in REFUSED:
        refused = await client.post("/runs", json={"flow_data": ECHO, "callback": callback})

        assert refused.status_code in (400, 422), callback
        assert words in refused.json()["detail"]
    assert (await client.get("/runs")).json()["items"] == []


async def test_a_secret_of_a_callback_is_nowhere_in_the_open(
    client: Client, web: WebServer, dsn: str
) -> None:
    callback = {"url": web.on("/told", Reply()), "secret": SECRET}
    run = (await client.post("/runs", json={"flow_data": ECHO, "callback": callback})).json()
    await message(client, run["id"], "delivered")

    kept = [
        str(await rows(dsn, query))
        for query in ("SELECT * FROM run", "SELECT * FROM delivery", "SELECT * FROM run_event")
    ]

    assert SECRET[6:] not in "".join(kept) + web.requests[0].body.decode()


async def saved(client: Client, name: str, flow: dict[str, Any], *, publish: bool = False) -> str:
    made = (await client.post("/workflows", json={"name": name, "flow_data": flow})).json()
    if publish:
        await client.post(f"/workflows/{made['id']}/publish")
    return str(made["id"])


def reporting(*more: dict[str, Any]) -> dict[str, Any]:
    return drawing(
        node("error", "ErrorTrigger", name="failed"),
        node(
            "text",
            "Template",
            template="{{ failed.step }}: {{ failed.error.code }} "
            "in {{ failed.workflow.name }} {{ failed.link }}",
        ),
        edge("error", "text"),
        *more,
    )


async def run_of(client: Client, workflow: str, count: int = 1) -> list[dict[str, Any]]:
    async def look() -> Any:
        found = (await client.get(f"/runs?workflow_id={workflow}")).json()["items"]
        return found if len(found) == count and all(each["finished_at"] for each in found) else None

    return list(await until(look, f"{count} runs of the error workflow"))


@pytest.mark.parametrize("key", ["error_workflow", "error_workflow_id"])
async def test_the_error_workflow_of_a_drawing_runs_when_it_fails(client: Client, key: str) -> None:
    report = await saved(client, "report", reporting())
    named = report if key.endswith("_id") else "report"
    failing = await saved(client, "failing", {**FAILING, "settings": {key: named}})

    run = (await client.post(f"/workflows/{failing}/runs", json={"input": {"y": 1}})).json()
    [told] = await run_of(client, report)

    assert run["status"] == "failed"
    assert told["output"] == f"t: missing_value in failing /api/v1/runs/{run['id']}"
    assert (told["trigger"]["type"], told["trigger"]["run"]) == ("error", run["id"])
    assert told["input"]["error"] == run["error"]


async def test_the_organisations_error_workflow_runs_for_drawings_that_name_none(client: Client) -> None:
    report = await saved(client, "report", reporting(), publish=True)
    failing = await saved(client, "failing", FAILING)
    await client.patch("/organisation", json={"error_workflow": report})

    await client.post(f"/workflows/{failing}/runs", json={"input": {}})
    await client.post("/runs", json={"flow_data": FAILING, "input": {}})  # of nobody's workflow
    [told] = await run_of(client, report)

    assert told["status"] == "succeeded"
    assert (await client.get("/organisation")).json()["error_workflow"] == report
    unknown = await client.patch(
        "/organisation", json={"error_workflow": "00000000-0000-0000-0000-000000000000"}
    )
    assert unknown.status_code == 404


async def test_errors_of_an_error_workflow_stop_there(client: Client, dsn: str) -> None:
    broken = drawing(
        node("error", "ErrorTrigger", name="failed"),
        node("t", "Template", template="{{ failed.nothing_like_it }}"),
        edge("error", "t"),
    )
    report = await saved(client, "report", broken, publish=True)
    await client.patch("/organisation", json={"error_workflow": report})
    failing = await saved(client, "failing", FAILING)

    await client.post(f"/workflows/{failing}/runs", json={"input": {}})
    [told] = await run_of(client, report)

    assert told["status"] == "failed"
    await until(lambda: _nothing_left(dsn), "all failed runs to be dealt with")
    assert len((await client.get("/runs")).json()["items"]) == 2


async def _nothing_left(dsn: str) -> bool:
    return not await rows(dsn, "SELECT 1 AS one FROM failed_run")


async def test_an_error_workflow_that_is_not_there_stops_nothing(client: Client, dsn: str) -> None:
    failing = await saved(client, "failing", {**FAILING, "settings": {"error_workflow": "nobody"}})

    for _ in range(2):
        await client.post(f"/workflows/{failing}/runs", json={"input": {}})

    await until(lambda: _nothing_left(dsn), "all failed runs to be dealt with")
    assert len((await client.get("/runs")).json()["items"]) == 2
