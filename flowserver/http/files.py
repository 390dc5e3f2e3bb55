"""`/files`: upload, list, read, delete."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from litestar import Controller, Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.exceptions import HTTPException
from litestar.openapi.spec import OpenAPIFormat, OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema
from litestar.params import FromPath, QueryParameter
from litestar.response import Stream

from flowserver.files import FileEntry, FileStore
from flowserver.http.access import FORM
from flowserver.http.bodies import MAX_PAGE, Page, cursor
from flowserver.http.uploads import received
from nodes.file_kinds import WrongKind, kind_of


@dataclass
class _UploadOperation(Operation):
    """What the handler reads for itself, told in the OpenAPI document."""

    def __post_init__(self) -> None:
        part = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY, description="The file.")
        form = Schema(type=OpenAPIType.OBJECT, properties={"file": part}, required=["file"])
        self.request_body = RequestBody(content={FORM: OpenAPIMediaType(schema=form)}, required=True)


class FileController(Controller):
    path = "/files"
    tags = ("Files",)

    @post(opt={"body": FORM}, operation_class=_UploadOperation)
    async def upload(
        self,
        request: Request[UUID, None, Any],
        org: NamedDependency[UUID],
        files: NamedDependency[FileStore],
        most_upload: NamedDependency[int],
    ) -> Response[FileEntry]:
        """Upload a file that workflows may read: text, Markdown, JSON, JSON lines, CSV, HTML, PDF or DOCX."""
        async with received(request, most_upload) as upload:
            try:
                kind = kind_of(upload.edges, upload.name, upload.media_type)
            except WrongKind as wrong:
                raise HTTPException(status_code=415, detail=f"this file cannot be used: {wrong}") from None
            entry = await files.add(org, upload.name, kind, upload.size, upload.sha256, upload.file)
        return Response(entry, status_code=201, headers={"Location": f"/api/v1/files/{entry.id}"})

    @get()
    async def page(
        self,
        org: NamedDependency[UUID],
        files: NamedDependency[FileStore],
        limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)] = 50,
        after: Annotated[str | None, QueryParameter(name="cursor")] = None,
    ) -> Page[FileEntry]:
        """Uploaded files, newest first."""
        items = await files.page(org, before=cursor(after), limit=limit + 1)
        return Page(items[:limit], str(items[limit - 1].id) if len(items) > limit else None)

    @get("/{id:uuid}")
    async def read(
        self, id: FromPath[UUID], org: NamedDependency[UUID], files: NamedDependency[FileStore]
    ) -> FileEntry:
        """What is known of a file."""
        return await files.get(org, id)

    @get("/{id:uuid}/content", media_type="application/octet-stream")
    async def content(
        self, id: FromPath[UUID], org: NamedDependency[UUID], files: NamedDependency[FileStore]
    ) -> Stream:
        """The file as it was uploaded; browsers save it and never show it."""
        entry = await files.get(org, id)
        headers = {
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(entry.name, safe='')}",
            "Content-Length": str(entry.size),
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "private, no-cache",
            "ETag": f'"{entry.sha256}"',
        }
        return Stream(files.pieces(org, id), media_type=entry.media_type, headers=headers)

    @delete("/{id:uuid}")
    async def remove(
        self, id: FromPath[UUID], org: NamedDependency[UUID], files: NamedDependency[FileStore]
    ) -> None:
        """Delete a file; what workflows have made of it stays."""
        await files.delete(org, id)
