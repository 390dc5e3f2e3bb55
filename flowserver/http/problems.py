"""The one table from our refusals to HTTP: `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
import psycopg
import psycopg.errors
from litestar import Request, Response
from litestar.exceptions import HTTPException, MethodNotAllowedException, ValidationException
from psycopg_pool import PoolTimeout, TooManyRequests

from flowserver.errors import (
    BadRequest,
    Conflict,
    FlowserverError,
    Forgotten,
    NoEncryptionKey,
    NotAuthenticated,
    NotFound,
    NotGenuine,
    RevisionConflict,
    RunForgotten,
    SecretUnreadable,
    TooLarge,
    TooMany,
)
from flowserver.http.expected import expected
from flowserver.settings import Settings
from graphs.problems import InvalidWorkflow
from nodes.contract import NodeError, ServerTrouble

TYPE = "urn:flowserver:problem:"

_STATUS: Mapping[type[FlowserverError], int] = {
    NotFound: 404,
    NotAuthenticated: 401,
    BadRequest: 422,
    NotGenuine: 401,
    TooLarge: 413,
    TooMany: 429,
    RevisionConflict: 412,
    Conflict: 409,
    Forgotten: 410,
    RunForgotten: 409,
    NoEncryptionKey: 503,
    SecretUnreadable: 409,
}

logger = logging.getLogger(__name__)

Handler = Callable[[Request[Any, Any, Any], Any], Response[Any]]


def problem(
    status: int, code: str, detail: str, headers: Mapping[str, str] | None = None, **more: Any
) -> Response[dict[str, Any]]:
    """An answer that says what is wrong; `code` ends its stable `type`."""
    body = {"type": TYPE + code, "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return Response(body | more, status_code=status, media_type="application/problem+json", headers=headers)


def _refused(request: Request[Any, Any, Any], exc: FlowserverError) -> Response[Any]:
    status = next(_STATUS[kind] for kind in type(exc).__mro__ if kind in _STATUS)
    headers = {"WWW-Authenticate": "Bearer"} if isinstance(exc, NotAuthenticated) else None
    if isinstance(exc, TooMany):
        headers = {"Retry-After": str(math.ceil(exc.seconds))}
    return problem(status, exc.code, str(exc), headers)


def _invalid_workflow(request: Request[Any, Any, Any], exc: InvalidWorkflow) -> Response[Any]:
    errors = sum(each.severity == "error" for each in exc.problems)
    detail = f"the workflow has {errors} error{'s' if errors != 1 else ''}"
    return problem(422, "invalid_workflow", detail, problems=msgspec.to_builtins(exc.problems))


def _http(request: Request[Any, Any, Any], exc: HTTPException) -> Response[Any]:
    code = HTTPStatus(exc.status_code).phrase.lower().replace(" ", "_").replace("-", "_")
    if isinstance(exc.__cause__, RecursionError):
        return _too_deep(request, exc.__cause__)
    if isinstance(exc, ValidationException):
        wrong = [_place(request, each) for each in exc.extra] if isinstance(exc.extra, list) else []
        return problem(400, "bad_request", "; ".join(wrong) or exc.detail)
    headers = exc.headers or {}
    detail = exc.detail
    if isinstance(exc, MethodNotAllowedException):
        detail = f"{request.method} is not allowed here; allowed: {_allowed(headers)}"
    elif exc.status_code == 413 and detail == HTTPStatus(413).phrase:
        detail = _most_of_a_body(request)
    return problem(exc.status_code, code, detail, headers)


def _allowed(headers: Mapping[str, str]) -> str:
    listed = next((value for name, value in headers.items() if name.lower() == "allow"), "")
    return ", ".join(sorted({each.strip() for each in listed.split(",")} - {"", "OPTIONS"}))


def _place(request: Request[Any, Any, Any], mistake: Any) -> str:
    if not isinstance(mistake, dict):
        return str(mistake)
    where, message = (
        mistake.get("key") or mistake.get("source") or "request",
        mistake.get("message", "not valid"),
    )
    handler = request.scope.get("route_handler")
    return f"{where}: {message}{expected(handler.fn, where, message) if handler is not None else ''}"


def _most_of_a_body(request: Request[Any, Any, Any]) -> str:
    """What a body that is too large is told; a form with a file has another limit than other bodies."""
    settings: Settings = request.app.state.flowserver.settings
    if request.content_type[0] == "multipart/form-data":
        return too_large_upload(settings.max_upload_mb)
    return f"the body may have {settings.max_body_bytes:,} bytes (FLOWSERVER_MAX_BODY_BYTES)"


def too_large_upload(megabytes: float) -> str:
    return f"a file may have {megabytes * 1_000_000:,.0f} bytes (FLOWSERVER_MAX_UPLOAD_MB)"


def _too_deep(request: Request[Any, Any, Any], exc: RecursionError) -> Response[Any]:
    return problem(400, "bad_request", "the JSON is nested too deeply")


def _bad_text(request: Request[Any, Any, Any], exc: UnicodeError) -> Response[Any]:
    return problem(400, "bad_request", "the body is not valid UTF-8")


def _not_encodable(request: Request[Any, Any, Any], exc: UnicodeError) -> Response[Any]:
    return problem(400, "bad_request", "a text of the request holds half of a surrogate pair")


def _not_storable(request: Request[Any, Any, Any], exc: psycopg.Error) -> Response[Any]:
    """Postgres refuses a value; what is known to be refused is refused before, by its name."""
    logger.warning("%s %s: Postgres refuses a value: %s", request.method, request.url.path, exc, exc_info=exc)
    detail = "a value of the request cannot be stored: it is too long, out of range, or holds U+0000"
    return problem(422, "bad_request", detail)


_OF_NODES = {"unavailable": 503, "no_collection": 404}


def _node_failed(request: Request[Any, Any, Any], exc: NodeError) -> Response[Any]:
    """What steps are refused by is refused to clients that ask for the same."""
    return problem(_OF_NODES.get(exc.code, 422), exc.code, exc.message)


def _no_database(request: Request[Any, Any, Any], exc: Exception) -> Response[Any]:
    logger.warning("%s %s: database: %s", request.method, request.url.path, type(exc).__name__)
    return problem(503, "unavailable", "the database cannot be reached now", {"Retry-After": "2"})


def _failed(request: Request[Any, Any, Any], exc: Exception) -> Response[Any]:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=exc)
    return problem(500, "internal", "the server failed to answer; its log says why")


HANDLERS: Mapping[int | type[Exception], Handler] = {
    FlowserverError: _refused,
    InvalidWorkflow: _invalid_workflow,
    HTTPException: _http,
    NodeError: _node_failed,
    RecursionError: _too_deep,
    UnicodeDecodeError: _bad_text,
    UnicodeEncodeError: _not_encodable,
    PoolTimeout: _no_database,
    TooManyRequests: _no_database,
    psycopg.OperationalError: _no_database,
    ServerTrouble: _no_database,
    psycopg.DataError: _not_storable,
    psycopg.errors.ProgramLimitExceeded: _not_storable,
    Exception: _failed,
}
