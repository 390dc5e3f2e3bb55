"""`/health`: whether the process lives, and whether it can work."""

from __future__ import annotations

from typing import Any

import msgspec
import psycopg
from litestar import Request, Response, get
from psycopg_pool import PoolTimeout, TooManyRequests

from flowserver.http.access import flowserver_of


class Health(msgspec.Struct, frozen=True):
    status: str


@get("/health/live", tags=("Health",))
async def live() -> Health:
    """The process answers."""
    return Health("live")


@get("/health/ready", tags=("Health",))
async def ready(request: Request[Any, Any, Any]) -> Response[Health]:
    """The database answers too, and workflows can connect to other servers."""
    server = flowserver_of(request.app)
    try:
        async with server.pool.connection(timeout=2) as conn:
            await conn.execute("SELECT 1")
    except (psycopg.Error, PoolTimeout, TooManyRequests):
        return _not_ready("database unavailable")
    for hosts, usage in server.http.usage().items():
        if usage.is_full:
            return _not_ready(
                f"all {usage.size} outgoing connections to {hosts} hosts are in use "
                "(FLOWSERVER_OUTBOUND_CONNECTIONS)"
            )
    return Response(Health("ready"))


def _not_ready(why: str) -> Response[Health]:
    return Response(Health(why), status_code=503, headers={"Retry-After": "2"})
