"""`/collections`: make, list, read, search, delete; and the documents in one."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Controller, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from flowserver.chunk_table import Document
from flowserver.collections import Collections
from flowserver.errors import Conflict, NotFound
from flowserver.http.bodies import (
    MAX_PAGE,
    CollectionDetails,
    DocumentDetails,
    MakeCollection,
    Page,
    SearchCollection,
    cursor,
)
from flowserver.vectors import OrgVectors
from nodes.vectors import Collection, Found, Query


class CollectionController(Controller):
    path = "/collections"
    tags = ("Collections",)

    @post()
    async def make(
        self,
        data: JSONBody[MakeCollection],
        org: NamedDependency[UUID],
        collections: NamedDependency[Collections],
    ) -> Response[Collection]:
        """Make an empty collection; its model, dimension, distance and language stay."""
        made, is_new = await collections.add(
            org,
            data.name,
            data.model,
            data.dimension,
            distance=data.distance,
            language=data.language,
            description=data.description,
        )
        if not is_new:
            raise Conflict(f"there is a collection {data.name!r} already: {made.id}")
        return Response(made, status_code=201, headers={"Location": f"/api/v1/collections/{made.id}"})

    @get()
    async def page(
        self,
        org: NamedDependency[UUID],
        collections: NamedDependency[Collections],
        name: Annotated[str | None, QueryParameter(description="Only the collection of this name.")] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)] = 50,
        after: Annotated[str | None, QueryParameter(name="cursor")] = None,
    ) -> Page[Collection]:
        """Collections, newest first."""
        if name is not None:
            found = await collections.find(org, name)
            return Page([found] if found else [], None)
        items = await collections.page(org, before=cursor(after), limit=limit + 1)
        return Page(items[:limit], str(items[limit - 1].id) if len(items) > limit else None)

    @get("/{id:uuid}")
    async def read(
        self,
        id: FromPath[UUID],
        org: NamedDependency[UUID],
        collections: NamedDependency[Collections],
        vectors: NamedDependency[OrgVectors],
    ) -> CollectionDetails:
        """A collection, and how much it holds."""
        found = await _collection(collections, org, id)
        known = msgspec.structs.asdict(found) | await vectors.counts(found.name)
        return CollectionDetails(**known)

    @delete("/{id:uuid}")
    async def drop(
        self, id: FromPath[UUID], org: NamedDependency[UUID], collections: NamedDependency[Collections]
    ) -> None:
        """Delete a collection with everything in it."""
        if not await collections.delete(org, id):
            raise NotFound("collection", id)

    @post("/{id:uuid}/search", status_code=200)
    async def search(
        self,
        id: FromPath[UUID],
        data: JSONBody[SearchCollection],
        org: NamedDependency[UUID],
        collections: NamedDependency[Collections],
        vectors: NamedDependency[OrgVectors],
    ) -> list[Found]:
        """Search by words with `query`, by a vector of the collection's model with `vector`, or by both."""
        found = await _collection(collections, org, id)
        mode = data.mode or ("keyword" if data.vector is None else "hybrid" if data.query else "vector")
        query = Query(
            data.query,
            data.vector,
            data.k,
            mode,
            data.filter,
            data.threshold,
            data.diverse,
        )
        return await vectors.search(found.name, query)

    @get("/{id:uuid}/documents")
    async def documents(
        self,
        id: FromPath[UUID],
        org: NamedDependency[UUID],
        collections: NamedDependency[Collections],
        vectors: NamedDependency[OrgVectors],
        limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)] = 50,
        after: Annotated[str | None, QueryParameter(name="cursor")] = None,
    ) -> Page[Document]:
        """The documents of a collection, by id."""
        found = await _collection(collections, org, id)
        items = await vectors.documents(found, after=cursor(after), limit=limit + 1)
        return Page(items[:limit], str(items[limit - 1].id) if len(items) > limit else None)

    @get("/{id:uuid}/documents/{document:uuid}")
    async def document(
        self,
        id: FromPath[UUID],
        document: FromPath[UUID],
        org: NamedDependency[UUID],
        collections: NamedDependency[Collections],
        vectors: NamedDependency[OrgVectors],
    ) -> DocumentDetails:
        """A document's chunks, the first thousand."""
        found = await _collection(collections, org, id)
        chunks = await vectors.chunks_of(found, document)
        if not chunks:
            raise NotFound("document", document)
        return DocumentDetails(document, chunks[0].document, chunks)

    @delete("/{id:uuid}/documents/{document:uuid}")
    async def delete_document(
        self,
        id: FromPath[UUID],
        document: FromPath[UUID],
        org: NamedDependency[UUID],
        collections: NamedDependency[Collections],
        vectors: NamedDependency[OrgVectors],
    ) -> None:
        """Delete a document with its chunks."""
        found = await _collection(collections, org, id)
        if not await vectors.remove_document(found, document):
            raise NotFound("document", document)


async def _collection(collections: Collections, org: UUID, id: UUID) -> Collection:
    found = await collections.get(org, id)
    if found is None:
        raise NotFound("collection", id)
    return found
