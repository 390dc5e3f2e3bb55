"""What workflows remember for longer than a session: what a server offers to nodes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

import msgspec

from nodes.vectors import Embedder


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was remembered."""

    key: str
    text: str
    metadata: dict[str, Any]
    at: datetime
    """When it was written last."""
    score: float | None = None
    """How near it is to what was asked, from 0 to 1."""


class Memories(Protocol):
    """The memories of the organisation that a run belongs to.

    A `place` is a path such as `users/ada`; the empty one is that of the run's workflow. Whatever is refused
    is a `NodeError`.
    """

    async def write(
        self,
        place: str,
        text: str,
        *,
        key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        embedder: Embedder | None = None,
    ) -> str:
        """Remember `text` in the place of what has the same key; its key, which by itself follows from it."""
        ...

    async def read(
        self, place: str, *, query: str = "", limit: int = 5, embedder: Embedder | None = None
    ) -> list[Remembered]:
        """What is there and below: with an embedder what is nearest to `query`, else what is newest."""
        ...

    async def forget(self, place: str, key: str) -> None:
        """Remove what has this key, if anything has."""
        ...
