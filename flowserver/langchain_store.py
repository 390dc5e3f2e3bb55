"""A collection as LangChain's `VectorStore`, for node types that use what LangChain builds on one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn, Self

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from nodes.chunks import document_of
from nodes.contract import NodeError
from nodes.vectors import Chunk, Distance, Embedder, Found, Query, Vectors


class CollectionStore(VectorStore):
    """Only its methods for async code do anything: the server has one event loop, which nothing may block."""

    def __init__(self, vectors: Vectors, name: str, embedder: Embedder, distance: Distance = "cosine"):
        self._vectors = vectors
        self._name = name
        self._embedder = embedder
        self._distance = distance

    @property
    def embeddings(self) -> Embeddings:
        return self._embedder.embeddings  # type: ignore[return-value]  # it is one, which nodes do not import

    async def aadd_documents(self, documents: list[Document], **kwargs: Any) -> list[str]:
        """Keep `documents`, under `ids` or their own ids; their ids."""
        ids = kwargs.get("ids") or [each.id for each in documents]
        texts = [each.page_content for each in documents]
        return await self._add(texts, [each.metadata for each in documents], ids)

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        contents = list(texts)
        return await self._add(contents, metadatas or [{} for _ in contents], ids or [None for _ in contents])

    async def _add(
        self, texts: Sequence[str], metadata: Sequence[dict[str, Any]], ids: Sequence[str | None]
    ) -> list[str]:
        given = zip(texts, metadata, ids, strict=True)
        chunks = [Chunk(text, known, document_of(known), id) for text, known, id in given]
        stored = await self._vectors.store(
            self._name, chunks, self._embedder, distance=self._distance, replace=False
        )
        return list(stored.ids)

    async def adelete(self, ids: list[str] | None = None, **kwargs: Any) -> bool | None:
        """Delete chunks; without `ids`, all of them."""
        if ids is None:
            await self._vectors.empty(self._name)
        elif await self._vectors.find(self._name):
            await self._vectors.remove(self._name, ids=ids)
        return True

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        return [_document(each) for each in await self._vectors.get(self._name, ids)]

    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        return [document for document, _ in await self.asimilarity_search_with_score(query, k, **kwargs)]

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The nearest first, with their similarity; `filter`, `mode` and what else a `Query` has."""
        found = await self._search(query, k, kwargs)
        return [(_document(each), each.score or 0.0) for each in found]

    async def asimilarity_search_by_vector(
        self, embedding: list[float], k: int = 4, **kwargs: Any
    ) -> list[Document]:
        query = Query(vector=embedding, k=k, filter=kwargs.get("filter"))
        return [_document(each) for each in await self._vectors.search(self._name, query)]

    async def _asimilarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        return await self.asimilarity_search_with_score(query, k, **kwargs)

    async def amax_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        wanted = kwargs | {"diverse": True, "candidates": fetch_k, "balance": lambda_mult}
        return [_document(each) for each in await self._search(query, k, wanted)]

    async def _search(self, text: str, k: int, wanted: dict[str, Any]) -> list[Found]:
        known = {field.name for field in dataclasses.fields(Query)} - {"text", "vector", "k"}
        options = {key: value for key, value in wanted.items() if key in known}
        vector = None
        if options.get("mode") != "keyword":
            vector = await self._embedder.embeddings.aembed_query(text)
        if await self._vectors.find(self._name) is None:
            return []
        return await self._vectors.search(self._name, Query(text, vector, k, **options))

    @classmethod
    async def afrom_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Needs `vectors` and `name`, and the `model` of the embedding."""
        made = cls(kwargs["vectors"], kwargs["name"], Embedder(kwargs["model"], embedding))
        await made.aadd_texts(texts, metadatas, ids=ids)
        return made

    @classmethod
    def from_texts(cls, *_: Any, **__: Any) -> NoReturn:
        _only_async()

    def add_texts(self, *_: Any, **__: Any) -> NoReturn:
        _only_async()

    def delete(self, *_: Any, **__: Any) -> NoReturn:
        _only_async()

    def get_by_ids(self, *_: Any, **__: Any) -> NoReturn:
        _only_async()

    def similarity_search(self, *_: Any, **__: Any) -> NoReturn:
        _only_async()


def _only_async() -> NoReturn:
    raise NodeError("a collection is used by async methods only", code="not_supported", is_final=True)


def _document(found: Found) -> Document:
    return Document(found.content, metadata=found.metadata, id=found.id)
