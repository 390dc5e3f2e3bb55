"""What nodes may do with the collections of their run's organisation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flowserver.chunk_table import ChunkTable, Document, Row
from flowserver.collections import Collections, NoCollection
from flowserver.db import Pool
from flowserver.ranking import different, fused
from nodes.contract import NodeError
from nodes.filters import json_path
from nodes.vectors import MOST_FOUND, Chunk, Collection, Distance, Embedder, Found, Query, Stored

if TYPE_CHECKING:
    from flowserver.langchain_store import CollectionStore

_MOST_CHARACTERS = 400_000
"""Of the texts in one request for vectors: OpenAI takes 300,000 tokens."""
_MOST_ROWS = 100
"""In one statement: each has to find its place in the index, and no connection is held for long."""
_MOST_CANDIDATES = 100
"""Of which a choice of different ones is made: each is compared with each."""


class OrgVectors:
    """Fulfils `nodes.vectors.Vectors` for one organisation."""

    def __init__(self, pool: Pool, org: UUID) -> None:
        self._pool = pool
        self._org = org
        self._collections = Collections(pool)

    async def find(self, name: str) -> Collection | None:
        return await self._collections.find(self._org, name)

    async def names(self) -> list[str]:
        return [each.name for each in await self._collections.page(self._org, before=None, limit=20)]

    async def store(
        self,
        name: str,
        chunks: Sequence[Chunk],
        embedder: Embedder,
        *,
        distance: Distance = "cosine",
        language: str = "english",
        replace: bool = True,
    ) -> Stored:
        collection = await self.find(name)
        made: dict[str, list[float]] = {}
        blank = sum(not chunk.content.strip() for chunk in chunks)
        if collection is None:
            first = next((chunk for chunk in chunks if chunk.content.strip()), None)
            if first is None:
                return Stored(None, blank=blank)
            [vector] = await _vectors([first.content], embedder)
            made[first.content] = vector
            collection = await self._made_for(name, vector, embedder, distance, language)
        _same(collection, embedder, distance)
        table = ChunkTable(self._pool, collection)
        every = [table.row_of(chunk) for chunk in chunks]
        rows = {row.id: row for row in every if row.content.strip()}
        stamp = await table.next_stamp() if replace else 0
        added, changed = await _written(table, list(rows.values()), embedder, made, stamp)
        removed = 0
        if replace:
            documents = {each.document for each in chunks if each.document is not None}
            removed = await table.remove_older(sorted(documents), stamp)
        await self._collections.touch(self._org, collection.id)
        ids = tuple(row.id for row in every)
        return Stored(collection, added, changed, len(rows) - added - changed, blank, removed, ids)

    async def _made_for(
        self, name: str, vector: Sequence[float], embedder: Embedder, distance: Distance, language: str
    ) -> Collection:
        """A collection for vectors such as this first one: while there is none, nothing is fixed in vain."""
        if embedder.dimension not in (None, len(vector)):
            message = f"vectors of {embedder.model!r} have {len(vector)} dimensions, not {embedder.dimension}"
            raise NodeError(message, code="bad_vector", is_final=True)
        made, _ = await self._collections.add(
            self._org, name, embedder.model, len(vector), distance=distance, language=language
        )
        return made

    async def search(self, name: str, query: Query) -> list[Found]:
        where = json_path(query.filter)
        table = ChunkTable(self._pool, await self._existing(name))
        if not 1 <= query.k <= MOST_FOUND:
            message = f"a search gives 1 to {MOST_FOUND} chunks, not {query.k}"
            raise NodeError(message, code="bad_request", is_final=True)
        if not query.diverse:
            return await _found(table, query, query.k, where)
        most = max(query.k, min(query.candidates or 4 * query.k, _MOST_CANDIDATES))
        candidates = await _found(table, query, most, where)
        alike = await table.likeness([each.id for each in candidates[:_MOST_CANDIDATES]])
        return different(candidates, alike, query.k, query.balance)

    async def remove(
        self,
        name: str,
        *,
        documents: Sequence[str] = (),
        ids: Sequence[str] = (),
        filter: Mapping[str, Any] | None = None,
    ) -> int:
        collection = await self._existing(name)
        table = ChunkTable(self._pool, collection)
        removed = 0
        if documents:
            removed += await table.remove_documents(documents)
        if ids:
            removed += await table.remove(ids)
        if filter:
            removed += await table.remove_where(filter)
        await self._collections.touch(self._org, collection.id)
        return removed

    async def rename(self, name: str, to: str) -> Collection:
        renamed = await self._collections.rename(self._org, name, to)
        if renamed is None:
            raise NoCollection(f"there is no collection {name!r}")
        return renamed

    async def drop(self, name: str) -> bool:
        found = await self.find(name)
        return found is not None and await self._collections.delete(self._org, found.id)

    async def counts(self, name: str) -> dict[str, int]:
        return await ChunkTable(self._pool, await self._existing(name)).counts()

    async def get(self, name: str, ids: Sequence[str]) -> list[Found]:
        """Chunks by their ids; of a collection that is not there, none."""
        found = await self.find(name)
        return await ChunkTable(self._pool, found).get(ids) if found else []

    async def empty(self, name: str) -> None:
        """Remove every chunk; the collection stays."""
        if found := await self.find(name):
            await ChunkTable(self._pool, found).remove_all()

    async def documents(self, collection: Collection, *, after: UUID | None, limit: int) -> list[Document]:
        """What its chunks are parts of, by id."""
        return await ChunkTable(self._pool, collection).documents(after=after, limit=limit)

    async def chunks_of(self, collection: Collection, document: UUID) -> list[Found]:
        """The chunks of a document, the first thousand."""
        return await ChunkTable(self._pool, collection).of_document(document, MOST_FOUND)

    async def remove_document(self, collection: Collection, document: UUID) -> int:
        """Remove a document; how many chunks it had."""
        removed = await ChunkTable(self._pool, collection).remove_document(document)
        await self._collections.touch(self._org, collection.id)
        return removed

    def as_langchain(
        self, name: str, embedder: Embedder, *, distance: Distance = "cosine"
    ) -> CollectionStore:
        from flowserver.langchain_store import CollectionStore  # noqa: PLC0415  few runs ask for it

        return CollectionStore(self, name, embedder, distance)

    async def _existing(self, name: str) -> Collection:
        found = await self.find(name)
        if found is None:
            known = ", ".join(map(repr, await self.names())) or "none yet"
            message = (
                f"there is no collection {name!r}; a step that stores documents makes it. There are: {known}"
            )
            raise NoCollection(message)
        return found


def _same(collection: Collection, embedder: Embedder, distance: Distance | None = None) -> None:
    """Refuse an embedder whose vectors are not comparable with those of `collection`."""
    collection.refuse_others(embedder)
    if distance not in (None, collection.distance):
        message = f"the collection {collection.name!r} compares by {collection.distance}, not by {distance}"
        raise NodeError(message, code="distance_mismatch", is_final=True)


async def _written(
    table: ChunkTable,
    rows: Sequence[Row],
    embedder: Embedder,
    made: Mapping[str, list[float]],
    stamp: int,
) -> tuple[int, int]:
    """Keep `rows`, with vectors for those that were not there; how many are new, and how many changed.

    Vectors that are `made` already are not asked for again.
    """
    known = await table.known(rows)
    same = [row for row in rows if known.get(row.id) == row.digest]
    kept = await table.keep(same, stamp) if same else {}
    # Somebody else may have removed what was there a moment ago.
    fresh = [row for row in rows if row.id not in kept]
    added, changed = 0, sum(kept.values())
    for batch in _batches(fresh, embedder.batch):
        texts = list(dict.fromkeys(row.content for row in batch if row.content not in made))
        vectors = {**made, **dict(zip(texts, await _vectors(texts, embedder), strict=True))}
        for part in (batch[at : at + _MOST_ROWS] for at in range(0, len(batch), _MOST_ROWS)):
            new = await table.put(part, [vectors[row.content] for row in part], stamp)
            added, changed = added + new, changed + len(part) - new
    return added, changed


def _batches(rows: Sequence[Row], most: int) -> Iterator[list[Row]]:
    batch: list[Row] = []
    size = 0
    for row in rows:
        if batch and (len(batch) >= most or size + len(row.content) > _MOST_CHARACTERS):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += len(row.content)
    if batch:
        yield batch


async def _vectors(texts: list[str], embedder: Embedder) -> list[list[float]]:
    made = await embedder.embeddings.aembed_documents(texts) if texts else []
    if len(made) != len(texts):
        message = f"the model {embedder.model!r} gave {len(made)} vectors for {len(texts)} texts"
        raise NodeError(message, code="bad_vector")
    return made


async def _found(table: ChunkTable, query: Query, k: int, where: str | None) -> list[Found]:
    match query.mode:
        case "vector":
            return await _near(table, query, k, where)
        case "keyword":
            return await table.sayers(query.text, k, where)
        case "hybrid":
            wide = min(max(4 * k, 40), MOST_FOUND)
            near = await _near(table, query, wide, where)
            return fused(near, await table.sayers(query.text, wide, where))[:k]


async def _near(table: ChunkTable, query: Query, k: int, where: str | None) -> list[Found]:
    if query.vector is None:
        message = f"a search by {query.mode} needs a vector of the question"
        raise NodeError(message, code="bad_request", is_final=True)
    found = await table.nearest(query.vector, k, where)
    if query.threshold > 0:
        return [each for each in found if (each.score or 0) >= query.threshold]
    return found
