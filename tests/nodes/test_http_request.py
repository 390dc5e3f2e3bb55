"""The HTTP request node against a real server on 127.0.0.1, through the guarded client."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import anyio
import httpx
import msgspec
import pytest
from msgspec.structs import fields

from flowserver.outbound import UrlNotAllowed, outbound_client
from nodes.contract import ModelDefaults, NodeError, RunContext
from nodes.pauses import retry_after
from nodes.web.exchange import Call, NoAnswer, pause, read, redacted
from nodes.web.http_request import NODE, Config, Inputs, Outputs, run, tool
from tests.web_server import Raw, Reply, Request, WebServer, redirect, reply_json

NOTHING = {"retry_delay": 0}


def config(**drawn: Any) -> Config:
    """The settings as the compiler makes them: other spellings joined, every field converted by itself."""
    known = {info.name: info.type for info in fields(Config)}
    spelled = {also: name for name, kind in known.items() for also in _also(kind)}
    names = {spelled.get(key, key): value for key, value in drawn.items()}
    return Config(
        **{name: msgspec.convert(value, known[name], strict=False) for name, value in names.items()}
    )


def _also(kind: Any) -> tuple[str, ...]:
    metas = [each for each in getattr(kind, "__metadata__", ()) if each.extra]
    return metas[0].extra["also"] if metas else ()


@pytest.fixture
async def web() -> AsyncIterator[WebServer]:
    async with WebServer() as server:
        yield server


@dataclass
class Node:
    """The node, ready to run."""

    ctx: RunContext

    async def run(self, **drawn: Any) -> Outputs:
        return await run(config(**NOTHING | drawn), Inputs(), self.ctx)

    async def fail(self, **drawn: Any) -> NodeError:
        with pytest.raises(NodeError) as failed:
            await self.run(**drawn)
        return failed.value

    def tool(self, **drawn: Any) -> Any:
        return tool(config(**NOTHING | drawn), self.ctx)


@pytest.fixture
async def node(web: WebServer) -> AsyncIterator[Node]:
    def nothing(*_: Any) -> Any:
        raise AssertionError("not for this node")

    def resolve(host: str, port: int, *hints: int) -> list[Any]:
        return socket.getaddrinfo("127.0.0.1" if host == "localhost" else host, port, 0, 0, 0, numeric)

    numeric = socket.AI_NUMERICHOST  # no name is looked up: it does not resolve
    async with outbound_client([web.door], max_bytes=100_000, resolver=resolve) as client:
        yield Node(
            RunContext(
                step="http-1",
                name="Get the weather!",
                run_id="run",
                input="",
                trigger={},
                round=0,
                idempotency_key="key-of-the-step",
                http=client,
                models=ModelDefaults(),
                emit=nothing,
                ask=nothing,
                recall=nothing,
                remember=nothing,
                set_variable=nothing,
                used=nothing,
            )
        )


async def test_a_json_answer_comes_out_parsed(web: WebServer, node: Node) -> None:
    url = web.on("/users", reply_json({"users": ["Ada"]}, headers={"X-Trace": "7"}))

    out = await node.run(url=url)

    text = '{"users": ["Ada"]}'
    assert (out.content, out.status_code, out.success) == ({"users": ["Ada"]}, 200, True)
    assert (out.headers["content-type"], out.headers["x-trace"]) == ("application/json", "7")
    assert out.documents == [
        {
            "page_content": text,
            "metadata": {"source": url, "status_code": 200, "content_type": "application/json"},
        }
    ]
    assert out.response.pop("duration_ms") >= 0
    assert out.response == {
        "status_code": 200,
        "headers": out.headers,
        "content": {"users": ["Ada"]},
        "is_json": True,
        "url": url,
        "method": "GET",
    }


def test_the_ports_have_the_editors_names() -> None:
    ports = {info.name: _also(info.type) for info in fields(NODE.outputs)}
    [port] = fields(NODE.inputs)

    assert list(ports) == ["content", "response", "status_code", "headers", "success", "documents"]
    assert ports["documents"] == ("document",)
    assert (port.name, _also(port.type)) == ("input", ("execute", "url", "template_context"))
    assert (NODE.effect, NODE.kind, NODE.name) == (True, "step", "HttpRequest")


FIRST_EDITOR = {
    "method": "POST",
    "custom_headers": '{"X-Team": "a"}',
    "query_params": '{"page": 2}',
    "request_body": '{"name": "Ada"}',
    "content_type": "application/json",
    "auth_type": "api_key",
    "api_key_value": "s3cret",
    "api_key_header": "X-Own-Key",
    "timeout": "30",
    "retry_count": "3",
    "retry_delay": "1000",
    "follow_redirects": "true",
    "verify_ssl": True,
    "enable_templating": True,
}
SECOND_EDITOR = {
    "method": "POST",
    "headers": {"X-Team": "a"},
    "url_params": {"page": "2"},
    "body": {"name": "Ada"},
    "content_type": "json",
    "auth_type": "api_key",
    "auth_token": "s3cret",
    "api_key_header": "X-Own-Key",
    "timeout": 30,
    "max_retries": 3,
    "retry_delay": 1.0,
}


@pytest.mark.parametrize("drawn", [FIRST_EDITOR, SECOND_EDITOR], ids=["first", "second"])
async def test_both_editors_spellings_send_the_same(
    web: WebServer, node: Node, drawn: dict[str, Any]
) -> None:
    url = web.on("/", Reply(204))

    await node.run(url=url + "?lang=en", **drawn)

    [request] = web.requests
    assert request.method == "POST"
    assert request.query == [("lang", "en"), ("page", "2")]
    assert request.json == {"name": "Ada"}
    sent = {
        name: request.headers[name] for name in ("x-team", "x-own-key", "content-type", "idempotency-key")
    }
    assert sent == {
        "x-team": "a",
        "x-own-key": "s3cret",
        "content-type": "application/json",
        "idempotency-key": "key-of-the-step",
    }


@pytest.mark.parametrize(("written", "seconds"), [(1000, 1.0), (61, 0.061), (60, 60.0), (0.5, 0.5), (0, 0)])
async def test_a_retry_delay_above_sixty_is_in_milliseconds(
    node: Node, monkeypatch: pytest.MonkeyPatch, written: float, seconds: float
) -> None:
    calls: list[Call] = []

    async def send(_: httpx.AsyncClient, call: Call) -> httpx.Response:
        calls.append(call)
        return httpx.Response(204, request=httpx.Request("GET", "http://x"))

    monkeypatch.setattr("nodes.web.http_request.send", send)

    await node.run(url="http://x", retry_delay=written, timeout=7)

    assert (calls[0].delay, calls[0].timeout, calls[0].retries) == (seconds, 7, 3)


@pytest.mark.parametrize("params", ["", "{}", {}, '{"b": ["2", "3"], "none": null, "": ""}'])
async def test_the_urls_own_query_is_kept(web: WebServer, node: Node, params: Any) -> None:
    url = web.on("/", Reply())

    await node.run(url=f"  {url}?a=1%2B1&a=2 ", url_params=params)

    more = [("b", "2"), ("b", "3")] if "b" in params else []
    assert web.requests[0].query == [("a", "1+1"), ("a", "2"), *more]


@pytest.mark.parametrize(
    ("settings", "header"),
    [
        ({"auth_type": "none", "auth_token": "unused"}, None),
        ({"auth_type": "bearer", "auth_token": "abc"}, "Bearer abc"),
        ({"auth_type": "bearer", "auth_token": "abc", "headers": {"authorization": "old"}}, "Bearer abc"),
        (
            {"auth_type": "basic", "auth_username": "ädä", "auth_password": "pä:ss"},
            "Basic " + base64.b64encode("ädä:pä:ss".encode()).decode(),
        ),
    ],
)
async def test_credentials(web: WebServer, node: Node, settings: dict[str, Any], header: str | None) -> None:
    url = web.on("/", Reply())

    await node.run(url=url, **settings)

    assert web.requests[0].headers.get("authorization") == header


@pytest.mark.parametrize(
    ("kind", "body", "sent", "header"),
    [
        ("json", {"a": [1, None]}, b'{"a":[1,null]}', "application/json"),
        ("json", ' {"a":  1}\n', b' {"a":  1}\n', "application/json"),
        ("json", [1], b"[1]", "application/json"),
        ("json", {}, b"{}", "application/json"),
        ("json", False, b"false", "application/json"),
        ("json", "", b"", None),
        ("form", {"a": "x y", "b": [1, 2], "c": None}, b"a=x+y&b=1&b=2", "application/x-www-form-urlencoded"),
        ("form", '{"a": "ä&"}', b"a=%C3%A4%26", "application/x-www-form-urlencoded"),
        ("application/x-www-form-urlencoded", "a=1&b=2", b"a=1&b=2", "application/x-www-form-urlencoded"),
        ("text", "hällo", "hällo".encode(), "text/plain; charset=utf-8"),
        ("text/plain", {"a": "ä"}, '{"a": "ä"}'.encode(), "text/plain; charset=utf-8"),
        ("xml", "<a/>", b"<a/>", "application/xml; charset=utf-8"),
        ("text/xml", "<a/>", b"<a/>", "text/xml; charset=utf-8"),
    ],
)
async def test_bodies(
    web: WebServer, node: Node, kind: str, body: Any, sent: bytes, header: str | None
) -> None:
    url = web.on("/", Reply())

    await node.run(url=url, method="PUT", content_type=kind, body=body)

    assert (web.requests[0].body, web.requests[0].headers.get("content-type")) == (sent, header)


async def test_a_large_form_is_sent(web: WebServer, node: Node) -> None:
    url = web.on("/", Reply())

    await node.run(url=url, method="POST", content_type="form", body={"a": "x" * 100_000})

    assert web.requests[0].body == b"a=" + b"x" * 100_000


async def test_a_multipart_body_has_its_fields_as_texts(web: WebServer, node: Node) -> None:
    url = web.on("/", Reply())

    await node.run(
        url=url,
        method="POST",
        content_type="multipart",
        body={"a": "x\r\ny", 'b"': 2},
        headers={"Content-Type": "z"},
    )

    [request] = web.requests
    kind, _, boundary = request.headers["content-type"].partition("; boundary=")
    assert kind == "multipart/form-data"
    parts = [part.strip("\r\n") for part in request.body.decode().split(f"--{boundary}")]
    assert parts == [
        "",
        'Content-Disposition: form-data; name="a"\r\n\r\nx\r\ny',
        'Content-Disposition: form-data; name="b%22"\r\n\r\n2',
        "--",
    ]


async def test_a_header_of_the_author_names_the_content(web: WebServer, node: Node) -> None:
    url = web.on("/", Reply())
    headers = {
        "content-type": "application/vnd.api+json",
        "Idempotency-Key": "mine",
        "X-Name": "Ädä",
        "X-N": 5,
    }
    pasted = {"Content-Length": "999", "Connection": "keep-alive", "Accept-Encoding": "br", "": ""}

    await node.run(url=url, method="POST", body={}, headers={**headers, **pasted})

    sent = web.requests[0].headers
    assert [sent[name.lower()] for name in headers] == [
        "application/vnd.api+json",
        "mine",
        "Ädä".encode().decode("latin-1"),
        "5",
    ]
    assert (sent["content-length"], sent["accept-encoding"]) == ("2", "gzip")


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_a_body_is_not_sent_where_none_belongs(web: WebServer, node: Node, method: str) -> None:
    url = web.on("/", Reply())

    await node.run(url=url, method=method, body="not even JSON")

    assert (web.requests[0].method, web.requests[0].body) == (method, b"")
    assert "content-type" not in web.requests[0].headers


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        ({"url": ""}, "missing_value", "'url' is empty"),
        ({"url": "example.com/path"}, "bad_url", "must begin with http"),
        ({"url": "http://x/\r\nHost: y"}, "bad_url", "line break"),
        ({"url": "http://x/\u2028"}, "bad_url", "line break"),
        ({"url": "http://x:y/"}, "bad_url", "not a valid URL"),
        ({"url": "http://x/", "url_params": {"a": "x" * 70_000}}, "bad_url", "too long"),
        ({"headers": {"X-A": "b\r\nEvil: hunter2"}}, "bad_header", "'X-A' has a line break"),
        ({"headers": {"X-A": "b\u2028c"}}, "bad_header", "'X-A' has a line break"),
        ({"headers": {"X-A": "b\0"}}, "bad_header", "'X-A' has a line break"),
        ({"headers": {"Authorization: hunter2": ""}}, "bad_header", "after 'Authorization'"),
        ({"headers": {"ä": ""}}, "bad_header", "after ''"),
        ({"headers": '{"a": \n1,}'}, "bad_json", "'headers' is not valid JSON, line 2, column 3"),
        ({"headers": "[1]"}, "bad_config", "'headers' must be an object"),
        ({"url_params": "a=1"}, "bad_json", "'url_params' is not valid JSON"),
        (
            {"method": "POST", "body": '{"a": hunter2}'},
            "bad_json",
            "'body' is not valid JSON, line 1, column 7",
        ),
        ({"method": "POST", "body": "[" * 100_000}, "bad_json", "nested too deeply"),
        ({"method": "POST", "content_type": "multipart", "body": "[1]"}, "bad_config", "must be an object"),
        ({"auth_type": "bearer"}, "missing_value", "'auth_token' is empty"),
        ({"auth_type": "api_key"}, "missing_value", "'auth_token' is empty"),
        (
            {"auth_type": "bearer", "auth_token": "hunter2\r\nEvil: x"},
            "bad_key",
            "character 8 of 16 is a line break",
        ),
        (
            {"auth_type": "api_key", "auth_token": "hunter2", "api_key_header": "a b"},
            "bad_header",
            "after 'a'",
        ),
        ({"verify_ssl": False}, "not_supported", "verify_ssl"),
        ({"url": "http://localhost/"}, "url_not_allowed", "http://localhost is not allowed"),
        ({"url": "http://u:hunter2@127.0.0.1/"}, "url_not_allowed", "user name"),
        ({"url": "file:///etc/passwd"}, "url_not_allowed", "http or https"),
        ({"headers": {"Host": "other"}}, "url_not_allowed", "Host header"),
    ],
)
async def test_what_cannot_be_sent_is_named(
    web: WebServer, node: Node, settings: dict[str, Any], code: str, words: str
) -> None:
    failed = await node.fail(**{"url": web.url(), **settings})

    assert failed.code == code and words in failed.message
    assert "hunter2" not in failed.message and len(failed.message) < 300
    assert web.requests == []


@pytest.mark.parametrize(
    ("kind", "body", "content", "is_json"),
    [
        ("application/json; charset=utf-8", b'\xef\xbb\xbf{"a": 1}', {"a": 1}, True),
        ("application/problem+json", b"null", None, True),
        ("application/json", b"{oops", "{oops", False),
        ("application/json", b"[" * 50_000, "[" * 50_000, False),
        ("application/json", b"", "", False),
        ("text/html", "hällo".encode(), "hällo", False),
        ("text/html; charset=latin-1", "hällo".encode("latin-1"), "hällo", False),
        ("text/html; charset=../../", "hällo".encode(), "hällo", False),
        ("text/html; charset=zlib", b"hello", "hello", False),
        ("text/html; charset=punycode", b"hello", "hello", False),
        ("text/html; charset=ascii", b"h\xff", "hÿ", False),
        ("text/html", '<meta charset="gbk">黄金'.encode("gbk"), '<meta charset="gbk">黄金', False),
        ("text/plain", "红色的水果很好吃".encode("gbk"), "红色的水果很好吃", False),
        ("image/svg+xml", b"<svg/>", "<svg/>", False),
        ("", b"plain", "plain", False),
    ],
)
async def test_texts(web: WebServer, node: Node, kind: str, body: bytes, content: Any, is_json: bool) -> None:
    url = web.on("/", Reply(body=body, headers={"Content-Type": kind} if kind else {}))

    out = await node.run(url=url)

    assert (out.content, out.response["is_json"]) == (content, is_json)
    assert "content-transfer-encoding" not in out.headers


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream", ""])
async def test_bytes_come_out_as_base64(web: WebServer, node: Node, kind: str) -> None:
    url = web.on("/", Reply(body=b"\x89PNG\xff", headers={"Content-Type": kind} if kind else {}))

    out = await node.run(url=url)

    assert out.content == base64.b64encode(b"\x89PNG\xff").decode()
    assert out.headers["content-transfer-encoding"] == "base64"
    assert out.documents == []


async def test_a_status_of_400_fails_the_step_without_showing_a_secret(web: WebServer, node: Node) -> None:
    url = web.on("/", Reply(404, b"you sent hunter2"))

    failed = await node.fail(
        url=url + "?page=1&api_key=hunter2&accessToken=hunter2&X-Amz-Signature=hunter2",
        url_params={"client_secret": "hunter2", "keyword": "fish"},
        auth_type="bearer",
        auth_token="hunter2",
        headers={"X-Key": "hunter2"},
    )

    assert failed.code == "http_status"
    assert failed.message == (
        f"GET {url}?page=1&api_key=***&accessToken=***&X-Amz-Signature=***&client_secret=***&keyword=fish"
        " answered 404 Not Found"
    )


async def test_a_status_of_400_is_an_output_if_the_author_says_so(web: WebServer, node: Node) -> None:
    url = web.on("/", reply_json({"error": "no"}, 422))

    out = await node.run(url=url + "?token=hunter2", fail_on_error="false")

    assert (out.success, out.status_code, out.content) == (False, 422, {"error": "no"})
    assert "hunter2" not in str(out)


async def test_no_answer_is_an_output_if_the_author_says_so(node: Node) -> None:
    out = await node.run(url="http://nowhere.invalid./?token=hunter2", fail_on_error=False, max_retries=0)

    assert (out.success, out.status_code, out.headers, out.response["status_code"]) == (False, 0, {}, 0)
    assert "could not connect" in out.content and "hunter2" not in str(out)


async def test_redirects(web: WebServer, node: Node) -> None:
    url = web.on("/", redirect("/end?token=hunter2", 303))
    web.on("/end", Reply(body=b"arrived", headers={"Content-Type": "text/plain"}))

    followed = await node.run(url=url, method="POST", body={})
    stayed = await node.run(url=url, method="POST", body={}, follow_redirects=False)

    assert (followed.content, followed.response["method"]) == ("arrived", "GET")
    assert followed.response["url"] == web.url("/end?token=***")
    assert (stayed.status_code, stayed.headers["location"]) == (303, "/end?token=hunter2")


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("/", "too_many_redirects"),
        ("data:text/plain,x", "bad_answer"),
        ("http://10.0.0.1/", "url_not_allowed"),
    ],
)
async def test_redirects_to_nowhere(web: WebServer, node: Node, location: str, code: str) -> None:
    failed = await node.fail(url=web.on("/", redirect(location)))

    assert failed.code == code


async def test_an_answer_that_is_too_large_fails_at_once(web: WebServer, node: Node) -> None:
    bomb = gzip.compress(b"\0" * 1_000_000)
    failed = await node.fail(url=web.on("/", Reply(body=bomb, headers={"Content-Encoding": "gzip"})))

    assert (failed.code, len(web.requests)) == ("response_too_large", 1)


async def test_an_answer_in_an_unknown_encoding_fails(web: WebServer, node: Node) -> None:
    failed = await node.fail(url=web.on("/", Reply(body=b"x", headers={"Content-Encoding": "br"})))

    assert failed.code == "bad_answer"


async def drip(_: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while not writer.is_closing():
        writer.write(b".")
        await writer.drain()
        await asyncio.sleep(0)


async def hang_up(_: Request, writer: asyncio.StreamWriter) -> None:
    writer.close()


@pytest.mark.parametrize(("method", "attempts"), [("GET", 2), ("POST", 2)])
async def test_a_timeout_counts_for_the_whole_answer(
    web: WebServer, node: Node, method: str, attempts: int
) -> None:
    failed = await node.fail(url=web.on("/", Raw(drip)), method=method, timeout=0.1, max_retries=1)

    assert (failed.code, len(web.requests)) == ("timeout", attempts)
    assert failed.message.endswith("no answer in 0.1 seconds")


LATER = {"Retry-After": "0"}


@pytest.mark.parametrize(
    ("method", "first", "attempts"),
    [
        *((method, Raw(hang_up), 2) for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS")),
        *((method, Raw(hang_up), 2) for method in ("POST", "PATCH")),
        *((method, Reply(status), 2) for method in ("GET", "POST") for status in (429, 502, 503, 504)),
        *((method, Reply(status), 1) for method in ("GET", "POST") for status in (400, 404, 500, 501)),
        *(("POST", Reply(status, headers=LATER), 2) for status in (429, 503)),
        ("PATCH", Reply(500, headers=LATER), 1),
        ("GET", Reply(503, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}), 2),
    ],
)
async def test_what_is_repeated(web: WebServer, node: Node, method: str, first: Any, attempts: int) -> None:
    url = web.on("/", first, Reply(headers={"Content-Type": "text/plain"}))

    with_retry = node.run(url=url, method=method, body={"a": 1}, retry_delay=0)
    if attempts == 2:
        assert (await with_retry).status_code == 200
    else:
        with pytest.raises(NodeError):
            await with_retry

    assert len(web.requests) == attempts
    assert {request.headers["idempotency-key"] for request in web.requests} == {"key-of-the-step"}
    assert len({request.body for request in web.requests}) == 1


@pytest.mark.parametrize(("retries", "attempts"), [(0, 1), (2, 3)])
async def test_the_last_answer_counts(web: WebServer, node: Node, retries: int, attempts: int) -> None:
    failed = await node.fail(url=web.on("/", Reply(503)), max_retries=retries)

    assert (failed.code, len(web.requests)) == ("http_status", attempts)


async def test_a_post_that_got_nowhere_is_repeated(
    web: WebServer, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = web.on("/", Reply())
    connect = anyio.connect_tcp
    refusals: list[OSError] = [ConnectionRefusedError(), TimeoutError()]

    async def refuse_first(**options: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return await connect(**options)

    monkeypatch.setattr("anyio.connect_tcp", refuse_first)

    out = await node.run(url=url, method="POST", body={})

    assert (out.status_code, len(web.requests)) == (200, 1)


async def test_a_post_without_a_key_is_not_repeated_after_a_redirect_has_taken_it(
    web: WebServer, node: Node
) -> None:
    url = web.on("/", redirect("/done", 303))
    web.on("/done", Reply(503, headers=LATER))
    lost = web.on("/lost", redirect("/hang-up", 303))
    web.on("/hang-up", Raw(hang_up))
    keyless = Node(replace(node.ctx, idempotency_key=""))

    await keyless.fail(url=url, method="POST", body={})
    await keyless.fail(url=lost, method="POST", body={})

    assert [request.path for request in web.requests] == ["/", "/done", "/lost", "/hang-up"]


async def test_a_refusal_is_not_repeated(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    send = node.ctx.http.send

    async def count(*arguments: Any, **options: Any) -> httpx.Response:
        sent.append(arguments)
        return await send(*arguments, **options)

    monkeypatch.setattr(node.ctx.http, "send", count)

    with pytest.raises(UrlNotAllowed):
        await node.run(url="http://10.0.0.1/")

    assert len(sent) == 1


CALL = Call("GET", httpx.URL("http://x"), httpx.Headers(), None, 1.0, 9, 2.0, True)


def test_pauses_double_up_to_a_limit_and_are_spread() -> None:
    lost = NoAnswer("x", sent=True)
    pauses = [[pause(lost, CALL, attempt) or 0 for _ in range(50)] for attempt in (0, 1, 2, 9)]

    for each, most in zip(pauses, (2, 4, 8, 60), strict=True):
        assert most / 2 <= min(each) < max(each) <= most
    assert pause(lost, replace(CALL, method="POST"), 0) is None
    assert pause(NoAnswer("x", sent=False), replace(CALL, method="POST"), 0) is not None
    assert pause(httpx.Response(502), replace(CALL, method="POST"), 0) is None


def test_a_retry_after_wins_over_the_pause() -> None:
    answer = httpx.Response(429, headers={"Retry-After": "7"})

    assert pause(answer, CALL, 0) == 7


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        (" 0 ", 0),
        ("999", 60),
        ("9" * 5000, 60),
        ("Fri, 02 Jan 2026 00:00:30 GMT", 30),
        ("Fri, 02 Jan 2026 00:00:30 -0000", 30),
        ("Thu, 01 Jan 2026 00:00:00 GMT", 0),
        ("Fri, 02 Jan 2099 00:00:00 GMT", 60),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("²", None),
        ("Fri, 99 Jan 2026 00:00:30 GMT", None),
    ],
)
def test_retry_after_in_seconds_or_as_a_date(header: str, seconds: float | None) -> None:
    assert retry_after(header, datetime(2026, 1, 2, tzinfo=UTC)) == seconds


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:pass@x/a?b=1#c", "http://x/a?b=1"),
        (
            "http://x/?api_key=1&Token=2&sig=3&X-Amz-Security-Token=4",
            "http://x/?api_key=***&Token=***&sig=***&X-Amz-Security-Token=***",
        ),
        ("http://x/?keyword=1&design=2", "http://x/?keyword=1&design=2"),
        ("http://x/?q=%20%2B", "http://x/?q=%20%2B"),
    ],
)
def test_sec_76_urls_are_redacted(url: str, shown: str) -> None:
    assert redacted(httpx.URL(url)) == shown


def test_reading_does_not_need_a_request() -> None:
    assert read(httpx.Response(200, text="x")).value == "x"


async def test_a_model_chooses_query_and_body(web: WebServer, node: Node) -> None:
    url = web.on("/", reply_json({"temperature": 7}))
    weather = node.tool(
        url=url + "?fixed=1", url_params={"units": "c"}, method="POST", auth_type="bearer", auth_token="abc"
    )

    answer = await weather.ainvoke(
        {"query": {"city": "Köln", "fixed": "2", "units": "f"}, "body": {"days": 3}}
    )

    [request] = web.requests
    assert (weather.name, weather.description) == ("Get_the_weather", "Send POST to 127.0.0.1")
    assert sorted(weather.args) == ["body", "query"]
    assert json.loads(answer) == {"temperature": 7}
    assert sorted(request.query) == [("city", "Köln"), ("fixed", "1"), ("units", "c")]
    assert (request.json, request.headers["authorization"]) == ({"days": 3}, "Bearer abc")


@pytest.mark.parametrize(
    ("settings", "arguments", "required"),
    [
        ({"url": "http://x"}, ["query"], []),
        ({"url": "http://x", "method": "POST"}, ["body", "query"], []),
        ({"url": "http://x", "method": "POST", "body": "{}"}, ["query"], []),
        ({"method": "PATCH"}, ["body", "query", "url"], ["url"]),
    ],
)
def test_a_model_is_asked_only_for_what_is_open(
    node: Node, settings: dict[str, Any], arguments: list[str], required: list[str]
) -> None:
    made = node.tool(**settings, tool_description="Does it.")

    assert (sorted(made.args), made.description) == (arguments, "Does it.")
    assert made.args_schema["required"] == required


@pytest.mark.parametrize(
    "settings",
    [
        {"auth_type": "bearer", "auth_token": "x"},
        {"headers": {"X-Api-Key": "x"}},
        {"headers": '{"Cookie": "x"}'},
        {"url_params": {"api_key": "x"}},
    ],
)
def test_a_model_that_chooses_the_address_gets_no_credentials(node: Node, settings: dict[str, Any]) -> None:
    with pytest.raises(NodeError, match="must not be given credentials"):
        node.tool(**settings)


async def test_a_model_may_choose_the_address(web: WebServer, node: Node) -> None:
    url = web.on("/", Reply(body=b"hello", headers={"Content-Type": "text/plain"}))
    fetch = node.tool(headers={"Accept": "text/plain"})

    assert await fetch.ainvoke({"url": url}) == "hello"
    refused = await fetch.ainvoke({"url": "http://169.254.169.254/latest/meta-data/"})

    assert refused.startswith("url_not_allowed: http://169.254.169.254 is not allowed")


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ({}, "404 Not Found\nno such city"),
        ({"city": "x"}, "bad_argument: no argument 'city'; allowed: query, body"),
        ({"query": "{oops"}, "bad_json: 'query' is not valid JSON, line 1, column 2"),
        ({"query": [1]}, "bad_config: 'query' must be an object"),
        ({"body": "{oops"}, "bad_json: 'body' is not valid JSON, line 1, column 2"),
        ({"body": {"a": "\ud800"}}, "bad_argument: the arguments hold half a character"),
        ({"query": {"a": "\ud800"}}, "bad_argument: the arguments hold half a character"),
    ],
)
async def test_errors_are_told_to_the_model(
    web: WebServer, node: Node, given: dict[str, Any], answer: str
) -> None:
    url = web.on("/", Reply(404, b"no such city", {"Content-Type": "text/plain"}))

    told = await node.tool(url=url, method="POST").ainvoke(given)

    assert told.startswith(answer)


async def test_a_model_sees_no_bytes_and_no_endless_text(web: WebServer, node: Node) -> None:
    image = web.on("/image", Reply(body=b"\x89PNG", headers={"Content-Type": "image/png"}))
    long = web.on("/long", Reply(body=b"x" * 60_000, headers={"Content-Type": "text/plain"}))
    empty = web.on("/empty", Reply(204))

    told = [await node.tool(url=url).ainvoke({}) for url in (image, long, empty)]

    assert told == ["200 OK: 4 bytes of image/png", "x" * 50_000 + "…", "204 No Content"]


async def test_every_call_of_a_model_has_a_key_of_its_own_that_a_new_attempt_repeats(
    web: WebServer, node: Node
) -> None:
    url = web.on("/", Reply())

    async def three_calls() -> list[str]:
        made = node.tool(url=url, method="POST")
        for body in ({"a": 1}, {"a": 1}, {"a": 2}):
            await made.ainvoke({"body": body})
        return [request.headers["idempotency-key"] for request in web.requests[-3:]]

    first, again = await three_calls(), await three_calls()

    assert first == again and len(set(first)) == 3
    assert all(key.startswith("key-of-the-step-") for key in first)


@pytest.mark.parametrize(
    ("name", "tool_name"),
    [
        ("weather", "weather"),
        ("Wetter für Köln", "Wetter_f_r_K_ln"),
        ("天気", "http_request"),
        ("a" * 99, "a" * 64),
    ],
)
def test_the_tool_is_called_as_the_node(node: Node, name: str, tool_name: str) -> None:
    renamed = Node(replace(node.ctx, name=name))

    assert renamed.tool(url="http://x").name == tool_name


async def test_a_tool_call_of_a_model_is_answered_with_a_message(web: WebServer, node: Node) -> None:
    url = web.on("/", Reply(body=b"hello", headers={"Content-Type": "text/plain"}))
    call = {"name": "weather", "args": {}, "id": "call-1", "type": "tool_call"}

    message = await node.tool(url=url).ainvoke(call)

    assert (message.content, message.tool_call_id) == ("hello", "call-1")


@pytest.mark.parametrize(
    ("written", "params", "sent"),
    [
        ("k=r%E4kki", {"q": "1"}, "k=r%E4kki&q=1"),
        ("x", {"q": "1"}, "x&q=1"),
        ("x=&y", {"q": ["1", "2"]}, "x=&y&q=1&q=2"),
        ("a=b+c%20d&e=[1]", {"q": "ö &="}, "a=b+c%20d&e=[1]&q=%C3%B6%20%26%3D"),
        ("a=1&b=2&a=3", {"a": "4"}, "b=2&a=4"),
        ("%61=1&b", {"a": "4"}, "b&a=4"),
        ("a=%2F", {}, "a=%2F"),
        ("a=%2F", {"n": None}, "a=%2F"),
        ("", {"q": ""}, "q="),
    ],
)
async def test_what_stands_in_the_url_is_sent_as_it_is_written(
    web: WebServer, node: Node, written: str, params: dict[str, Any], sent: str
) -> None:
    web.on("/q", Reply())

    await node.run(url=f"{web.url('/q')}?{written}", url_params=params)

    assert web.requests[-1].target.partition("?")[2] == sent
