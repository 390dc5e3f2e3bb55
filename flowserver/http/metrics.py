"""`/metrics`: what this process counts and measures, for Prometheus."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get
from prometheus_client import generate_latest

from flowserver.http.access import flowserver_of

TEXT = "text/plain; version=0.0.4"
"""The text format, to which Litestar adds the charset."""


@get("/metrics", tags=("Health",), media_type=TEXT)
async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Metrics of this process, and of all runs as far as the database answers."""
    flowserver = flowserver_of(request.app)
    await flowserver.census.refresh()
    return Response(generate_latest(flowserver.metrics.registry), media_type=TEXT)
