"""A run as clients see it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, TypeAlias
from uuid import UUID

import msgspec

from flowserver.events import FINAL
from flowserver.questions import body

Status: TypeAlias = Literal["queued", "running", "waiting", "succeeded", "failed", "cancelled"]


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """A run as clients see it."""

    id: UUID
    workflow_id: UUID | None
    version: str
    status: Status
    trigger: dict[str, Any]
    input: Any
    output: Any
    error: dict[str, Any] | None
    questions: tuple[dict[str, Any], ...]
    """The open ones: `{id, step, payload, form?, actions?, deadline?}`."""
    session_id: str | None
    attempt: int
    had_errors: bool
    usage: dict[str, int] | None
    forked_from: dict[str, Any] | None
    """What it took over: `{run, checkpoint?, step?}`."""
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    last_seq: int
    """The number of its newest event."""
    events_forgotten: bool
    """Whether its events have been kept for as long as they were to be."""

    @property
    def is_over(self) -> bool:
        return self.status in FINAL


def view(row: Mapping[str, Any]) -> RunView:
    """A row of `get_run` or `list_runs`."""
    return msgspec.convert({**row, "questions": [body(each) for each in row["questions"]]}, RunView)
