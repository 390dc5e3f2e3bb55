"""The addresses of webhooks: who calls needs no key of ours, and meets one 404 wherever he may not be."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any
from uuid import UUID

from litestar import HttpMethod, Request, Response, route
from litestar.params import FromPath
from litestar.response import Stream

from flowserver.answering import Reply
from flowserver.arrivals import Arrival, authenticating, flat, single
from flowserver.errors import NotFound, NotGenuine, TooLarge
from flowserver.events import Event
from flowserver.http.access import flowserver_of
from flowserver.http.problems import problem
from flowserver.http.streams import HEADERS, RETRY, position
from flowserver.receiving import Received
from flowserver.runs import Runs
from flowserver.webhooks import Called
from graphs.problems import InvalidWorkflow

METHODS = [HttpMethod(each) for each in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")]

SAFE = {
    # Whatever a workflow answers, a browser that opens it runs none of it in this server's name.
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_TOLD = frozenset({"text", "run.waiting", "run.succeeded", "run.failed", "run.cancelled"})
_REPLAYED = {"Idempotency-Replayed": "true"}


@route(
    ["/hooks/{path:path}", "/webhook/{path:path}", "/api/v1/webhook/{path:path}"],
    http_method=METHODS,
    request_max_body_size=None,
    tags=("Webhooks",),
    include_in_schema=False,
)
async def call(request: Request[None, None, Any], path: FromPath[str]) -> Response[Any]:
    """Start the published workflow whose webhook this is."""
    return await _answered(request, path, is_test=False)


@route(
    ["/hooks-test/{path:path}", "/webhook-test/{path:path}", "/api/v1/webhook-test/{path:path}"],
    http_method=METHODS,
    request_max_body_size=None,
    tags=("Webhooks",),
    include_in_schema=False,
)
async def call_test(request: Request[None, None, Any], path: FromPath[str]) -> Response[Any]:
    """Start the workflow as it is drawn now; whoever edits it sees what arrived."""
    return await _answered(request, path, is_test=True)


async def _answered(request: Request[None, None, Any], path: str, *, is_test: bool) -> Response[Any]:
    server = flowserver_of(request.app)
    client_ip = _client_ip(request, server.settings.trusted_proxies)
    path = path.strip("/")
    if request.method == "OPTIONS":
        return await _preflight(request, path, client_ip, is_test)
    try:
        called = await server.receiver.find(path, request.method, client_ip, is_test=is_test)
    except NotFound:
        return _nothing_here()
    cors = {"Access-Control-Allow-Origin": "*"} if called.hook.cors else {}
    try:
        return await _taken(request, called, client_ip, is_test, cors)
    except NotGenuine as exc:
        return problem(401, exc.code, str(exc), cors)
    except InvalidWorkflow:
        if not is_test:
            return problem(503, "invalid_workflow", "the workflow cannot run", {"Retry-After": "60", **cors})
        raise


async def _taken(
    request: Request[None, None, Any], called: Called, client_ip: str, is_test: bool, cors: Mapping[str, str]
) -> Response[Any]:
    server, began = flowserver_of(request.app), time.monotonic()
    body = await _body(request, called.hook.max_body_kb * 1024)
    headers = single(_fields(request), authenticating(called.hook))
    query = flat(request.scope["query_string"].decode("latin-1"))
    arrival = Arrival(request.method, request.url.path, query, headers, body, client_ip)
    received = await server.receiver.receive(called, arrival, is_test=is_test)
    if not isinstance(received, Received):
        return Response(received, status_code=200, headers=SAFE)
    more = {"X-Run-Id": str(received.started.id), **cors, **(_REPLAYED if received.started.is_replay else {})}
    if received.answer == "stream":
        after = position(headers.get("last-event-id"), None)
        frames = _frames(server.runs, received.started.id, after)
        shown = {**SAFE, **HEADERS, **more}
        return Stream(frames, status_code=200, media_type="text/event-stream", headers=shown)
    reply = await server.answers.of(received)
    await received.delivery.answered(server.pool, reply.status, round((time.monotonic() - began) * 1000))
    return _response(request, reply, more)


async def _preflight(
    request: Request[None, None, Any], path: str, client_ip: str, is_test: bool
) -> Response[Any]:
    """What a browser asks before a page of another site may call."""
    wanted = request.headers.get("access-control-request-method", "")
    try:
        called = await flowserver_of(request.app).receiver.find(path, wanted, client_ip, is_test=is_test)
    except NotFound:
        return _nothing_here()
    if not called.hook.cors:
        return _nothing_here()
    headers = {
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Allow-Methods": ", ".join(called.hook.methods),
        "Access-Control-Allow-Headers": request.headers.get("access-control-request-headers", "*"),
        "Access-Control-Max-Age": "600",
    }
    return Response(None, status_code=204, headers=headers)


def _nothing_here() -> Response[Any]:
    return problem(404, NotFound.code, "there is nothing here")


async def _body(request: Request[None, None, Any], most: int) -> bytes:
    """The body as it comes over the wire, and no more of it than may be.

    Raises:
        TooLarge: There is more.
    """
    if int(request.headers.get("content-length") or 0) > most:
        raise TooLarge(most, "the webhook's max_body_kb")
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > most:
            raise TooLarge(most, "the webhook's max_body_kb")
        pieces.append(piece)
    return b"".join(pieces)


def _fields(request: Request[None, None, Any]) -> list[tuple[str, str]]:
    """The header fields as they came, with names in lower case."""
    raw = request.scope["headers"]
    return [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in raw]


def _client_ip(request: Request[None, None, Any], proxies: Sequence[str]) -> str:
    """Whose request it is: of those that passed it on, the last that is no proxy of ours."""
    # A proxy may add a line of its own to one that the caller has sent.
    lines = [value for name, value in _fields(request) if name == "x-forwarded-for"]
    hops = [part.strip() for part in ",".join(lines).split(",") if part.strip()]
    address = request.client.host if request.client else ""
    while hops and _is_in(address, proxies):
        address = hops.pop()
    return address


def _is_in(address: str, networks: Sequence[str]) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    return any(found in ip_network(each, strict=False) for each in networks)


def _response(request: Request[None, None, Any], reply: Reply, more: Mapping[str, str]) -> Response[Any]:
    headers = {name.lower(): value for name, value in SAFE.items()}
    headers |= {name.lower(): value for name, value in {**reply.headers, **more}.items()}
    kind = headers.pop("content-type", "application/json")
    body = b"" if request.method == "HEAD" else reply.body
    return Response(body, status_code=reply.status, media_type=kind, headers=headers)


async def _frames(runs: Runs, run: UUID, after: int) -> AsyncGenerator[bytes]:
    """The text of a run as it is made, and its end: nothing of its inside, as anybody may be watching."""
    yield RETRY
    told: set[str] = set()
    async for events in runs.watch(run, after):
        shown: list[Event] = []
        for event in events:
            place = f"{event.data.get('step')} {event.data.get('within')}"
            if event.type == "text":
                told.add(place)
            if event.type in _TOLD:
                shown.append(_shown(event))
            elif event.type == "step.started" and event.data["attempt"] > 1 and (after or place in told):
                shown.append(_discarded(event))
        yield b"".join(event.frame for event in shown) or b": still here\n\n"


def _discarded(event: Event) -> Event:
    """Tell that a step begins again, and that its text so far is not part of the answer."""
    place: dict[str, Any] = {key: event.data[key] for key in ("step", "within") if key in event.data}
    return Event(event.run_id, event.seq, "text.discarded", event.at, place)


def _shown(event: Event) -> Event:
    if event.type == "run.failed":
        return Event(event.run_id, event.seq, event.type, event.at, {"error": {"code": "run_failed"}})
    return event
