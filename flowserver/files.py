"""Uploaded files in Postgres, in pieces. Every call is within one organisation."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Protocol
from uuid import UUID

import msgspec

import sql
from flowserver.db import Pool, row_of
from flowserver.errors import NotFound
from flowserver.ids import new_id
from nodes.contract import NodeError
from nodes.file_kinds import MEDIA_TYPES
from nodes.files import StoredFile

_QUERIES = sql.queries("files")
_INSERT = _QUERIES["insert_file"]
_INSERT_PIECE = _QUERIES["insert_piece"]
_GET = _QUERIES["get_file"]
_GET_PIECE = _QUERIES["get_piece"]
_LIST = _QUERIES["list_files"]
_DELETE = _QUERIES["delete_file"]

PIECE = 1 << 20
"""Bytes of a piece."""
MOST_NAME = 255


class FileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An uploaded file, without what is in it."""

    id: UUID
    name: str
    media_type: str
    size: int
    sha256: str
    created_at: datetime


class Source(Protocol):
    """What a file is read from when it is kept."""

    async def read(self, size: int, /) -> bytes: ...


class FileStore:
    """Keeps uploaded files."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(
        self, org: UUID, name: str, kind: str, size: int, sha256: bytes, source: Source
    ) -> FileEntry:
        """Keep a file of `size` bytes, all at once or not at all; `kind` is one of `MEDIA_TYPES`."""
        id = new_id()
        values = {"id": id, "org": org, "name": shown_name(name), "media_type": MEDIA_TYPES[kind]}
        async with self._pool.connection() as conn, conn.transaction():
            row = row_of(
                await (await conn.execute(_INSERT, values | {"size": size, "sha256": sha256})).fetchone()
            )
            number = 0
            while piece := await source.read(PIECE):
                await conn.execute(_INSERT_PIECE, {"org": org, "id": id, "number": number, "bytes": piece})
                number += 1
        return msgspec.convert(row, FileEntry)

    async def get(self, org: UUID, id: UUID) -> FileEntry:
        """What is known of a file.

        Raises:
            NotFound: There is none of this id in `org`.
        """
        async with self._pool.connection() as conn:
            row = await (await conn.execute(_GET, {"org": org, "id": id})).fetchone()
        if row is None:
            raise NotFound("file", id)
        return msgspec.convert(row, FileEntry)

    async def pieces(self, org: UUID, id: UUID) -> AsyncIterator[bytes]:
        """What is in a file, piece by piece; no connection is held while one is sent."""
        number = 0
        while True:
            values = {"org": org, "id": id, "number": number}
            async with self._pool.connection() as conn:
                row = await (await conn.execute(_GET_PIECE, values)).fetchone()
            if row is None:
                return
            yield bytes(row["bytes"])
            number += 1

    async def page(self, org: UUID, *, before: UUID | None, limit: int) -> list[FileEntry]:
        """The newest files, or those older than `before`."""
        async with self._pool.connection() as conn:
            values = {"org": org, "before": before, "limit": limit}
            rows = await (await conn.execute(_LIST, values)).fetchall()
        return [msgspec.convert(row, FileEntry) for row in rows]

    async def delete(self, org: UUID, id: UUID) -> None:
        """Delete a file and all that is in it.

        Raises:
            NotFound: There is none of this id in `org`.
        """
        async with self._pool.connection() as conn:
            row = await (await conn.execute(_DELETE, {"org": org, "id": id})).fetchone()
        if row is None:
            raise NotFound("file", id)


class FilesOf:
    """The files of one organisation, as `nodes.files.Files` lets steps read them."""

    def __init__(self, store: FileStore, org: UUID) -> None:
        self._store = store
        self._org = org

    async def read(self, id: str, most_bytes: int) -> StoredFile:
        try:
            entry = await self._store.get(self._org, UUID(id))
        except (ValueError, NotFound):
            message = f"there is no uploaded file {id[:80]!r}"
            raise NodeError(message, code="unknown_file", is_final=True) from None
        if entry.size > most_bytes:
            message = f"the file {entry.name!r} has {entry.size:,} bytes; allowed are {most_bytes:,}"
            raise NodeError(message, code="too_large", is_final=True)
        data = b"".join([piece async for piece in self._store.pieces(self._org, entry.id)])
        if len(data) != entry.size:
            message = f"the file {entry.name!r} was deleted while it was read"
            raise NodeError(message, code="unknown_file", is_final=True)
        return StoredFile(str(entry.id), entry.name, entry.media_type, data)


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def shown_name(given: str) -> str:
    """The name that a file is shown under: the last part of what its sender calls it, made harmless."""
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", given))[-1]
    clean = _CONTROL.sub("", last).strip()
    if not clean.strip("."):
        return "unnamed"
    if len(clean) <= MOST_NAME:
        return clean
    stem, dot, suffix = clean.rpartition(".")
    return (
        stem[: MOST_NAME - len(suffix) - 1] + dot + suffix if dot and len(suffix) < 20 else clean[:MOST_NAME]
    )
