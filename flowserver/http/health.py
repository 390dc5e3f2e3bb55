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
    """The database answers too."""
    try:
        async with flowserver_of(request.app).pool.connection(timeout=2) as conn:
            await conn.execute("SELECT 1")
    except (psycopg.Error, PoolTimeout, TooManyRequests):
        return Response(Health("database unavailable"), status_code=503, headers={"Retry-After": "2"})
    return Response(Health("ready"))
