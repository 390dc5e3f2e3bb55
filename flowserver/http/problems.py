"""The one table from our refusals to HTTP: `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
import psycopg
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
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
        wrong = [_place(each) for each in exc.extra] if isinstance(exc.extra, list) else []
        detail = "; ".join(wrong) or exc.detail
        return problem(400, "bad_request", detail)
    return problem(exc.status_code, code, exc.detail, exc.headers)


def _place(mistake: Any) -> str:
    if not isinstance(mistake, dict):
        return str(mistake)
    where = mistake.get("key") or mistake.get("source") or "request"
    return f"{where}: {mistake.get('message', 'not valid')}"


def _too_deep(request: Request[Any, Any, Any], exc: RecursionError) -> Response[Any]:
    return problem(400, "bad_request", "the JSON is nested too deeply")


def _bad_text(request: Request[Any, Any, Any], exc: UnicodeError) -> Response[Any]:
    return problem(400, "bad_request", "the body is not valid UTF-8")


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
    PoolTimeout: _no_database,
    TooManyRequests: _no_database,
    psycopg.OperationalError: _no_database,
    ServerTrouble: _no_database,
    Exception: _failed,
}
