"""Values that Postgres refuses, on every route, by path, query, header and body: never a 500."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest

from flowserver.app import create_app
from flowserver.settings import Settings
from tests.server import drawing, edge, node, serving

LONG = "".join(chr(0x4E00 + (number * 7919) % 20000) for number in range(4000))
"""Longer than an entry of an index can be, and nothing that can be packed."""

TEXTS = ("a%00b", "%FF", "%ED%A0%80", quote(LONG), "%C2%85")
NUMBERS = ("9" * 400, "-1", "1e400", "NaN", "-Infinity", "9223372036854775808")
TIMES = ("0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:59-14:00", "2026-13-45T00:00:00Z", "infinity")
IDS = ("00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", f"{{{uuid4()}}}")
IN_ADDRESSES = (*TEXTS, *NUMBERS, *TIMES, *IDS, "")
IN_HEADERS = (b"\xff\xfe", b"\xc3\xa4", b"9" * 400, b"-1", b'"9223372036854775808"', b"a" * 9000, b"")
IN_BODIES: tuple[Any, ...] = ("a\x00b", LONG, 10**400, 2**63, -1, None, ["\x00"], {"\x00": "\x00"})
BROKEN = (b'"\\ud800"', b'"\xed\xa0\x80"', b"1e400", b'"\x00"')
"""What stands in a body in place of a value, and is no JSON, or no text."""

AS_JSON = {"Content-Type": "application/json"}
FLOW = drawing(
    node("hook", "WebhookTrigger", path="hostile", http_method="POST"),
    node("end", "EndNode"),
    edge("hook", "end"),
)
KNOWN = {
    "url": "http://127.0.0.1:9/",
    "mode": "background",
    "config": {"template": "{{ input }}"},
    "data": {"api_key": "k"},
    "model": "m",
    "dimension": 3,
    "secret": "a-secret-that-is-long-enough-for-it",
    "version": None,
    "checkpoint": None,
    "trigger": None,
    "step": None,
}
"""What fields take, by their names."""
EVERYWHERE = ("Accept", "X-Request-Id", "Cookie", "traceparent", "Content-Type", "Host", "X-API-Key")
ENDLESS = ("/listen", "/events")


@pytest.fixture
async def client(settings: Settings, dsn: str) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(create_app(settings, dsn)) as client:
        yield client


async def things(client: httpx.AsyncClient) -> dict[str, str]:
    """The ids of one thing of each kind, by the first part of its path."""
    workflow = (await client.post("/workflows", json={"name": "w", "flow_data": FLOW})).json()["id"]
    await client.post(f"/workflows/{workflow}/publish", json={})
    root = client.base_url.copy_with(path="/hooks/hostile")
    made = {
        "workflows": workflow,
        "runs": (await client.post(f"/workflows/{workflow}/runs", json={"session_id": "s"})).json()["id"],
        "webhooks": (await client.get("/webhooks")).json()["items"][0]["id"],
        "schedules": (
            await client.post("/schedules", json={"workflow_id": workflow, "timing": {"every": 86400}})
        ).json()["id"],
        "credentials": (
            await client.post("/credentials", json={"name": "c", "data": {"api_key": "k"}})
        ).json()["id"],
        "collections": (
            await client.post("/collections", json={"name": "c", "model": "m", "dimension": 3})
        ).json()["id"],
        "files": (await client.post("/files", files={"file": ("a.txt", b"text", "text/plain")})).json()["id"],
        "callbacks": str(uuid4()),
        "nodes": "Template",
    }
    assert (await client.post(str(root), json={"a": 1})).status_code < 300
    return made


def operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def filled(path: str, ids: Mapping[str, str], instead: Mapping[str, str] | None = None) -> str:
    """A path with ids of things that are there, or with what stands `instead` of a parameter."""
    parts = path.split("/")
    values = {
        "{id}": ids.get(parts[3] if len(parts) > 3 else "", ""),
        "{type}": "Template",
        **(instead or {}),
    }
    return "/".join(values.get(part, str(uuid4()) if part[:1] == "{" else part) for part in parts)


def sample(schema: Mapping[str, Any], document: Mapping[str, Any], known: Mapping[str, Any]) -> Any:
    """A value that a schema takes; of fields whose name is `known`, what is known."""
    if "$ref" in schema:
        return sample(document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], document, known)
    if "enum" in schema:
        return schema["enum"][0]
    for either in ("oneOf", "anyOf"):
        if either in schema:
            return sample(schema[either][0], document, known)
    if schema.get("type") == "object":
        fields = schema.get("properties", {})
        return {name: known.get(name, sample(field, document, known)) for name, field in fields.items()}
    if schema.get("type") == "array":
        return [sample(schema.get("items", {}), document, known)]
    if schema.get("format") == "uuid":
        return str(uuid4())
    return {"integer": 1, "number": 1, "boolean": True}.get(schema.get("type", ""), "text")


def bodies(schema: Mapping[str, Any], document: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[Any]:
    """Bodies with "@@" in one place each, alone beside what is required: nothing else is refused first."""
    whole = sample(schema, document, known)
    while "$ref" in schema or "oneOf" in schema:
        schema = (
            document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
            if "$ref" in schema
            else schema["oneOf"][0]
        )
    required = {name: whole[name] for name in schema.get("required", ())}
    for at in places(whole, 6 if "name" in required else 2):
        yield put({**required, at[0]: whole[at[0]]}, at, "@@")


def places(value: Any, depth: int, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a body, down to some depth."""
    if at:
        yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        if len(at) < depth:
            yield from places(inner, depth, (*at, key))


