"""What is new in the runs that this process executes, for watchers in it: no database round trip."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

from flowserver.events import Event

TAIL = 256
"""How many committed events of a run are kept; a watcher that is further behind reads the journal."""


class Feed:
    """The last committed events of one run, and a signal that there are more."""

    def __init__(self, tell: Callable[[], None] = lambda: None) -> None:
        """`tell` lets other processes know that there are more."""
        self._tail: deque[Event] = deque(maxlen=TAIL)
        self._changed = asyncio.Event()
        self._tell = tell
        self.users = 0
        self.is_watched = False
        """Whether anybody has begun to watch for the sake of partial output."""
        self.is_live = False
        """Whether the run is executed here, so that nothing can happen that this feed does not tell."""

    def remember(self, event: Event) -> None:
        """Keep an event that was committed before anybody could watch."""
        self._tail.append(event)

    def publish(self, events: Sequence[Event]) -> None:
        self._tail.extend(events)
        self.wake()
        self._tell()

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

    def __init__(self, tell: Callable[[UUID], None] = lambda run: None) -> None:
        """`tell` lets other processes know that a run has new events."""
        self._feeds: dict[UUID, Feed] = {}
        self._tell = tell
        self.closed = False

    @contextmanager
    def join(self, run: UUID) -> Iterator[Feed]:
        """The feed of `run`, for as long as somebody uses it."""
        feed = self._feeds.setdefault(run, Feed(lambda: self._tell(run)))
        feed.users += 1
        try:
            yield feed
        finally:
            feed.users -= 1
            if not feed.users:
                self._feeds.pop(run, None)

    def wake(self, run: UUID) -> None:
        """Let the watchers of `run` look: another process has written events of it."""
        if (feed := self._feeds.get(run)) is not None:
            feed.wake()

    def wake_all(self) -> None:
        """Let every watcher look."""
        for feed in self._feeds.values():
            feed.wake()

    def changed(self, run: UUID) -> None:
        """Let every watcher of `run` look, here and elsewhere: events of it were written without a feed."""
        self.wake(run)
        self._tell(run)

    def close(self) -> None:
        """Let every watcher leave: the process stops."""
        self.closed = True
        self.wake_all()
