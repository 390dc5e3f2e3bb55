"""The chunks of one collection in its own table: kept, removed, and searched."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString, NamedTuple
from uuid import UUID, uuid5

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import DictRow
from psycopg.sql import SQL, Composed, Identifier

import sql
from flowserver.collections import asked, storable
from flowserver.columns import Blobs, Texts
from flowserver.db import Pool, row_of
from nodes.contract import NodeError
from nodes.filters import json_path
from nodes.vectors import Chunk, Collection, Distance, Found

_QUERIES = sql.queries("chunks")

_SIGNS: Mapping[Distance, LiteralString] = {"cosine": "<=>", "inner_product": "<#>", "l2": "<->"}
_LONGEST_ID = 500
_MOST_ASKED = 5000
"""Characters of a question whose words are looked for."""
_MILLISECONDS = 15_000
"""For which a search may take; the pool hangs up on connections that are held for longer than 20 seconds."""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """What chunks are parts of."""

    id: UUID
    name: str
    chunks: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Row:
    """A chunk as it is kept."""

    id: str
    document: str
    content: str
    metadata: str

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.content.encode()).digest()


class Likeness(NamedTuple):
    one: str
    other: str
    likeness: float


class ChunkTable:
    """The table of one collection."""

    def __init__(self, pool: Pool, collection: Collection) -> None:
        self._pool = pool
        self._of = collection
        self._names = {
            "chunks": Identifier(f"chunk_{collection.id.hex}"),
            "kind": SQL("halfvec" if 2000 < collection.dimension <= 4000 else "vector"),
            "distance": SQL(_SIGNS[collection.distance]),
        }

    def document_id(self, document: str) -> UUID:
        return uuid5(self._of.id, document)

    async def known(self, rows: Sequence[Row]) -> dict[str, bytes]:
        """The digests of those that are there, by id."""
        found = await self._rows("known_chunks", {"ids": Texts(row.id for row in rows)})
        return {row["id"]: row["digest"] for row in found}

    async def next_stamp(self) -> int:
        """Greater than all before it: who stores under it is right against those who began before."""
        [row] = await self._rows("next_stamp", {})
        return int(row["stamp"])

    async def put(self, rows: Sequence[Row], vectors: Sequence[Sequence[float]], stamp: int) -> int:
        """Keep `rows` in place of those that have their ids; how many were not there."""
        values = self._columns(rows) | {
            "stamp": stamp,
            "contents": Texts(row.content for row in rows),
            "digests": Blobs(row.digest for row in rows),
            "embeddings": Texts(self.written(vector) for vector in vectors),
        }
        return sum(row["is_new"] for row in await self._rows("put_chunks", values))

    async def keep(self, rows: Sequence[Row], stamp: int) -> dict[str, bool]:
        """Bring what is said of chunks up to date: those that are there, by id, and whether they changed."""
        kept = await self._rows("keep_chunks", self._columns(rows) | {"stamp": stamp})
        return {row["id"]: row["differs"] for row in kept}

    async def remove_older(self, documents: Sequence[str], stamp: int) -> int:
        """Remove what `documents` hold of those who stored before."""
        values = {"document_ids": self._document_ids(documents), "stamp": stamp}
        return await self._changed("remove_older", values)

    async def remove_documents(self, documents: Sequence[str]) -> int:
        return await self._changed("remove_documents", {"document_ids": self._document_ids(documents)})

    async def remove_document(self, id: UUID) -> int:
        return await self._changed("remove_documents", {"document_ids": Texts([str(id)])})

    async def remove(self, ids: Sequence[str]) -> int:
        return await self._changed("remove_chunks", {"ids": Texts(map(storable, ids))})

    async def remove_where(self, filter: Mapping[str, Any]) -> int:
        where = json_path(filter)
        return await self._changed("remove_where", {"where": where}, where)

    async def remove_all(self) -> int:
        return await self._changed("remove_all", {})

    async def get(self, ids: Sequence[str]) -> list[Found]:
        """Those of `ids` that are there, in this order."""
        rows = await self._rows("get_chunks", {"ids": Texts(map(storable, ids))})
        found = {row["id"]: msgspec.convert(row, Found) for row in rows}
        return [found[id] for id in dict.fromkeys(ids) if id in found]

    async def counts(self) -> dict[str, int]:
        """How many `chunks` and `documents` there are."""
        async with asked(self._pool) as conn:
            return dict(row_of(await (await conn.execute(self._query("count_chunks"))).fetchone()))

    async def documents(self, *, after: UUID | None, limit: int) -> list[Document]:
        rows = await self._rows("list_documents", {"after": after, "limit": limit})
        return [msgspec.convert(row, Document) for row in rows]

    async def of_document(self, id: UUID, limit: int) -> list[Found]:
        rows = await self._rows("document_chunks", {"document": id, "limit": limit})
        return [msgspec.convert(row, Found) for row in rows]

    async def nearest(self, vector: Sequence[float], k: int, where: str | None) -> list[Found]:
        """The `k` chunks nearest to `vector` of those that `where` fits, by similarity."""
        values = {"vector": self.written(vector), "k": k, "where": where}
        query = self._query("nearest", where)
        async with asked(self._pool) as conn, conn.transaction():
            await _careful(conn, k, index=True)
            rows = await (await conn.execute(query, values)).fetchall()
            if len(rows) < k:  # the index gave up before enough rows fitted, or there are no more
                await _careful(conn, k, index=False)
                rows = await (await conn.execute(query, values)).fetchall()
        return [self._found(row) for row in rows]

    async def sayers(self, text: str, k: int, where: str | None) -> list[Found]:
        """The `k` chunks that say best what `text` says, by their words."""
        values = {"text": storable(text[:_MOST_ASKED]), "language": self._of.language, "k": k, "where": where}
        async with asked(self._pool) as conn, conn.transaction():
            await _careful(conn, k, index=True)
            rows = await (await conn.execute(self._query("sayers", where), values)).fetchall()
        return [msgspec.convert(row, Found) for row in rows]

    async def likeness(self, ids: Sequence[str]) -> list[Likeness]:
        rows = await self._rows("likeness", {"ids": Texts(ids)})
        return [Likeness(row["one"], row["other"], _number(row["likeness"])) for row in rows]

    def written(self, vector: Sequence[float]) -> str:
        """`vector` as pgvector reads it.

        Raises:
            NodeError: It does not fit the collection.
        """
        if len(vector) != self._of.dimension:
            message = (
                f"the collection {self._of.name!r} holds vectors of {self._of.dimension} dimensions, "
                f"made by {self._of.model!r}; this one has {len(vector)}"
            )
            raise NodeError(message, code="bad_vector", is_final=True)
        try:
            numbers = [float(each) for each in vector]
        except (TypeError, ValueError, OverflowError):
            raise NodeError("a vector is a list of numbers", code="bad_vector", is_final=True) from None
        most = 65_000 if 2000 < self._of.dimension <= 4000 else 3e38
        if not all(-most <= each <= most for each in numbers):
            message = "a vector holds a number that is none, or is too large"
            raise NodeError(message, code="bad_vector", is_final=True)
        return f"[{','.join(f'{each:.9g}' for each in numbers)}]"

    def row_of(self, chunk: Chunk) -> Row:
        """`chunk` as it is kept: without an id it has one that follows from its document and content."""
        content = storable(chunk.content)
        document = None if chunk.document is None else storable(chunk.document)
        same = hashlib.sha256(msgspec.json.encode([document, content])).hexdigest()[:32]
        id = storable(chunk.id or same)
        if len(id) > _LONGEST_ID:
            message = f"the id of a chunk has at most {_LONGEST_ID} characters, not {len(id)}"
            raise NodeError(message, code="bad_id", is_final=True)
        metadata = msgspec.json.encode(_json(chunk.metadata), enc_hook=str).decode()
        return Row(id, id if document is None else document, content, metadata)

    def _found(self, row: DictRow) -> Found:
        return msgspec.convert(row | {"score": similarity(row["score"], self._of.distance)}, Found)

    def _document_ids(self, documents: Sequence[str]) -> Texts:
        return Texts(str(self.document_id(storable(each))) for each in documents)

    def _columns(self, rows: Sequence[Row]) -> dict[str, Any]:
        return {
            "ids": Texts(row.id for row in rows),
            "document_ids": self._document_ids([row.document for row in rows]),
            "documents": Texts(row.document for row in rows),
            "metadata": Texts(row.metadata for row in rows),
        }

    def _query(self, name: str, where: str | None = None) -> Composed:
        test = SQL("true" if where is None else "metadata @@ %(where)s::text::jsonpath")
        return SQL(_QUERIES[name]).format(**self._names, where=test)

    async def _rows(self, name: str, values: Mapping[str, Any]) -> list[DictRow]:
        async with asked(self._pool) as conn:
            return await (await conn.execute(self._query(name), values)).fetchall()

    async def _changed(self, name: str, values: Mapping[str, Any], where: str | None = None) -> int:
        async with asked(self._pool) as conn:
            return (await conn.execute(self._query(name, where), values)).rowcount


def similarity(distance: float, kind: Distance) -> float:
    """What a distance of Postgres' means as a score, where more is nearer."""
    distance = _number(distance, math.inf)
    match kind:
        case "cosine":
            return max(0.0, 1.0 - distance)
        case "inner_product":
            return -distance if math.isfinite(distance) else 0.0
        case "l2":
            return 1.0 / (1.0 + distance)


def _number(value: float | None, otherwise: float = 0.0) -> float:
    """A vector of zeros has no direction, and so no likeness to any other."""
    return otherwise if value is None or math.isnan(value) else value


def _json(value: Any) -> Any:
    match value:
        case str():
            return storable(value)
        case Mapping():
            return {storable(str(key)): _json(each) for key, each in value.items()}
        case list() | tuple():
            return [_json(each) for each in value]
        case float() if not math.isfinite(value):
            return None
    return value


async def _careful(conn: AsyncConnection[DictRow], k: int, *, index: bool) -> None:
    values = {"width": max(200, min(2 * k, 1000)), "index": index, "timeout": _MILLISECONDS}
    await conn.execute(_QUERIES["careful"], values)
