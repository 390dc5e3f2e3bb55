"""How nodes search a collection: the question made a vector, what is found read again by a reranker."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from nodes.contract import NodeError, RunContext
from nodes.filters import Strategy, by_strategy, json_path
from nodes.mistakes import Keys, Mistakes
from nodes.vectors import Embedder, Found, Mode, Query, Reranker, Vectors

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

COLLECTION = "documents"
"""The collection of drawings that name none."""

_MOST_READ = 100
"""The most chunks that a reranker is given."""
_PASSAGE = 4000
_PASSAGES = 24_000
"""The most characters of one passage, and of all, that a model is shown."""


@dataclass(frozen=True, slots=True)
class Retriever:
    """A way to search one collection."""

    vectors: Vectors
    collection: str
    query: Query
    """What is looked for, but for the question."""
    mode: Literal["auto", "vector", "keyword", "hybrid"] = "vector"
    embedder: Embedder | None = None
    reranker: Reranker | None = None

    async def find(self, question: str) -> list[Found]:
        """The best first.

        Raises:
            NodeError: The question is blank, or there is no such collection, or no way to ask it.
        """
        question = question.strip()
        if not question:
            raise NodeError("the question is blank", code="missing_value")
        mode = await self._mode()
        vector = None
        if mode != "keyword" and self.embedder is not None:
            vector = await self.embedder.embeddings.aembed_query(question)
        query = replace(self.query, text=question, vector=vector, mode=mode)
        if self.reranker is None:
            return await self.vectors.search(self.collection, query)
        wide = replace(query, k=max(query.k, min(max(4 * query.k, 20), _MOST_READ)))
        found = await self.vectors.search(self.collection, wide)
        ranked = await self.reranker.rerank(question, [each.content for each in found])
        best = [msgspec.structs.replace(found[at], score=score) for at, score in ranked if at < len(found)]
        return best[: query.k]

    async def answer(self, **given: Any) -> str:
        """What is found, as a model is shown it; it may also call with what is no question."""
        question = given.get("query")
        if not isinstance(question, str) or given.keys() != {"query"}:
            return "bad_argument: the only argument is 'query', a text"
        try:
            return passages(await self.find(question)) or "Nothing was found."
        except NodeError as failed:
            return f"{failed.code}: {failed.message}"

    async def _mode(self) -> Mode:
        """How it is searched; whose vectors cannot be compared with the collection's is refused."""
        if self.mode == "keyword" or (self.mode == "auto" and self.embedder is None):
            return "keyword"
        if self.embedder is None:
            message = (
                f"to search by {self.mode!r}, connect an embedder; without one only 'keyword' is possible"
            )
            raise NodeError(message, code="missing_embedder", is_final=True)
        found = await self.vectors.find(self.collection)
        if found is not None:
            found.refuse_others(self.embedder)
        return "hybrid" if self.mode == "auto" else self.mode


def passages(found: Sequence[Found]) -> str:
    """Numbered texts with where they come from."""
    parts: list[str] = []
    left = _PASSAGES
    for number, each in enumerate(found, 1):
        text = each.content if len(each.content) <= _PASSAGE else f"{each.content[:_PASSAGE]}…"
        source = each.metadata.get("source")
        head = f"[{number}]" + (f" source: {str(source)[:500]}" if source else "")
        part = f"{head}\n{text}"
        if parts and len(part) > left:
            break
        parts.append(part)
        left -= len(part)
    return "\n\n".join(parts)


def retriever_tool(retriever: Retriever, name: str, description: str) -> BaseTool:
    """`retriever` as an agent's tool."""
    from langchain_core.tools import StructuredTool  # noqa: PLC0415  loaded with the first tool

    what = "What to look for: a question or a few words, in the language of the documents."
    return StructuredTool(
        name=re.sub(r"[^a-zA-Z0-9_-]+", "_", name).strip("_")[:64] or "document_retriever",
        description=description,
        args_schema={
            "type": "object",
            "properties": {"query": {"type": "string", "description": what}},
            "required": ["query"],
        },
        coroutine=retriever.answer,
    )


def retriever_of(tool: Any, ctx: RunContext) -> Retriever:
    """The retriever behind a tool that `retriever_tool` has made.

    Raises:
        NodeError: It is another tool.
    """
    found = getattr(getattr(tool, "coroutine", None), "__self__", None)
    if not isinstance(found, Retriever):
        message = f"what is connected to {ctx.name!r} is no retriever; connect a RetrieverProvider"
        raise NodeError(message, code="bad_binding", is_final=True)
    return found


def wanted_metadata(
    given: Mapping[str, Any] | str, strategy: Strategy, *, enabled: bool = True
) -> Mapping[str, Any] | None:
    """The filter that settings mean.

    Raises:
        NodeError: They mean none.
    """
    if not enabled or not given:
        return None
    return by_strategy(as_object(given, "metadata_filter"), strategy)


def as_object(given: Mapping[str, Any] | str, name: str) -> Mapping[str, Any]:
    """A setting that is an object, or the JSON text of one.

    Raises:
        NodeError: It is neither.
    """
    if not isinstance(given, str):
        return given
    try:
        found = msgspec.json.decode(given) if given.strip() else {}
    except (msgspec.DecodeError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise NodeError(f"{name!r} must be a JSON object", code="bad_json", is_final=True)
    return found


def check_filter(given: Mapping[str, Any] | str, strategy: Strategy, key: str) -> None:
    """Refuse a filter that no search could take; one with `{{ … }}` is known only in a run.

    Raises:
        Mistakes: With the setting's key.
    """
    if not given or "{{" in (given if isinstance(given, str) else msgspec.json.encode(given).decode()):
        return
    try:
        json_path(by_strategy(as_object(given, key), strategy))
    except NodeError as exc:
        at: Keys = (key,)
        raise Mistakes([(exc.message, at)]) from None
