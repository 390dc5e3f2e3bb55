"""The door to a reader of files: bytes of strangers become texts, where they can do no harm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec


class Part(msgspec.Struct, frozen=True):
    """A text of a file, and what the file says about it."""

    text: str
    metadata: dict[str, Any]


class Reading(msgspec.Struct, frozen=True):
    """What a file holds."""

    kind: str
    """One of `nodes.file_kinds.MEDIA_TYPES`."""
    parts: list[Part]


class Reader(Protocol):
    """Reads files in a process of its own that has little memory and time, and no network."""

    async def read(
        self,
        data: bytes,
        *,
        name: str = "",
        media_type: str = "",
        remove: Sequence[str] = (),
        article: bool = False,
        by_page: bool = False,
    ) -> Reading:
        """The texts of a file.

        `remove` are CSS selectors of what is left out of an HTML page, `article` leaves out what is around
        its article, where it has one; `by_page` gives each page of a PDF on its own.

        Raises:
            NodeError: `unsupported_type`, `unreadable`, `encrypted`, `too_large` or `too_complex`.
        """
        ...
