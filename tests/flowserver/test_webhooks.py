"""Webhooks over HTTP: addresses, callers, the ledger, and what callers are told."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import pytest

from flowserver.app import create_app
from flowserver.settings import Settings
from flowserver.signatures import sign
from tests.faults.checks import rows, until
from tests.faults.drawings import Gate
from tests.openai_server import Fault, OpenAIServer, Reply
from tests.server import drawing, edge, events_of, node, serving
from tests.strangers import stranger
from tests.web_server import WebServer

Client = httpx.AsyncClient


@pytest.fixture
async def web() -> AsyncIterator[WebServer]:
    async with WebServer() as web:
        yield web


class Outside:
    """Somebody who has no key, at the addresses of a server."""

    def __init__(self, client: Client) -> None:
        self._client = httpx.AsyncClient(base_url=client.base_url.copy_with(path="/"), timeout=30)

    async def call(self, path: str, json: Any = None, method: str = "POST", **more: Any) -> httpx.Response:
        return await self._client.request(method, path, json=json, **more)

    def stream(self, path: str, **more: Any) -> Any:
        return self._client.stream("POST", path, **more)

    async def close(self) -> None:
        await self._client.aclose()


@pytest.fixture
async def outside(client: Client) -> AsyncIterator[Outside]:
    outside = Outside(client)
    yield outside
    await outside.close()


def hooked(*parts: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """A drawing that begins with the webhook `hook`."""
    return drawing(node("hook", "WebhookTrigger", name="hook", **settings), *parts)


ECHO = (node("end", "EndNode"), edge("hook", "end"))


async def publish(client: Client, flow: dict[str, Any], name: str = "w") -> dict[str, Any]:
    """Save and publish a drawing; return its webhook."""
    saved = (await client.post("/workflows", json={"name": name, "flow_data": flow})).json()
    published = await client.post(f"/workflows/{saved['id']}/publish")
    assert published.status_code == 200, published.text
    found = (await client.get(f"/webhooks?workflow_id={saved['id']}")).json()["items"]
    return dict(found[0])


async def runs_of(client: Client, hook: dict[str, Any]) -> list[dict[str, Any]]:
    return list((await client.get(f"/runs?workflow_id={hook['workflow_id']}")).json()["items"])


async def test_a_published_workflow_is_started_by_its_webhook_and_answers_with_its_result(
    client: Client, outside: Outside
) -> None:
    hook = await publish(client, hooked(*ECHO, path="orders/new"))

    answer = await outside.call("/hooks/orders/new?a=1&a=2&b=", {"order": 7})

    assert (answer.status_code, answer.json()) == (200, {"order": 7})
    [run] = await runs_of(client, hook)
    assert run["input"] == {"order": 7}
    assert run["trigger"] | {"headers": {}} == {
        "type": "webhook",
        "step": "hook",
        "webhook": hook["id"],
        "method": "POST",
        "path": "/hooks/orders/new",
        "query": {"a": ["1", "2"], "b": ""},
        "headers": {},
    }
    assert hook["url"] == "/hooks/orders/new"


BODIES: list[tuple[dict[str, Any], Any]] = [
    ({"json": {"a": [1]}}, {"a": [1]}),
    (
        {"json": None, "content": b"[1, 2]", "headers": {"content-type": "application/cloudevents+json"}},
        [1, 2],
    ),
    ({"data": {"a": "1", "b": ["x", "y"]}}, {"a": "1", "b": ["x", "y"]}),
    ({"content": b"hello", "headers": {"content-type": "text/plain"}}, "hello"),
    ({"content": b'{"a": 1}', "headers": {"content-type": "text/json; charset=utf-8"}}, {"a": 1}),
    ({"content": b'\xef\xbb\xbf{"a": 1}', "headers": {"content-type": "application/json"}}, {"a": 1}),
    ({"content": b'\xef\xbb\xbf{"a": 1}', "headers": {}}, {"a": 1}),
    ({"content": '{"a": "ö"}'.encode("utf-16"), "headers": {"content-type": "application/json"}}, {"a": "ö"}),
    (
        {
            "content": '{"a": "ö"}'.encode("latin-1"),
            "headers": {"content-type": "application/json; charset=latin1"},
        },
        {"a": "ö"},
    ),
    (
        {"content": "Grüße".encode("latin-1"), "headers": {"content-type": "text/plain;charset=ISO-8859-1"}},
        "Grüße",
    ),
    (
        {
            "content": "привет".encode("cp1251"),
            "headers": {"content-type": 'text/plain; charset="windows-1251"'},
        },
        "привет",
    ),
    (
        {
            "content": b"name=J%F6rg&city=K\xf6ln",
            "headers": {"content-type": "application/x-www-form-urlencoded; charset=iso-8859-1"},
        },
        {"name": "Jörg", "city": "Köln"},
    ),
    ({"content": b"<a/>", "headers": {"content-type": "application/xml"}}, "<a/>"),
    ({"content": b'{"no": "type"}'}, {"no": "type"}),
    ({"content": b"plain"}, "plain"),
    (
        {"content": b"\xff\x00", "headers": {"content-type": "image/png"}},
        {"content_type": "image/png", "base64": "/wA="},
    ),
    ({"params": {"q": "1"}}, {"q": "1"}),
    ({}, None),
    (
        {
            "content": gzip.compress(b'{"packed": true}'),
            "headers": {"content-encoding": "gzip", "content-type": "application/json"},
        },
        {"packed": True},
    ),
    ({"json": "{{ 7*7 }} ${{ vars }} {x.__class__}"}, "{{ 7*7 }} ${{ vars }} {x.__class__}"),
]


async def test_mt_12_sec_04_a_body_arrives_as_what_it_is(client: Client, outside: Outside) -> None:
    seen = node("seen", "Template", template="{{ hook | json }}")
    hook = await publish(client, hooked(seen, edge("hook", "seen"), path="h"))

    answers = [await outside.call("/hooks/h", **sent) for sent, _ in BODIES]

    wanted = [arrived for _, arrived in BODIES]
    assert [json.loads(answer.json()) for answer in answers] == wanted
    assert [run["input"] for run in await runs_of(client, hook)] == wanted[::-1]


NO_BODIES: list[tuple[dict[str, Any], int]] = [
    ({"content": b'{"a":', "headers": {"content-type": "application/json"}}, 422),
    ({"content": b"[" * 2000, "headers": {"content-type": "application/json"}}, 422),
    ({"content": b"x", "headers": {"content-type": "text/plain; charset=martian"}}, 422),
    ({"content": b"\xff", "headers": {"content-type": "text/plain; charset=utf-8"}}, 422),
    ({"content": b"x", "headers": {"content-type": "text/plain; charset=zip"}}, 422),
    ({"content": b"x" * 3000}, 413),
    ({"content": gzip.compress(b"x" * 100_000), "headers": {"content-encoding": "gzip"}}, 413),
    ({"content": b"no gzip", "headers": {"content-encoding": "gzip"}}, 422),
    ({"content": gzip.compress(b"abc")[:-4], "headers": {"content-encoding": "gzip"}}, 422),
    ({"content": b"abc", "headers": {"content-encoding": "br"}}, 422),
    ({"params": [("a", "1")] * 1001}, 422),
]


async def test_sec_85_a_body_that_is_not_what_it_says_or_too_large_starts_nothing(
    client: Client, outside: Outside
) -> None:
    hook = await publish(client, hooked(*ECHO, path="h", max_payload_size=2))

    answers = [await outside.call("/hooks/h", **sent) for sent, _ in NO_BODIES]
    answers.append(await outside.call("/hooks/h", content=_pieces()))

    assert [answer.status_code for answer in answers] == [*(status for _, status in NO_BODIES), 413]
    assert {answer.headers["content-type"] for answer in answers} == {"application/problem+json"}
    assert await runs_of(client, hook) == []


async def _pieces() -> AsyncIterator[bytes]:
    for _ in range(3):
        yield b"x" * 1000


async def test_sec_83_a_stranger_meets_one_404_wherever_he_may_not_be(
    client: Client, outside: Outside
) -> None:
    draft = {"name": "draft", "flow_data": hooked(*ECHO, path="draft")}
    await client.post("/workflows", json=draft)
    off = await publish(client, hooked(*ECHO, path="off"), "off")
    await client.patch(f"/webhooks/{off['id']}", json={"is_enabled": False})
    gone = await publish(client, hooked(*ECHO, path="gone"), "gone")
    await client.post(f"/workflows/{gone['workflow_id']}/unpublish")
    deleted = await publish(client, hooked(*ECHO, path="deleted"), "deleted")
    await client.delete(f"/workflows/{deleted['workflow_id']}")
    await publish(client, hooked(*ECHO, path="posted"), "posted")
    await publish(client, hooked(*ECHO, path="elsewhere", allowed_ips="10.0.0.0/8\n192.0.2.1"), "elsewhere")

    answers = [
        await outside.call("/hooks/nothing"),
        await outside.call("/hooks/" + "x" * 5000),
        await outside.call("/hooks/%00%ff"),
        await outside.call("/hooks/draft"),
        await outside.call("/hooks/off"),
        await outside.call("/hooks/gone"),
        await outside.call("/hooks/deleted"),
        await outside.call("/hooks/posted", method="GET"),
        await outside.call("/hooks/posted", method="HEAD"),
        await outside.call("/hooks/posted", method="DELETE"),
        await outside.call(
            "/hooks/posted", method="OPTIONS", headers={"Access-Control-Request-Method": "POST"}
        ),
        await outside.call("/hooks/elsewhere", headers={"X-Forwarded-For": "10.0.0.1"}),
    ]

    assert [answer.status_code for answer in answers] == [404] * len(answers)
    bodies = {answer.content for answer in answers if answer.request.method != "HEAD"}
    assert len(bodies) == 1
    assert (await client.get("/runs")).json()["items"] == []


async def test_only_from_its_addresses_it_is_called_also_behind_a_proxy_that_is_ours(
    settings: Settings, dsn: str
) -> None:
    behind = msgspec.structs.replace(settings, trusted_proxies=("127.0.0.0/8",))
    async with serving(create_app(behind, dsn)) as client:
        outside = Outside(client)
        await publish(client, hooked(*ECHO, path="h", allowed_ips="192.0.2.0/24, 2001:db8::1"))

        async def status(*forwarded: str) -> int:
            headers = {"X-Forwarded-For": ", ".join(forwarded)} if forwarded else {}
            return (await outside.call("/hooks/h", headers=headers)).status_code

        assert await status("192.0.2.7") == 200
        assert await status("2001:db8::1") == 200
        assert await status("192.0.2.7", "127.0.0.1") == 200
        assert await status() == 404
        assert (
            await status("192.0.2.7", "198.51.100.1") == 404
        )  # what a stranger writes before his own address
        assert await status("nonsense") == 404
        await outside.close()


async def test_sec_80_a_call_that_is_not_genuine_starts_nothing_and_is_told_one_thing(
    client: Client, outside: Outside
) -> None:
    one = await publish(client, hooked(*ECHO, path="one", authentication="github", secret="secret-of-one"))
    await publish(client, hooked(*ECHO, path="two", authentication="github", secret="secret-of-two"), "two")

    def signature(secret: str, body: bytes) -> dict[str, str]:
        digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        return {"X-Hub-Signature-256": f"sha256={digest}", "Content-Type": "application/json"}

    good = await outside.call(
        "/hooks/one", content=b'{"a": 1}', headers=signature("secret-of-one", b'{"a": 1}')
    )
    bad = [
        await outside.call("/hooks/one", content=b'{"a": 1}'),
        await outside.call(
            "/hooks/one", content=b'{"a": 1}', headers=signature("secret-of-two", b'{"a": 1}')
        ),
        await outside.call("/hooks/one", content=b'{"a":1}', headers=signature("secret-of-one", b'{"a": 1}')),
        await outside.call("/hooks/one", content=b"{broken", headers=signature("nobody's", b"{broken")),
    ]

    assert good.status_code == 200
    assert {(answer.status_code, answer.content) for answer in bad} == {(401, bad[0].content)}
    assert len(await runs_of(client, one)) == 1


async def test_sec_81_flt_47_a_delivery_that_comes_again_gets_the_first_ones_run_and_answer(
    client: Client, outside: Outside
) -> None:
    hook = await publish(client, hooked(*ECHO, path="h", authentication="standard"))
    secret = (await client.post(f"/webhooks/{hook['id']}/secrets/rotate", json={})).json()["secret"]
    now, body = datetime.now(UTC), b'{"n": 1}'
    signed = sign([secret], "msg_1", now, body)
    other = sign([secret], "msg_2", now, body)

    answers = [await outside.call("/hooks/h", content=body, headers=signed) for _ in range(3)]
    another = await outside.call("/hooks/h", content=body, headers=other)
    forged = await outside.call("/hooks/h", content=body, headers={**signed, "webhook-id": "msg_3"})

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert len({answer.headers["x-run-id"] for answer in answers}) == 1
    assert [answer.headers.get("idempotency-replayed") for answer in answers] == [None, "true", "true"]
    assert another.headers["x-run-id"] != answers[0].headers["x-run-id"]
    assert forged.status_code == 401
    assert len(await runs_of(client, hook)) == 2
    newest, first = (await client.get(f"/webhooks/{hook['id']}/deliveries")).json()["items"]
    assert (first["repeats"], newest["repeats"]) == (2, 0)
    assert (first["run_id"], first["answer_status"], first["run_status"]) == (
        answers[0].headers["x-run-id"],
        200,
        "succeeded",
    )


async def test_flt_47_a_caller_that_comes_again_while_the_first_is_still_running_waits_for_the_same_run(
    settings: Settings, dsn: str, web: WebServer
) -> None:
    gate = Gate()
    allowed = msgspec.structs.replace(settings, outbound_allow=(web.door,))
    async with serving(create_app(allowed, dsn)) as client:
        call = node("call", "HttpRequest", url=web.on("/slow", gate.answer), max_retries=0)
        hook = await publish(client, hooked(call, edge("hook", "call"), path="slow", dedupe="body"))
        outside = Outside(client)

        all_of_them = asyncio.gather(*(outside.call("/hooks/slow", {"n": 1}) for _ in range(5)))
        await gate.arrivals()
        gate.open.set()
        answers = await all_of_them

        assert {(answer.status_code, answer.json()) for answer in answers} == {(200, "ok")}
        assert len({answer.headers["x-run-id"] for answer in answers}) == 1
        assert len(await runs_of(client, hook)) == 1
        assert len(web.requests) == 1
        await outside.close()


SAME: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any], bool]] = [
    ({}, {}, {}, False),
    ({}, {"headers": {"webhook-id": "1"}}, {"headers": {"webhook-id": "1"}}, True),
    ({}, {"headers": {"Idempotency-Key": "1"}}, {"headers": {"Idempotency-Key": "2"}}, False),
    ({"dedupe": "none"}, {"headers": {"webhook-id": "1"}}, {"headers": {"webhook-id": "1"}}, False),
    ({"dedupe_header": "X-Id"}, {"headers": {"X-Id": "1"}}, {"headers": {"x-id": "1"}}, True),
    ({"dedupe_header": "X-Id"}, {}, {}, False),
    (
        {"dedupe_pointer": "/e/0/id"},
        {"json": {"e": [{"id": 1}]}},
        {"json": {"e": [{"id": 1}], "x": 2}},
        True,
    ),
    ({"dedupe_pointer": "/e/0/id"}, {"json": {"e": [{"id": 1}]}}, {"json": {"e": [{"id": "2"}]}}, False),
    ({"dedupe_pointer": "/id"}, {"json": {"id": "x" * 9999}}, {"json": {"id": "x" * 9999}}, True),
    ({"dedupe": "body"}, {"json": {"a": 1}}, {"json": {"a": 1}}, True),
    ({"dedupe": "body"}, {"json": {"a": 1}}, {"json": {"a": 2}}, False),
    ({"dedupe": "body"}, {"json": {}, "params": {"a": 1}}, {"json": {}, "params": {"a": 2}}, False),
]


async def test_what_makes_two_deliveries_the_same_can_be_chosen(client: Client, outside: Outside) -> None:
    found = []
    for number, (settings_, first, second, _) in enumerate(SAME):
        await publish(client, hooked(*ECHO, path=f"h{number}", **settings_), f"w{number}")
        answers = [await outside.call(f"/hooks/h{number}", **sent) for sent in (first, second)]
        found.append(len({answer.headers["x-run-id"] for answer in answers}) == 1)

    assert found == [same for *_, same in SAME]


async def test_sec_82_an_old_secret_counts_beside_the_new_one_for_as_long_as_is_said(
    client: Client, outside: Outside, dsn: str
) -> None:
    hook = await publish(client, hooked(*ECHO, path="h", authentication="bearer", secret="the-first-secret"))
    made = (
        await client.post(f"/webhooks/{hook['id']}/secrets/rotate", json={"overlap_seconds": 3600})
    ).json()

    async def status(secret: str) -> int:
        return (await outside.call("/hooks/h", headers={"Authorization": f"Bearer {secret}"})).status_code

    both = [await status("the-first-secret"), await status(made["secret"])]
    await rows(dsn, "UPDATE webhook_secret SET expires_at = now() WHERE expires_at IS NOT NULL RETURNING id")
    later = [await status("the-first-secret"), await status(made["secret"])]

    assert (both, later) == ([200, 200], [401, 200])
    assert "secret" not in (await client.get(f"/webhooks/{hook['id']}")).json()
    for secret in ("short", "", "\n" * 20):
        refused = await client.post(f"/webhooks/{hook['id']}/secrets/rotate", json={"secret": secret})
        assert secret == "" or refused.status_code == 422


async def test_mt_07_a_secret_is_nowhere_in_the_open(client: Client, outside: Outside, dsn: str) -> None:
    canary = "CNRY-4f1b6c1e"
    flow = hooked(*ECHO, path="h", authentication="header", header_name="X-Special", secret=canary)
    hook = await publish(client, flow)
    await outside.call("/hooks/h?token=" + canary, {"a": 1}, headers={"X-Special": canary, "Cookie": canary})

    [run] = await runs_of(client, hook)
    events = await client.get(f"/runs/{run['id']}/events")
    shown = [
        (await client.get(path)).text
        for path in (
            f"/webhooks/{hook['id']}",
            "/webhooks",
            f"/webhooks/{hook['id']}/deliveries",
            f"/runs/{run['id']}",
        )
    ]
    tables = ("webhook", "webhook_secret", "delivery", "run", "run_event")
    kept = [str(await rows(dsn, f"SELECT * FROM {table}")) for table in tables]  # type: ignore[arg-type]

    assert canary not in "".join([events.text, *shown, *kept])


async def test_answers_by_a_step_let_the_run_go_on(client: Client, outside: Outside) -> None:
    flow = hooked(
        node(
            "respond",
            "RespondToWebhook",
            status_code="201",
            response_body='{"got": {{ hook.n }}}',
            response_headers='{"X-Made": "by us", "Location": "/orders/7"}',
        ),
        node("ask", "HumanInput", prompt="sure?"),
        edge("hook", "respond"),
        edge("respond", "ask"),
        path="h",
    )
    hook = await publish(client, flow)

    answer = await outside.call("/hooks/h", {"n": 3})

    assert (answer.status_code, answer.json()) == (201, {"got": 3})
    assert (answer.headers["x-made"], answer.headers["location"]) == ("by us", "/orders/7")
    [run] = await runs_of(client, hook)
    assert run["id"] == answer.headers["x-run-id"]
    await until(lambda: _has_status(client, run["id"], "waiting"), "the run to wait")


async def _has_status(client: Client, run: str, status: str) -> bool:
    return bool((await client.get(f"/runs/{run}")).json()["status"] == status)


async def test_a_drawing_with_two_answers_gives_the_one_that_it_comes_to(
    client: Client, outside: Outside
) -> None:
    flow = hooked(
        node("urgent", "ConditionNode", operation="contains", value2="urgent"),
        node("yes", "RespondToWebhook", response_body="This is urgent! ${{webhook_trigger.message}}"),
        node(
            "no",
            "RespondToWebhook",
            content_type="text/plain",
            response_body="later: {{webhook_data.payload.message}}",
        ),
        edge("hook", "urgent", "webhook_data", "input"),
        edge("urgent", "yes", "true_output", "input"),
        edge("urgent", "no", "false_output", "input"),
        path="h",
    )
    await publish(client, flow)

    yes = await outside.call("/hooks/h", {"message": "urgent: fire"})
    no = await outside.call("/hooks/h", {"message": "tea"})

    assert (yes.json(), yes.headers["content-type"]) == ("This is urgent! urgent: fire", "application/json")
    assert (no.text, no.headers["content-type"]) == ("later: tea", "text/plain; charset=utf-8")


async def test_sec_84_what_a_workflow_answers_acts_in_no_browser(client: Client, outside: Outside) -> None:
    page = "<script>fetch('/api/v1/runs')</script>"
    flow = hooked(
        node("respond", "RespondToWebhook", content_type="text/html", response_body=page),
        edge("hook", "respond"),
        path="h",
    )
    await publish(client, flow)

    answer = await outside.call("/hooks/h")

    assert answer.text == page
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["content-security-policy"].startswith("sandbox;")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "set-cookie" not in answer.headers


FORBIDDEN: list[dict[str, str]] = [
    {"Set-Cookie": "a=b"},
    {"Content-Security-Policy": "none"},
    {"X-Frame-Options": "ALLOW"},
    {"X-Content-Type-Options": "x"},
    {"Access-Control-Allow-Origin": "*"},
    {"Transfer-Encoding": "chunked"},
    {"X-Bad": "a\r\nSet-Cookie: b=c"},
    {"X Bad": "a"},
]


async def test_sec_84_sec_75_headers_that_no_workflow_may_set_are_refused_when_it_is_checked(
    client: Client,
) -> None:
    for headers in FORBIDDEN:
        respond = node("respond", "RespondToWebhook", response_headers=headers, response_body="x")
        flow = hooked(respond, edge("hook", "respond"))

        problems = (await client.post("/workflows/check", json={"flow_data": flow})).json()["problems"]

        found = [(each["code"], each["pointer"]) for each in problems]
        assert found == [("bad_config", "/nodes/1/data/response_headers")], headers


async def test_sec_84_a_header_that_is_filled_in_only_when_it_runs_is_refused_then(
    client: Client, outside: Outside
) -> None:
    flow = hooked(
        node(
            "respond", "RespondToWebhook", response_headers={"X-Name": "{{ hook.name }}"}, response_body="x"
        ),
        edge("hook", "respond"),
        path="h",
    )
    hook = await publish(client, flow)

    good = await outside.call("/hooks/h", {"name": "Ada"})
    bad = await outside.call("/hooks/h", {"name": "Ada\r\nSet-Cookie: a=b"})

    assert (good.status_code, good.headers["x-name"]) == (200, "Ada")
    assert (bad.status_code, "set-cookie" in bad.headers) == (500, False)
    assert [run["status"] for run in await runs_of(client, hook)] == ["failed", "succeeded"]


async def test_a_run_that_ends_before_any_answer_or_fails_answers_at_once(
    client: Client, outside: Outside
) -> None:
    flow = hooked(
        node("which", "ConditionNode", operation="equal", value1="{{ hook.go }}", value2="yes"),
        node("respond", "RespondToWebhook", response_body="answered"),
        node("out", "Template", template="not answered"),
        edge("hook", "which"),
        edge("which", "respond", "true_output"),
        edge("which", "out", "false_output"),
        path="h",
    )
    await publish(client, flow)

    silent = await outside.call("/hooks/h", {"go": "no"})
    failed = await outside.call("/hooks/h", {"other": 1})

    assert (silent.status_code, silent.json()) == (200, "not answered")
    assert (failed.status_code, failed.json()["type"]) == (500, "urn:flowserver:problem:run_failed")
    assert "go" not in failed.json()["detail"]


async def test_a_question_or_a_run_that_outlasts_the_caller_says_where_to_look(
    client: Client, outside: Outside, dsn: str
) -> None:
    asking = hooked(node("ask", "HumanInput", prompt="sure?"), edge("hook", "ask"), path="ask")
    await publish(client, asking)

    asked = await outside.call("/hooks/ask")

    assert asked.status_code == 202
    told = asked.json()
    assert (told["status"], told["questions"][0]["payload"]["question"]) == ("waiting", "sure?")
    assert told["resume"] == f"/api/v1/runs/{told['run_id']}/resume"
    assert asked.headers["location"] == f"/api/v1/runs/{told['run_id']}"
    resumed = await client.post(told["resume"].removeprefix("/api/v1"), json={"answer": "yes"})
    assert resumed.status_code == 202


async def test_it_answers_at_once_where_that_is_chosen(client: Client, outside: Outside) -> None:
    plain = await publish(client, hooked(*ECHO, path="plain", answer="at_once"), "plain")
    await publish(client, hooked(*ECHO, path="said", answer="at_once", status=200, body={"ok": True}), "said")

    first = await outside.call("/hooks/plain", {"a": 1})
    second = await outside.call("/hooks/said", {"a": 1})

    assert (first.status_code, first.json()) == (202, {"run_id": first.headers["x-run-id"]})
    assert (second.status_code, second.json()) == (200, {"ok": True})
    [run] = await runs_of(client, plain)
    await until(lambda: _has_status(client, run["id"], "succeeded"), "the run to end")


async def test_it_streams_text_and_the_end_and_nothing_of_its_inside(settings: Settings, dsn: str) -> None:
    async with OpenAIServer() as openai:
        openai.reply(Reply(tokens=["Hel", "lo ", "Ada"]))
        chatting = msgspec.structs.replace(
            settings, openai_base_url=openai.url, openai_api_key="sk-x", outbound_allow=("127.0.0.1",)
        )
        flow = hooked(
            node("inside", "Template", template="inside {{ hook.name }}"),
            node("model", "OpenAIChat"),
            node("agent", "Agent"),
            edge("hook", "inside"),
            edge("inside", "agent", None, "input"),
            edge("model", "agent", None, "llm"),
            path="h",
            answer="stream",
        )
        async with serving(create_app(chatting, dsn)) as client:
            await publish(client, flow)
            outside = Outside(client)
            async with outside.stream("/hooks/h", json={"name": "Ada"}) as response:
                text = (await response.aread()).decode()
            await outside.close()

    assert response.status_code == 200  # a browser's EventSource takes no other
    assert response.headers["content-type"].startswith("text/event-stream")
    events = events_of(text)
    assert {event["event"] for event in events[:-1]} == {"text"}
    assert "".join(event["text"] for event in events[:-1]) == events[-1]["output"] == "Hello Ada"
    assert "inside" not in text


async def test_text_of_a_step_that_begins_again_is_discarded_in_the_stream(
    settings: Settings, dsn: str
) -> None:
    async with OpenAIServer() as openai:
        openai.reply(
            Reply(tokens=["Hel", "lo ", "Bob"], fault=Fault.RESET, good=2), Reply(tokens=["Hi ", "Ada"])
        )
        chatting = msgspec.structs.replace(
            settings, openai_base_url=openai.url, openai_api_key="sk-x", outbound_allow=("127.0.0.1",)
        )
        flow = hooked(
            node("model", "OpenAIChat", max_retries=0),
            node("agent", "Agent", retry={"attempts": 2, "delay": 0}),
            edge("hook", "agent", None, "input"),
            edge("model", "agent", None, "llm"),
            path="h",
            answer="stream",
        )
        async with serving(create_app(chatting, dsn)) as client:
            await publish(client, flow)
            outside = Outside(client)
            async with outside.stream("/hooks/h", json={"name": "Ada"}) as response:
                events = events_of((await response.aread()).decode())
            await outside.close()

    kinds = [event["event"] for event in events]
    assert kinds.count("text.discarded") == 1
    begun_again = kinds.index("text.discarded")
    assert "".join(event["text"] for event in events[:begun_again]) == "Hello "
    assert events[begun_again]["step"] == "agent"
    assert (
        "".join(event["text"] for event in events[begun_again + 1 : -1]) == events[-1]["output"] == "Hi Ada"
    )


@pytest.mark.parametrize(
    ("more", "header"),
    [
        ({}, "Idempotency-Key"),
        ({}, "Webhook-Id"),
        ({}, "Content-Type"),
        ({"dedupe_header": "X-Event"}, "x-event"),
        ({"authentication": "github"}, "X-Hub-Signature-256"),
        ({"authentication": "stripe"}, "Stripe-Signature"),
        ({"authentication": "slack"}, "X-Slack-Signature"),
        ({"authentication": "slack"}, "X-Slack-Request-Timestamp"),
        ({"authentication": "standard"}, "webhook-signature"),
        ({"authentication": "bearer"}, "Authorization"),
        ({"authentication": "hmac", "header": "X-Sign", "timestamp_header": "X-At"}, "X-Sign"),
        ({"authentication": "hmac", "header": "X-Sign", "timestamp_header": "X-At"}, "X-At"),
        ({"authentication": "header", "header": "X-Token"}, "X-Token"),
    ],
)
async def test_a_header_that_says_who_calls_may_not_come_twice(
    client: Client, outside: Outside, more: dict[str, Any], header: str
) -> None:
    hook = await publish(client, hooked(*ECHO, path="h", **more))

    answer = await outside.call("/hooks/h", content=b"1", headers=[(header, "a"), (header.upper(), "b")])

    assert (answer.status_code, answer.json()["detail"]) == (
        422,
        f"the header {header.lower()!r} comes more than once; this webhook takes it once",
    )
    assert await runs_of(client, hook) == []


async def test_another_header_that_comes_twice_is_one_list(client: Client, outside: Outside) -> None:
    flow = hooked(node("t", "Template", template="{{ trigger.headers.x-tag }}"), edge("hook", "t"), path="h")
    await publish(client, flow)

    answer = await outside.call("/hooks/h", 1, headers=[("X-Tag", "a"), ("X-Tag", "b")])

    assert answer.json() == "a, b"


async def test_a_delivery_whose_run_has_been_forgotten_starts_no_other(
    client: Client, outside: Outside, dsn: str
) -> None:
    hook = await publish(client, hooked(*ECHO, path="h"))
    first = await outside.call("/hooks/h", headers={"webhook-id": "1"})
    await rows(dsn, "DELETE FROM run RETURNING id")

    again = await outside.call("/hooks/h", headers={"webhook-id": "1"})

    assert (first.status_code, again.status_code) == (200, 409)
    assert "its run is no longer kept" in again.json()["detail"]
    assert await runs_of(client, hook) == []


async def test_the_test_address_runs_what_is_drawn_now_and_shows_what_arrived(
    client: Client, outside: Outside
) -> None:
    hook = await publish(client, hooked(*ECHO, path="h"))
    changed = hooked(node("new", "Template", template="new {{ hook.a }}"), edge("hook", "new"), path="h")
    await client.put(f"/workflows/{hook['workflow_id']}", json={"flow_data": changed})

    async with client.stream("GET", f"/webhooks/{hook['id']}/listen") as listening:
        lines = listening.aiter_lines()
        assert await anext(lines) == "retry: 1000"
        tried = await outside.call("/hooks-test/h", {"a": 1}, headers={"Authorization": "Bearer x"})
        live = await outside.call("/hooks/h", {"a": 1})
        async for line in lines:
            if line.startswith("data:"):
                break
    told = json.loads(line.removeprefix("data: "))

    assert (tried.json(), live.json()) == ("new 1", {"a": 1})
    assert (json.loads(told["body"]), told["run_id"]) == ({"a": 1}, tried.headers["x-run-id"])
    assert told["headers"]["authorization"] == "(hidden)"


async def test_a_drawing_with_a_mistake_says_so_at_its_test_address(client: Client, outside: Outside) -> None:
    broken = hooked(node("t", "Template", template="{{ nobody }}"), edge("hook", "t"), path="h")
    saved = (await client.post("/workflows", json={"name": "w", "flow_data": broken})).json()

    tried = await outside.call("/hooks-test/h", {"a": 1})
    refused = await client.post(f"/workflows/{saved['id']}/publish")

    assert (tried.status_code, tried.json()["problems"][0]["where"]) == (422, "t")
    assert refused.status_code == 422
    [hook] = (await client.get("/webhooks")).json()["items"]
    [dead] = (await client.get(f"/webhooks/{hook['id']}/deliveries?status=dead")).json()["items"]
    assert dead["error"]["code"] == "invalid_workflow"
    mended = hooked(node("t", "Template", template="ok"), edge("hook", "t"), path="h")
    await client.put(f"/workflows/{saved['id']}", json={"flow_data": mended})
    again = await client.post(f"/webhooks/{hook['id']}/deliveries/{dead['id']}/redeliver")
    assert (again.status_code, again.json()["redelivers"]) == (202, dead["id"])


async def test_a_path_that_is_taken_is_refused(client: Client, outside: Outside) -> None:
    first = await publish(client, hooked(*ECHO, path="mine"), "first")
    second = {"name": "second", "flow_data": hooked(*ECHO, path="mine")}
    saved = (await client.post("/workflows", json=second)).json()

    published = await client.post(f"/workflows/{saved['id']}/publish")
    made = await client.post("/webhooks", json={"workflow_id": saved["id"], "hook": {"path": "mine"}})

    assert [(each["code"], each["severity"], each["where"]) for each in saved["problems"]] == [
        ("path_taken", "warning", "hook")
    ]
    assert (published.status_code, published.json()["type"]) == (409, "urn:flowserver:problem:path_taken")
    assert made.status_code == 409
    await client.delete(f"/workflows/{first['workflow_id']}")
    assert (await client.post(f"/workflows/{saved['id']}/publish")).status_code == 200


async def test_a_workflow_can_be_published_as_it_was(client: Client, outside: Outside) -> None:
    hook = await publish(client, hooked(*ECHO, path="h"))
    id = hook["workflow_id"]
    other = hooked(node("t", "Template", template="other"), edge("hook", "t"), path="h")
    await client.put(f"/workflows/{id}", json={"flow_data": other})
    versions = (await client.get(f"/workflows/{id}/versions")).json()["items"]

    before = (await outside.call("/hooks/h", {"a": 1})).json()
    await client.post(f"/workflows/{id}/publish", json={"version": versions[0]["version"]})
    after = (await outside.call("/hooks/h", {"a": 1})).json()
    await client.post(f"/workflows/{id}/publish", json={"version": versions[1]["version"]})
    back = (await outside.call("/hooks/h", {"a": 1})).json()
    by_hand = (await client.post(f"/workflows/{id}/runs", json={"version": "published", "input": 5})).json()

    assert [(each["is_draft"], each["is_published"]) for each in versions] == [(True, False), (False, True)]
    assert (before, after, back, by_hand["output"]) == ({"a": 1}, "other", {"a": 1}, 5)
    unknown = await client.post(f"/workflows/{id}/publish", json={"version": "0" * 64})
    assert unknown.status_code == 404
    await client.post(f"/workflows/{id}/unpublish")
    nothing = await client.post(f"/workflows/{id}/runs", json={"version": "published"})
    assert (nothing.status_code, nothing.json()["type"]) == (409, "urn:flowserver:problem:not_published")


async def test_a_webhook_made_by_the_api_starts_any_published_workflow(
    client: Client, outside: Outside
) -> None:
    flow = drawing(node("start", "StartNode"), node("end", "EndNode"), edge("start", "end"))
    saved = (await client.post("/workflows", json={"name": "plain", "flow_data": flow})).json()
    body = {"workflow_id": saved["id"], "hook": {"methods": ["PUT"], "authentication": "standard"}}

    made = (await client.post("/webhooks", json=body)).json()
    early = await outside.call(made["test_url"].replace("-test", ""), method="PUT")
    await client.post(f"/workflows/{saved['id']}/publish")
    made |= (await client.get(f"/webhooks/{made['id']}")).json()
    signed = sign([made["secret"]], "msg_1", datetime.now(UTC), b"{}")
    called = await outside.call(made["url"], method="PUT", content=b"{}", headers=signed)

    assert early.status_code == 404
    assert (called.status_code, called.json()) == (200, {})
    changed = await client.patch(f"/webhooks/{made['id']}", json={"hook": {"methods": ["POST"]}})
    assert (changed.json()["hook"]["path"], changed.json()["hook"]["methods"]) == (
        made["hook"]["path"],
        ["POST"],
    )
    assert (await outside.call(made["url"])).status_code == 200
    assert (await client.delete(f"/webhooks/{made['id']}")).status_code == 204
    assert (await outside.call(made["url"])).status_code == 404
    assert (await client.get(f"/webhooks/{made['id']}")).status_code == 404


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"hook": {"path": "../x"}}, "a path has 1 to 200 letters"),
    ({"hook": {"path": "x" * 201}}, "a path has 1 to 200 letters"),
    ({"hook": {"methods": []}}, "length >= 1"),
    ({"hook": {"methods": ["TRACE"]}}, "Invalid enum value 'TRACE'"),
    ({"hook": {"authentication": "hmac"}}, "'header' says where to look"),
    ({"hook": {"allowed_ips": ["10.0.0.0/8", "home"]}}, "'home' is no IP address or network"),
    ({"hook": {"timeout_seconds": 3000}}, "<= 300"),
    ({"hook": {"dedupe_pointer": "id"}}, "a JSON pointer begins with '/'"),
    ({"hook": {"authentication": "bearer"}, "secret": "short"}, "at least 8 printable characters"),
    ({"hook": {"authentication": "standard"}, "secret": "whsec_!!!!!"}, "'whsec_' and base64"),
    ({"step": "nobody"}, "'nobody' is not a trigger of this workflow; its triggers: hook"),
    ({"hook": {"secret": "x"}}, "unknown field `secret`"),
]


async def test_what_no_webhook_can_be_is_refused_in_words(client: Client) -> None:
    hook = await publish(client, hooked(*ECHO))

    for body, words in REFUSED:
        refused = await client.post("/webhooks", json={"workflow_id": hook["workflow_id"], **body})

        assert refused.status_code in (400, 422), body
        assert words in refused.json()["detail"]


async def test_what_a_drawing_says_is_changed_there(client: Client) -> None:
    hook = await publish(client, hooked(*ECHO))

    changed = await client.patch(f"/webhooks/{hook['id']}", json={"hook": {}})
    deleted = await client.delete(f"/webhooks/{hook['id']}")

    assert [(each.status_code, each.json()["type"]) for each in (changed, deleted)] == [
        (409, "urn:flowserver:problem:drawn")
    ] * 2


async def test_sec_85_more_than_are_taken_a_minute_are_told_when_to_come_again(
    client: Client, outside: Outside, dsn: str
) -> None:
    hook = await publish(client, hooked(*ECHO, path="h", rate_limit_per_minute=3))
    other = await publish(client, hooked(*ECHO, path="other"), "other")
    await rows(dsn, "SELECT pg_sleep(60 - extract(second FROM now())) WHERE extract(second FROM now()) > 57")

    answers = [await outside.call("/hooks/h") for _ in range(5)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    assert len(await runs_of(client, hook)) == 3
    assert (await outside.call("/hooks/other")).status_code == 200
    assert len(await runs_of(client, other)) == 1


async def test_pages_of_other_sites_may_call_only_where_that_is_said(
    client: Client, outside: Outside
) -> None:
    await publish(client, hooked(*ECHO, path="open", enable_cors="true"), "open")
    asks = {"Origin": "https://example.com", "Access-Control-Request-Method": "POST"}

    before = await outside.call("/hooks/open", method="OPTIONS", headers=asks)
    called = await outside.call("/hooks/open", {"a": 1}, headers={"Origin": "https://example.com"})
    other = await outside.call(
        "/hooks/open", method="OPTIONS", headers={**asks, "Access-Control-Request-Method": "DELETE"}
    )

    assert (before.status_code, before.headers["access-control-allow-origin"]) == (204, "*")
    assert before.headers["access-control-allow-methods"] == "POST"
    assert called.headers["access-control-allow-origin"] == "*"
    assert other.status_code == 404


async def test_slack_is_told_that_somebody_is_here(client: Client, outside: Outside) -> None:
    hook = await publish(
        client, hooked(*ECHO, path="s", authentication="slack", secret="slack-signing-secret")
    )
    body = json.dumps({"type": "url_verification", "challenge": "3eZbrw1aB"}).encode()
    stamp = str(int(datetime.now(UTC).timestamp()))
    digest = hmac.new(b"slack-signing-secret", b"v0:" + stamp.encode() + b":" + body, hashlib.sha256)
    signed = {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": f"v0={digest.hexdigest()}"}

    answer = await outside.call(
        "/hooks/s", content=body, headers={**signed, "Content-Type": "application/json"}
    )
    forged = await outside.call("/hooks/s", content=body, headers={**signed, "X-Slack-Signature": "v0=0"})

    assert (answer.status_code, answer.json()) == (200, {"challenge": "3eZbrw1aB"})
    assert forged.status_code == 401
    assert await runs_of(client, hook) == []


async def test_a_credential_may_hold_the_secret(client: Client, outside: Outside) -> None:
    data = {"name": "c", "data": {"username": "ada", "password": "a-long-password"}}
    credential = (await client.post("/credentials", json=data)).json()
    flow = hooked(
        *ECHO, path="h", authentication_type="basic_auth", basic_auth_credential_id=credential["id"]
    )
    await publish(client, flow)

    good = await outside.call("/hooks/h", headers={"Authorization": "Basic YWRhOmEtbG9uZy1wYXNzd29yZA=="})
    bad = await outside.call("/hooks/h", headers={"Authorization": "Basic YWRhOg=="})
    await client.delete(f"/credentials/{credential['id']}")
    gone = await outside.call("/hooks/h", headers={"Authorization": "Basic YWRhOmEtbG9uZy1wYXNzd29yZA=="})

    assert (good.status_code, bad.status_code, gone.status_code) == (200, 401, 401)


async def test_the_token_that_an_editor_writes_into_every_webhook_lets_nobody_in(
    client: Client, outside: Outside
) -> None:
    flow = hooked(
        *ECHO, webhook_id="wh_0123456789ab", authentication_required=True, webhook_token="wht_secrettoken123"
    )
    hook = await publish(client, flow)

    known = await outside.call(
        "/hooks/wh_0123456789ab", headers={"Authorization": "Bearer wht_secrettoken123"}
    )
    made = (await client.post(f"/webhooks/{hook['id']}/secrets/rotate", json={})).json()["secret"]
    good = await outside.call("/hooks/wh_0123456789ab", headers={"Authorization": f"Bearer {made}"})

    assert (known.status_code, good.status_code) == (401, 200)


async def test_statistics_tell_what_became_of_deliveries(client: Client, outside: Outside) -> None:
    flow = hooked(node("t", "Template", template="{{ hook.a }}"), edge("hook", "t"), path="h", dedupe="body")
    hook = await publish(client, flow)
    for body in ({"a": 1}, {"a": 1}, {"b": 2}):
        await outside.call("/hooks/h", body)

    found = (await client.get(f"/webhooks/{hook['id']}/statistics")).json()

    numbers = ("deliveries", "repeats", "succeeded", "failed", "dead", "open", "last_day")
    assert [found[name] for name in numbers] == [2, 1, 1, 1, 0, 0, 2]


async def test_sec_85_an_organisation_that_is_flooded_keeps_no_other_from_being_called(
    settings: Settings, dsn: str
) -> None:
    limited = msgspec.structs.replace(settings, deliveries_per_minute=5)
    async with serving(create_app(limited, dsn)) as client:
        outside, theirs = Outside(client), await stranger(dsn)
        await publish(client, hooked(*ECHO, path="ours", answer="at_once"))
        saved = await client.post(
            "/workflows", json={"name": "w", "flow_data": hooked(*ECHO, path="theirs")}, headers=theirs
        )
        await client.post(f"/workflows/{saved.json()['id']}/publish", headers=theirs)
        await rows(
            dsn, "SELECT pg_sleep(60 - extract(second FROM now())) WHERE extract(second FROM now()) > 55"
        )

        flood = [await outside.call("/hooks/ours", {"n": number}) for number in range(10)]
        other = await outside.call("/hooks/theirs", {"n": 1})

        assert [answer.status_code for answer in flood] == [202] * 5 + [429] * 5
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in flood[5:])
        assert (other.status_code, other.json()) == (200, {"n": 1})
        await outside.close()
