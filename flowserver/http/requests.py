"""Around every HTTP request: its id, its caller's trace, and how long its answer took to begin."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from uuid import uuid4

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from flowserver.logs import request_id
from flowserver.metrics import Metrics
from flowserver.observation import caller

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
NO_ROUTE = "none"
"""The route of a request that fits none."""

_SANE = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_TRACE = (b"traceparent", b"tracestate")


class Requests:
    """An application with this around it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        id = _id(headers.get(b"x-request-id", b"").decode("latin-1"))
        # Each request has a task of its own, and what it starts inherits both.
        request_id.set(id)
        caller.set({name.decode(): headers[name].decode("latin-1") for name in _TRACE if name in headers})
        began, is_stream = time.monotonic(), False

        async def told(message: Message) -> None:
            nonlocal is_stream
            if message["type"] == "http.response.start":
                is_stream = _is_stream(message["headers"])
                self._metrics.event_streams.inc(is_stream)
                self._answered(scope, message["status"], time.monotonic() - began)
                message["headers"] = [*message["headers"], (b"x-request-id", id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, told)
        finally:
            self._metrics.event_streams.dec(is_stream)

    def _answered(self, scope: HTTPScope, status: int, seconds: float) -> None:
        route = scope.get("path_template") or NO_ROUTE
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._metrics.http_request.labels(route, method, status).observe(seconds)


def _id(given: str) -> str:
    """The caller's own id of the request, if it can stand in a log and a header; else a new one."""
    return given if _SANE.fullmatch(given) else uuid4().hex


def _is_stream(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(
        name.lower() == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers
    )
