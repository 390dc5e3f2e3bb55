"""Documents in every form that steps give them, and in none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.chunks import as_chunks
from nodes.contract import NodeError
from nodes.vectors import Chunk


@pytest.mark.parametrize(
    ("value", "chunks"),
    [
        ("text", [Chunk("text", {})]),
        ({"page_content": "a", "metadata": {"source": "s"}}, [Chunk("a", {"source": "s"}, "s")]),
        (
            {"page_content": "a", "metadata": {"source": "s", "document_id": 7}, "id": "i"},
            [Chunk("a", {"source": "s", "document_id": 7}, "7", "i")],
        ),
        ({"content": "a", "metadata": "none"}, [Chunk("a", {})]),
        ({"text": "a", "id": 5}, [Chunk("a", {})]),
        ({"documents": [{"text": "a"}], "stats": {"text": "b"}}, [Chunk("a", {})]),
        ([["a"], [[{"text": "b"}]], None], [Chunk("a", {}), Chunk("b", {})]),
        ({"page_content": 5}, [Chunk('{"page_content": 5}', {})]),
        ({"metadata": {"source": " "}, "text": "a"}, [Chunk("a", {"source": " "})]),
        (3.5, [Chunk("3.5", {})]),
        ((), []),
    ],
)
def test_a_document_is_read_in_many_forms(value: Any, chunks: list[Chunk]) -> None:
    assert as_chunks(value) == chunks


def test_what_is_nested_too_deeply_is_refused() -> None:
    deep: Any = "text"
    for _ in range(100):
        deep = [deep]

    with pytest.raises(NodeError, match="nested deeper than 20 levels"):
        as_chunks(deep)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "metadata", "id", "lc", "kwargs", "documents"]), inner)
    ),
    max_leaves=20,
)


@settings(derandomize=True, database=None, deadline=None, max_examples=200)
@given(JSON)
def test_any_json_gives_texts(value: Any) -> None:
    for chunk in as_chunks(value):
        assert isinstance(chunk.content, str)
        assert isinstance(chunk.metadata, dict)
