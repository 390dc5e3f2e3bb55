"""The door to uploaded files: by id, and only those of the run's own organisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An uploaded file."""

    id: str
    name: str
    """As it was called where it came from; never a path of ours."""
    media_type: str
    data: bytes


class Files(Protocol):
    """The files that people of the organisation have uploaded."""

    async def read(self, id: str, most_bytes: int) -> StoredFile:
        """The file of this id.

        Raises:
            NodeError: `unknown_file`; `too_large` if it has more than `most_bytes`, of which none is read.
        """
        ...
