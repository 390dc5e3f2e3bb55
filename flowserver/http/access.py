"""Who may come in: every route but the public ones needs a key; body and query must be what it takes."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

from litestar import Litestar, Request
from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult

from flowserver.assembly import Flowserver
from flowserver.http.parameters import check_query

PUBLIC = (
    "^/health/",
    "^/metrics$",
    "^/schema",
    "^/hooks(-test)?/",
    "^/webhook(-test)?/",
    "^/api/v1/webhook(-test)?/",
)
"""Paths that need no key."""

FORM = "multipart/form-data"
"""What a route takes whose `opt` says so; every other takes JSON."""

Authenticated = Request[UUID, None, Any]
"""A request whose `user` is its organisation."""


class KeyMiddleware(AbstractAuthenticationMiddleware):
    """Takes the organisation from the API key; refuses before a body is read."""

    async def authenticate_request(
        self, connection: ASGIConnection[Any, Any, Any, Any]
    ) -> AuthenticationResult:
        accounts = flowserver_of(connection.app).accounts
        org = await accounts.authenticate(_key(connection))
        _only_what_is_taken(connection)
        check_query(connection)
        return AuthenticationResult(user=org, auth=None)


def flowserver_of(app: Litestar) -> Flowserver:
    return cast(Flowserver, app.state.flowserver)


def _key(connection: ASGIConnection[Any, Any, Any, Any]) -> str | None:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    return connection.headers.get("x-api-key")


def _only_what_is_taken(connection: ASGIConnection[Any, Any, Any, Any]) -> None:
    """Litestar reads any body as JSON; a page of another site may send `text/plain` in a user's name."""
    handler = connection.scope.get("route_handler")
    taken = handler.opt.get("body", "application/json") if handler is not None else "application/json"
    headers = connection.headers
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != taken:
        found = f"not {kind!r}" if kind else "and must say so"
        raise HTTPException(status_code=415, detail=f"the body must be {taken!r}, {found}")
