"""The events of a run: one numbered JSON object each, the same in the journal, in lists and on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

FINAL = {"succeeded": "run.succeeded", "failed": "run.failed", "cancelled": "run.cancelled"}
"""Final status -> the event that tells it, last and once."""

_ENDS = frozenset(FINAL.values())

encode = msgspec.json.Encoder().encode


class Event(msgspec.Struct, frozen=True):
    """One entry of a run's journal."""

    run_id: UUID
    seq: int
    type: str
    """`run.created`, `step.finished` …"""
    at: datetime
    data: dict[str, Any]

    @property
    def is_last(self) -> bool:
        return self.type in _ENDS

    @property
    def asks(self) -> bool:
        """Whether the run now waits for somebody's answer, and does not merely pause."""
        return self.type == "run.waiting" and any(not each.get("pause") for each in self.data["questions"])

    @property
    def body(self) -> dict[str, Any]:
        """The event as clients see it; `event` names it, as a step's `type` is its node type."""
        return {"event": self.type, "run_id": self.run_id, "seq": self.seq, "at": self.at, **self.data}

    @property
    def frame(self) -> bytes:
        """The event as a server-sent event; JSON has no raw line breaks, so no value can end the frame."""
        return b"id: %d\nevent: %b\ndata: %b\n\n" % (self.seq, self.type.encode(), encode(self.body))
