"""`/metrics`: what this process counts and measures, for Prometheus."""

from __future__ import annotations

import asyncio
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
    # 2,000 samples take tens of milliseconds, in which nobody else would be answered.
    text = await asyncio.to_thread(generate_latest, flowserver.metrics.registry)
    return Response(text, media_type=TEXT)
