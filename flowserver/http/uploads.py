"""A file that a request brings as `multipart/form-data`, received piece by piece into a temporary file."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from litestar import Request
from litestar.datastructures import UploadFile
from litestar.exceptions import HTTPException
from multipart import (  # type: ignore[import-untyped]
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
)

from flowserver.errors import BadRequest
from flowserver.http.problems import too_large_upload

MOST_PARTS = 20
_MOST_HEADERS = 8
_MOST_HEADER_BYTES = 4096
_EDGE = 64 * 1024


@dataclass
class Upload:
    """A received file."""

    file: UploadFile
    name: str
    media_type: str
    size: int = 0
    head: bytes = b""
    tail: bytes = b""
    _digest: Any = field(default_factory=hashlib.sha256)

    @property
    def sha256(self) -> bytes:
        digest: bytes = self._digest.digest()
        return digest

    @property
    def edges(self) -> bytes:
        """Its beginning and its end: enough to see of which kind it is."""
        return self.head + self.tail

    async def write(self, piece: bytes) -> None:
        if len(self.head) < _EDGE:
            self.head += piece[: _EDGE - len(self.head)]
        self.tail = (self.tail + piece)[-_EDGE:]
        self.size += len(piece)
        self._digest.update(piece)
        await self.file.write(piece)


@asynccontextmanager
async def received(request: Request[UUID, None, Any], most_bytes: int) -> AsyncIterator[Upload]:
    """The one file of `request`, ready to be read from its beginning; it is gone afterwards.

    Raises:
        BadRequest: There is none, or more than one, or what arrives is no form.
        HTTPException: 413, as soon as more than `most_bytes` have arrived.
    """
    receiver = _Receiver(most_bytes)
    try:
        try:
            await receiver.receive(request)
        except ParserLimitReached:
            raise BadRequest(f"the form has more than {MOST_PARTS} parts, or too long headers") from None
        except MultipartError:
            raise BadRequest("the body is not valid 'multipart/form-data'") from None
        upload = receiver.upload
        if upload is None or not upload.size:
            what = "is empty" if upload else "is missing"
            raise BadRequest(f"the file {what}; send it as the part 'file' of a form")
        await upload.file.seek(0)
        yield upload
    finally:
        if receiver.upload is not None:
            await receiver.upload.file.close()


class _Receiver:
    def __init__(self, most_bytes: int) -> None:
        self.upload: Upload | None = None
        self._most_bytes = most_bytes
        self._in_file = False
        self._other = 0

    async def receive(self, request: Request[UUID, None, Any]) -> None:
        boundary = request.content_type[1].get("boundary", "")
        if not boundary:
            raise BadRequest("the Content-Type names no boundary of the form's parts")
        with PushMultipartParser(
            boundary,
            max_header_count=_MOST_HEADERS,
            max_header_size=_MOST_HEADER_BYTES,
            max_segment_count=MOST_PARTS,
            strict=True,
        ) as parser:
            async for chunk in request.stream():
                if parser.closed:
                    break
                for event in parser.parse(chunk):
                    await self._take(event)

    async def _take(self, event: Any) -> None:
        if isinstance(event, MultipartSegment):
            self._in_file = event.filename is not None
            if self._in_file:
                if self.upload is not None:
                    raise BadRequest("there are two files; send one per request")
                media_type = event.content_type or ""
                spool = UploadFile(media_type, event.filename)
                self.upload = Upload(spool, event.filename, media_type)
        elif not event:
            self._in_file = False
        elif self._in_file and self.upload is not None:
            if self.upload.size + len(event) > self._most_bytes:
                detail = too_large_upload(self._most_bytes / 1_000_000)
                raise HTTPException(status_code=413, detail=detail)
            await self.upload.write(bytes(event))
        else:
            self._other += len(event)
            if self._other > _EDGE:
                raise BadRequest("the form has too much beside its file")
