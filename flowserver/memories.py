"""Long-term memories in LangGraph's store, each organisation's below a namespace of its own."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NoReturn
from uuid import UUID

import psycopg
from langchain_core.embeddings import Embeddings
from langgraph.store.base import PutOp, SearchItem, SearchOp
from langgraph.store.postgres.aio import AsyncPostgresStore
from langgraph.store.postgres.base import PostgresIndexConfig

from flowserver.collections import storable
from flowserver.db import Pool, is_outage
from nodes.contract import NodeError, ServerTrouble
from nodes.long_term_memory import Remembered
from nodes.vectors import Embedder

_MOST_LABELS = 10
_LONGEST_LABEL = 200
_LONGEST_TEXT = 100_000
_MOST = 200


class OrgMemories:
    """Fulfils `nodes.long_term_memory.Memories` for one organisation."""

    def __init__(self, pool: Pool, org: UUID, workflow: UUID | None) -> None:
        self._pool = pool
        self._root = org.hex
        self._own = f"workflow:{workflow.hex if workflow else 'unsaved'}"

    async def write(
        self,
        place: str,
        text: str,
        *,
        key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        embedder: Embedder | None = None,
    ) -> str:
        text = storable(text)
        if not text.strip() or len(text) > _LONGEST_TEXT:
            message = f"what is remembered has 1 to {_LONGEST_TEXT} characters, not {len(text.strip())}"
            raise NodeError(message, code="bad_input", is_final=True)
        key = _key(key) if key else hashlib.sha256(text.encode()).hexdigest()[:32]
        value = {
            "text": text,
            "metadata": dict(metadata or {}),
            "model": embedder.model if embedder else None,
        }
        vectors = await _vectors([text], embedder)
        place_of = self._namespace(place)
        async with _asked():
            if not vectors:  # one of what was there before would find the wrong text
                await self._store({}).abatch([PutOp(place_of, key, None)])
            await self._store(vectors).abatch([PutOp(place_of, key, value, None if vectors else False)])
        return key

    async def read(
        self, place: str, *, query: str = "", limit: int = 5, embedder: Embedder | None = None
    ) -> list[Remembered]:
        if not 1 <= limit <= _MOST:
            message = f"1 to {_MOST} memories can be read, not {limit}"
            raise NodeError(message, code="bad_request", is_final=True)
        query = storable(query).strip()
        by_vector = embedder if query else None
        vectors = await _vectors([query], by_vector)
        only = {"model": by_vector.model} if by_vector else None
        wanted = SearchOp(self._namespace(place), only, limit, 0, query if by_vector else None)
        async with _asked():
            [found] = await self._store(vectors).abatch([wanted])
        items = found if isinstance(found, list) else []
        return [_remembered(each) for each in items if isinstance(each, SearchItem)]

    async def forget(self, place: str, key: str) -> None:
        async with _asked():
            await self._store({}).abatch([PutOp(self._namespace(place), _key(key), None)])

    def _store(self, vectors: Mapping[str, list[float]]) -> AsyncPostgresStore:
        if not vectors:
            return AsyncPostgresStore(self._pool)
        index: PostgresIndexConfig = {
            "dims": len(next(iter(vectors.values()))),
            "embed": _Made(vectors),
            "fields": ["text"],
            "distance_type": "cosine",
        }
        return AsyncPostgresStore(self._pool, index=index)

    def _namespace(self, place: str) -> tuple[str, ...]:
        """`place` as the store's labels, none of which may hold a dot."""
        labels = [each for each in storable(place).split("/") if each.strip()] or [self._own]
        if len(labels) > _MOST_LABELS or any(len(each) > _LONGEST_LABEL for each in labels):
            message = f"a place has at most {_MOST_LABELS} names of {_LONGEST_LABEL} characters each"
            raise NodeError(message, code="bad_name", is_final=True)
        return (self._root, *(each.replace("%", "%25").replace(".", "%2E") for each in labels))


class _Made(Embeddings):
    """Vectors that are there already: the store holds a connection while it waits for them."""

    def __init__(self, vectors: Mapping[str, list[float]]) -> None:
        self._vectors = vectors

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self._vectors[text] for text in texts]

    def embed_documents(self, texts: list[str]) -> NoReturn:
        raise AssertionError("the store is used by its async methods only")

    def embed_query(self, text: str) -> NoReturn:
        raise AssertionError("the store is used by its async methods only")


@asynccontextmanager
async def _asked() -> AsyncIterator[None]:
    try:
        yield
    except psycopg.errors.DataException:
        message = "this model's vectors have another number of dimensions than those that were kept by it"
        raise NodeError(message, code="model_mismatch", is_final=True) from None
    except psycopg.OperationalError as exc:
        if not is_outage(exc):
            raise
        raise ServerTrouble from exc


async def _vectors(texts: list[str], embedder: Embedder | None) -> dict[str, list[float]]:
    if embedder is None:
        return {}
    return dict(zip(texts, await embedder.embeddings.aembed_documents(texts), strict=True))


def _key(key: str) -> str:
    found = storable(key)
    if not 0 < len(found) <= 500:
        raise NodeError("the key of a memory has 1 to 500 characters", code="bad_name", is_final=True)
    return found


def _remembered(item: SearchItem) -> Remembered:
    value = item.value
    return Remembered(
        key=item.key,
        text=value.get("text", ""),
        metadata=value.get("metadata") or {},
        at=item.updated_at,
        score=None if item.score is None else max(0.0, item.score),
    )
