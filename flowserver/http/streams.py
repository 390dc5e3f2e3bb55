"""A run's events as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from uuid import UUID

from litestar.exceptions import ClientException
from litestar.response import Stream

from flowserver.errors import FlowserverError
from flowserver.events import Event
from flowserver.runs import Runs

HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no", "Connection": "keep-alive"}
RETRY = b"retry: 1000\n\n"
QUIET = b": still here\n\n"
"""A comment now and then keeps an idle connection open."""

PIECE = 64_000
"""Bytes that are made ready for a client before it has taken those before; a single event may be larger."""

_BIGGEST = 2**63 - 1
_leaving: set[asyncio.Task[None]] = set()


def event_stream(
    runs: Runs, org: UUID, run: UUID, after: int, headers: Mapping[str, str], *, cancels: bool = False
) -> Stream:
    """The events of `run` after number `after`; with `cancels` the run ends when the client leaves."""
    headers = {**HEADERS, **headers, "X-Run-Id": str(run)}
    return Stream(_frames(runs, org, run, after, cancels), media_type="text/event-stream", headers=headers)


async def _frames(runs: Runs, org: UUID, run: UUID, after: int, cancels: bool) -> AsyncGenerator[bytes]:
    is_done = False
    try:
        yield RETRY
        async for events in runs.watch(run, after):
            is_done = bool(events) and events[-1].is_last
            for piece in _pieces(events):
                yield piece
        is_done = True
    finally:
        if cancels and not is_done:  # nothing may be awaited here: the task is being cancelled
            task = asyncio.create_task(_cancel(runs, org, run))
            _leaving.add(task)
            task.add_done_callback(_leaving.discard)


def _pieces(events: Sequence[Event]) -> Iterator[bytes]:
    """What is ready, in few pieces, as sending costs more than a frame, but small ones: some do not read."""
    if not events:
        yield QUIET
        return
    frames: list[bytes] = []
    size = 0
    for event in events:
        frame = event.frame
        if frames and size + len(frame) > PIECE:
            yield b"".join(frames)
            frames, size = [], 0
        frames.append(frame)
        size += len(frame)
    yield b"".join(frames)


async def _cancel(runs: Runs, org: UUID, run: UUID) -> None:
    try:
        await runs.cancel(org, run)
    except FlowserverError:
        return  # it has ended in the meantime


def position(last_event_id: str | None, after: int | None) -> int:
    """The number of the last event a client has seen.

    Raises:
        ClientException: It is not a number that an event can have.
    """
    if after is not None or not last_event_id:
        seq, name = after or 0, "after"
    elif last_event_id.isdecimal() and last_event_id.isascii() and len(last_event_id) < 20:
        seq, name = int(last_event_id), "Last-Event-ID"
    else:
        raise ClientException("'Last-Event-ID' must be the number of an event, or left out")
    if not 0 <= seq <= _BIGGEST:
        raise ClientException(f"'{name}' must be the number of an event, or left out")
    return seq
