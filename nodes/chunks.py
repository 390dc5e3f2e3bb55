"""Documents in all the forms that steps give them, as the chunks that a collection keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nodes.contract import NodeError
from nodes.texts import to_text
from nodes.vectors import Chunk, Found

_TEXTS = ("page_content", "content", "text")
_LISTS = ("documents", "chunks", "document")
_DEEPEST = 20


def as_chunks(value: Any) -> list[Chunk]:
    """Every document in `value`: a text, `{"page_content", "metadata"}`, a list of these, what a step gave.

    Raises:
        NodeError: It is nested too deeply.
    """
    return list(_chunks(value, 0))


def as_document(found: Found) -> dict[str, Any]:
    """What a search has found, as steps pass documents on."""
    return {
        "page_content": found.content,
        "metadata": dict(found.metadata),
        "id": found.id,
        "score": found.score,
    }


def _chunks(value: Any, depth: int) -> Iterator[Chunk]:
    if depth > _DEEPEST:
        raise NodeError(f"the documents are nested deeper than {_DEEPEST} levels", code="bad_input")
    match value:
        case None:
            return
        case list() | tuple():
            for each in value:
                yield from _chunks(each, depth + 1)
        case Mapping():
            yield from _of_object(value, depth)
        case _:
            yield Chunk(to_text(value), {})


def _of_object(value: Mapping[str, Any], depth: int) -> Iterator[Chunk]:
    if "lc" in value and isinstance(inner := value.get("kwargs"), Mapping):
        value = inner  # a LangChain document as it dumps itself; read as data, and nothing else
    for key in _TEXTS:
        if isinstance(text := value.get(key), str):
            yield _chunk(text, value)
            return
    for key in _LISTS:
        if isinstance(inner := value.get(key), list | tuple | Mapping):
            yield from _chunks(inner, depth + 1)
            return
    yield Chunk(to_text(dict(value)), {})


def _chunk(text: str, value: Mapping[str, Any]) -> Chunk:
    metadata = value.get("metadata")
    known = dict(metadata) if isinstance(metadata, Mapping) else {}
    id = value.get("id")
    return Chunk(text, known, document_of(known), id if isinstance(id, str) and id else None)


def document_of(metadata: Mapping[str, Any]) -> str | None:
    """The document that a chunk says it is a part of."""
    for key in ("document_id", "source"):
        if isinstance(name := metadata.get(key), str | int) and str(name).strip():
            return str(name)
    return None