def put(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    """A copy of a body with something else at a place."""
    if not at:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[at[0]] = put(value[at[0]], at[1:], new)
    return copy


class Failures:
    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._root = client.base_url.copy_with(path="/")
        self.found: list[str] = []

    async def send(self, method: str, path: str, **more: Any) -> None:
        """Send a request, and remember it if the server fails; of a stream only the status counts."""
        url = httpx.URL(str(self._root).rstrip("/") + path)
        headers = {"Accept": "application/json", **more.pop("headers", {})}
        try:
            async with (
                asyncio.timeout(20),
                self._client.stream(method, url, headers=headers, **more) as answer,
            ):
                if answer.status_code >= 500:
                    await answer.aread()
                    self.found.append(
                        f"{method} {path[:150]} {str(more)[:200]}: {answer.status_code} {answer.text[:200]}"
                    )
        except TimeoutError:
            self.found.append(f"{method} {path[:150]}: no answer")


async def document_of(client: httpx.AsyncClient) -> dict[str, Any]:
    url = client.base_url.copy_with(path="/schema/openapi.json")
    return (await client.get(str(url))).json()  # type: ignore[no-any-return]


async def test_no_path_or_query_makes_the_server_fail(client: httpx.AsyncClient) -> None:
    ids, failures = await things(client), Failures(client)

    for method, path, operation in operations(await document_of(client)):
        for parameter in operation.get("parameters", ()):
            name = parameter["name"]
            for value in IN_ADDRESSES:
                more = {"json": {}} if "requestBody" in operation else {}
                if parameter["in"] == "path":
                    await failures.send(method, filled(path, ids, {f"{{{name}}}": value}), **more)
                elif parameter["in"] == "query" and method == "GET":
                    await failures.send(method, f"{filled(path, ids)}?{name}={value}")

    assert not failures.found, "\n".join(failures.found)


async def test_no_header_makes_the_server_fail(client: httpx.AsyncClient) -> None:
    ids, failures = await things(client), Failures(client)

    for method, path, operation in operations(await document_of(client)):
        names = [each["name"] for each in operation.get("parameters", ()) if each["in"] == "header"]
        for name in (*names, *(EVERYWHERE if path == "/api/v1/runs" else ())):
            if method != "DELETE" and not path.endswith(ENDLESS):
                for value in IN_HEADERS:
                    await failures.send(method, filled(path, ids), headers={name: value}, content=b"{}")

    assert not failures.found, "\n".join(failures.found)


async def test_no_body_makes_the_server_fail(client: httpx.AsyncClient) -> None:
    ids, failures = await things(client), Failures(client)
    document = await document_of(client)
    known = {"workflow_id": ids["workflows"], "flow_data": FLOW, "timing": {"every": 86400}, **KNOWN}

    for method, path, operation in operations(document):
        schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
        if schema is None:
            continue
        for body in bodies(schema, document, known):
            for value in (*(json.dumps(each).encode() for each in IN_BODIES), *BROKEN):
                content = json.dumps(body).encode().replace(b'"@@"', value)
                await failures.send(method, filled(path, ids), content=content, headers=AS_JSON)

    assert not failures.found, "\n".join(failures.found)


async def test_no_delivery_of_a_webhook_makes_the_server_fail(client: httpx.AsyncClient) -> None:
    await things(client)
    failures = Failures(client)
    hostile = [value.encode("latin-1") for value in ("a\x00b", "\x00", "\xff", "\xed\xa0\x80")]
    forms = [b"a=%00", b"%00=1", b"a=%FF", b"a=%ED%A0%80", b"a" * 70_000 + b"=1", b"&" * 2000, b"a=1&" * 1500]
    parts = [
        b'--x\r\nContent-Disposition: form-data; name="%b"; filename="%b"\r\n\r\n%b\r\n--x--\r\n'
        % (each, each, each)
        for each in hostile
    ]
    kinds = {
        "application/json": [*(json.dumps(each).encode() for each in IN_BODIES), *BROKEN],
        "application/x-www-form-urlencoded": [*forms, *hostile],
        "multipart/form-data; boundary=x": [*parts, b"--x", b""],
        "multipart/form-data": parts,
        "text/plain; charset=utf-7": hostile,
        "text/plain; charset=idna": hostile,
        "text/plain; charset=undefined": hostile,
        "application/json; charset=rot13": hostile,
        "\xff/\xfe; charset=\xff": hostile,
    }

    for kind, contents in kinds.items():
        for content in contents:
            headers = {"Content-Type": kind.encode("latin-1")}
            await failures.send("POST", "/hooks/hostile", content=content, headers=headers)
    for value in IN_ADDRESSES:
        await failures.send("POST", f"/hooks/{value}")
        await failures.send("POST", f"/hooks-test/hostile/{value}")
        await failures.send("POST", f"/hooks/hostile?{value}=a", json={})
    for name in (
        b"X-Forwarded-For",
        b"Content-Encoding",
        b"Idempotency-Key",
        b"webhook-id",
        b"Last-Event-ID",
    ):
        for value in IN_HEADERS:
            await failures.send("POST", "/hooks/hostile", headers={name: value}, json={})

    assert not failures.found, "\n".join(failures.found)
