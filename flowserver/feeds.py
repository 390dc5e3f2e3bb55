"""What is new in the runs that this process executes, for watchers in it: no database round trip."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

from flowserver.events import Event

TAIL = 256
"""How many committed events of a run are kept; a watcher that is further behind reads the journal."""


class Feed:
    """The last committed events of one run, and a signal that there are more."""

    def __init__(self) -> None:
        self._tail: deque[Event] = deque(maxlen=TAIL)
        self._changed = asyncio.Event()
        self.users = 0
        self.is_live = False
        """Whether the run is executed here, so that nothing can happen that this feed does not tell."""

    def publish(self, events: Sequence[Event]) -> None:
        self._tail.extend(events)
        self.wake()

    def wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def after(self, seq: int) -> list[Event] | None:
        """The events after `seq`; `None` when they are no longer, or not yet, all here."""
        if not self._tail or self._tail[0].seq > seq + 1:
            return None
        return [event for event in self._tail if event.seq > seq]

    def signal(self) -> asyncio.Event:
        """Set at the next change; take it before looking."""
        return self._changed


class Feeds:
    """The feeds of all runs that are executed or watched here."""

    def __init__(self) -> None:
        self._feeds: dict[UUID, Feed] = {}
        self.closed = False

    @contextmanager
    def join(self, run: UUID) -> Iterator[Feed]:
        """The feed of `run`, for as long as somebody uses it."""
        feed = self._feeds.setdefault(run, Feed())
        feed.users += 1
        try:
            yield feed
        finally:
            feed.users -= 1
            if not feed.users:
                self._feeds.pop(run, None)

    def close(self) -> None:
        """Let every watcher leave: the process stops."""
        self.closed = True
        for feed in self._feeds.values():
            feed.wake()
