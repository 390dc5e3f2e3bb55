"""Collections of texts that are found by meaning or by words, as a server offers them to nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol, TypeAlias
from uuid import UUID

import msgspec

from nodes.contract import NodeError

Distance: TypeAlias = Literal["cosine", "inner_product", "l2"]
Mode: TypeAlias = Literal["vector", "keyword", "hybrid"]

MOST_FOUND = 1000
"""The most chunks that one search gives."""

MOST_DIMENSIONS = 16_000


class Embeddings(Protocol):
    """What makes vectors of texts: a LangChain `Embeddings`."""

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]: ...

    async def aembed_query(self, text: str) -> list[float]: ...


@dataclass(frozen=True, slots=True)
class Embedder:
    """What an `embedder` port carries: what makes vectors of texts, and what is known of these."""

    model: str
    """Vectors of different models cannot be compared."""
    embeddings: Embeddings
    dimension: int | None = None
    """How many numbers a vector has, where that is known before one is made."""
    batch: int = 100
    """How many texts one request carries."""


class Reranker(Protocol):
    """What a `reranker` port carries: it reads texts with the question, and says how well they answer it."""

    async def rerank(self, query: str, texts: Sequence[str]) -> list[tuple[int, float]]:
        """The best of `texts` first, each by its index, with its relevance from 0 to 1."""
        ...


class Collection(msgspec.Struct, frozen=True, kw_only=True):
    """Texts of one organisation, with vectors of one model."""

    id: UUID
    name: str
    description: str | None
    model: str
    dimension: int
    distance: Distance
    language: str
    """By whose rules words are found: a text search configuration of Postgres."""
    created_at: datetime
    updated_at: datetime

    def refuse_others(self, embedder: Embedder) -> None:
        """Raises:
        NodeError: Vectors of `embedder` cannot be compared with those that are here.
        """
        if message := self.why_not(embedder.model, embedder.dimension):
            raise NodeError(message, code="model_mismatch", is_final=True)

    def why_not(self, model: str, dimension: int | None) -> str | None:
        """Why vectors of `model` cannot be compared with those that are here."""
        if model == self.model and dimension in (None, self.dimension):
            return None
        given = f"{model!r}" if dimension is None else f"{model!r} ({dimension} dimensions)"
        return (
            f"the collection {self.name!r} holds vectors of {self.model!r} ({self.dimension} dimensions), "
            f"which cannot be compared with those of {given}; take that model, or another collection"
        )


@dataclass(frozen=True, slots=True)
class Chunk:
    """A text to keep."""

    content: str
    metadata: Mapping[str, Any]
    document: str | None = None
    """What it is a part of; a chunk by itself is a document of its own."""
    id: str | None = None
    """Left out, it follows from the document and the content: the same text is kept once."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk that a search gives."""

    id: str
    document_id: UUID
    document: str
    content: str
    metadata: dict[str, Any]
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of chunks: how many were new, differ from what was there, or were there already."""

    collection: Collection | None
    """Where they are; `None` while there was nothing to make it for."""
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    blank: int = 0
    """Texts without a letter, which are not kept."""
    removed: int = 0
    """What their documents held before, and do not any more."""
    ids: tuple[str, ...] = ()
    """Of each chunk."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for."""

    text: str = ""
    vector: Sequence[float] | None = None
    k: int = 6
    mode: Mode = "vector"
    filter: Mapping[str, Any] | None = None
    """What the metadata must say; see `nodes.filters`."""
    threshold: float = 0.0
    """The least similarity of a vector that counts, by the collection's distance; 0 for any."""
    diverse: bool = False
    """Chosen so that no two say the same (maximal marginal relevance)."""
    candidates: int = 0
    """From how many they are chosen; 0 for four times as many as are wanted."""
    balance: float = 0.5
    """1: only what is nearest counts; 0: only that they differ."""


class Vectors(Protocol):
    """The collections of the organisation that a run belongs to.

    Whatever they refuse is a `NodeError`: `no_collection`, `model_mismatch`, `bad_vector`, `bad_filter` ...
    """

    async def find(self, name: str) -> Collection | None:
        """The collection called so."""
        ...

    async def names(self) -> list[str]:
        """Some names of collections, for messages."""
        ...

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
        """Keep `chunks`; the collection is made with the first ones.

        With `replace`, their documents hold nothing else afterwards.
        """
        ...

    async def search(self, name: str, query: Query) -> list[Found]:
        """The best first."""
        ...

    async def remove(
        self,
        name: str,
        *,
        documents: Sequence[str] = (),
        ids: Sequence[str] = (),
        filter: Mapping[str, Any] | None = None,
    ) -> int:
        """Remove whole documents, chunks by id, and what a filter fits; how many chunks that were."""
        ...

    async def empty(self, name: str) -> None:
        """Remove every chunk; the collection, if there is one, stays."""
        ...

    async def rename(self, name: str, to: str) -> Collection:
        """Give a collection another name, in the place of the one that is called so."""
        ...

    async def drop(self, name: str) -> bool:
        """Remove a collection; whether there was one."""
        ...

    async def counts(self, name: str) -> dict[str, int]:
        """How many `chunks` and `documents` a collection holds."""
        ...

    async def get(self, name: str, ids: Sequence[str]) -> list[Found]:
        """Chunks by their ids; of a collection that is not there, none."""
        ...

    def as_langchain(self, name: str, embedder: Embedder, *, distance: Distance = "cosine") -> Any:
        """The collection as a LangChain `VectorStore`."""
        ...
