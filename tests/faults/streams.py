"""Clients of event streams that leave and come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import cycle
from typing import Any

import httpx

from tests.faults.checks import LAST
from tests.server import events_of


async def each(client: httpx.AsyncClient, run: str, after: int) -> AsyncIterator[dict[str, Any]]:
    """The events of a run as they come, from an open stream."""
    headers = {"Last-Event-ID": str(after), "Accept": "text/event-stream"}
    async with client.stream("GET", f"/runs/{run}/events", headers=headers) as response:
        if response.status_code != 200:
            return
        text = ""
        async for piece in response.aiter_text():
            text += piece
            whole, _, text = text.rpartition("\n\n")
            for event in events_of(whole):
                yield event


async def wandering(
    clients: Sequence[httpx.AsyncClient], run: str, after: int = 0, most: int = 1
) -> list[dict[str, Any]]:
    """All events of a run, from streams of one server after another; each is left after `most` events."""
    found: list[dict[str, Any]] = []
    for client in cycle(clients):
        seen = 0
        stream = each(client, run, found[-1]["seq"] if found else after)
        try:
            async for event in stream:
                found.append(event)
                seen += 1
                if event["event"] in LAST:
                    return found
                if seen == most:
                    break
        except httpx.TransportError:
            await asyncio.sleep(0.05)  # it is dead, or stops; the next one
        finally:
            await stream.aclose()  # type: ignore[attr-defined]  # an async generator has it
        if not seen:
            await asyncio.sleep(0.05)
    raise AssertionError("unreachable")
