"""Documents as they travel between steps: `{"page_content": …, "metadata": {…}}`, and lists of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

TEXT_KEYS = ("page_content", "text", "content")
_LIST_KEYS = ("documents", "chunks", "document")


def document(text: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {"page_content": text, "metadata": dict(metadata)}


def documents_in(value: Any) -> Iterator[dict[str, Any]]:
    """The documents of what arrived: documents, texts, lists of them, or an object that holds such a list.

    What holds no text gives none.
    """
    match value:
        case str():
            if value.strip():
                yield document(value, {})
        case list() | tuple():
            for item in value:
                yield from documents_in(item)
        case Mapping():
            text = text_of(value)
            if text is not None:
                found = value.get("metadata")
                yield document(text, found if isinstance(found, Mapping) else {})
            else:
                for key in _LIST_KEYS:
                    yield from documents_in(value.get(key))


def text_of(value: Mapping[str, Any]) -> str | None:
    """The text of an object that is a document."""
    return next((value[key] for key in TEXT_KEYS if isinstance(value.get(key), str)), None)
