"""Our collections pass LangChain's own suite for vector stores."""

from __future__ import annotations

import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests.vectorstores import EMBEDDING_SIZE, VectorStoreIntegrationTests

from flowserver.langchain_store import CollectionStore
from flowserver.vectors import OrgVectors
from nodes.contract import NodeError
from nodes.vectors import Embedder
from tests.embeddings import WordVectors


class TestCollectionStore(VectorStoreIntegrationTests):
    """Async only, as our server is."""

    @property
    def has_sync(self) -> bool:
        return False

    @pytest.fixture
    def vectorstore(self, vectors: OrgVectors) -> VectorStore:
        embedder = Embedder("fake", self.get_embeddings(), EMBEDDING_SIZE)
        return CollectionStore(vectors, "standard", embedder)


async def test_it_is_a_retriever_with_filters_and_different_answers(vectors: OrgVectors) -> None:
    store = vectors.as_langchain("docs", Embedder("words", WordVectors()))
    await store.aadd_texts(
        ["red apple", "red apple tart", "green apple"], [{"n": 1}, {"n": 2}, {"n": 3}], ids=["a", "b", "c"]
    )

    plain = await store.as_retriever(search_kwargs={"k": 1, "filter": {"n": {"$gt": 1}}}).ainvoke("red apple")
    mmr = store.as_retriever(search_type="mmr", search_kwargs={"k": 2, "lambda_mult": 0.1})
    scored = await store.asimilarity_search_with_relevance_scores("red apple", 3, score_threshold=0.9)

    assert plain == [Document("red apple tart", id="b", metadata={"n": 2})]
    assert [each.id for each in await mmr.ainvoke("red apple")] == ["a", "c"]
    assert [(each.id, round(score, 3)) for each, score in scored] == [("a", 1.0)]


async def test_a_store_is_made_of_texts(vectors: OrgVectors) -> None:
    made = await CollectionStore.afrom_texts(
        ["one", "two"], WordVectors(), vectors=vectors, name="docs", model="words"
    )

    assert [each.page_content for each in await made.asimilarity_search("two", 1)] == ["two"]
    await made.adelete()
    assert await made.asimilarity_search("two", 1) == []


async def test_what_would_block_the_event_loop_is_refused(vectors: OrgVectors) -> None:
    store = vectors.as_langchain("docs", Embedder("words", WordVectors()))

    for call in (
        lambda: store.add_texts(["a"]),
        lambda: store.similarity_search("a"),
        lambda: store.delete(["a"]),
        lambda: store.get_by_ids(["a"]),
        lambda: CollectionStore.from_texts(["a"], WordVectors()),
    ):
        with pytest.raises(NodeError, match="async"):
            call()
