"""Remove documents from a collection, or the collection as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec

from nodes.contract import NodeError, NodeType, RunContext, port, setting
from nodes.filters import Strategy
from nodes.mistakes import Keys
from nodes.searching import COLLECTION, check_filter, wanted_metadata
from nodes.vectors import Vectors


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    collection_name: Annotated[
        Annotated[str, msgspec.Meta(min_length=1, max_length=200)],
        setting("collection", "collectionName", description="Where the documents are."),
    ] = COLLECTION
    what: Annotated[
        Literal["documents", "filter", "collection"],
        setting(
            description="Documents by name, all chunks whose metadata a filter fits, or the whole collection."
        ),
    ] = "documents"
    documents: Annotated[
        list[Any] | str,
        setting(
            "document",
            "source",
            description="Their names: the 'document_id' or 'source' that they were stored with.",
            when={"what": ["documents"]},
        ),
    ] = ""
    filter: Annotated[
        dict[str, Any] | str,
        setting("metadata_filter", description="As a search takes it.", when={"what": ["filter"]}),
    ] = ""
    filter_strategy: Annotated[
        Strategy,
        setting(
            description="Whether every key must be equal, every one contain the value, or any one be equal.",
            when={"what": ["filter"]},
        ),
    ] = "exact"

    def __post_init__(self) -> None:
        check_filter(self.filter, self.filter_strategy, "filter")


class Inputs(msgspec.Struct, frozen=True):
    input: Annotated[tuple[Any, ...], port(many=True, description="What must have arrived before.")] = ()


class Outputs(msgspec.Struct, frozen=True):
    removed: Annotated[int, port("output", description="How many chunks, or collections, that were.")]


async def run(config: Config, inputs: Inputs, ctx: RunContext) -> Outputs:
    vectors = ctx.door(Vectors)
    if config.what == "collection":
        return Outputs(int(await vectors.drop(config.collection_name)))
    if config.what == "filter":
        wanted = wanted_metadata(config.filter, config.filter_strategy)
        if not wanted:
            raise NodeError("'filter' is empty; to remove all, take 'what': collection", code="missing_value")
        return Outputs(await vectors.remove(config.collection_name, filter=wanted))
    names = [config.documents] if isinstance(config.documents, str) else config.documents
    documents = [str(each) for each in names if each not in (None, "")]
    if not documents:
        raise NodeError("'documents' names none", code="missing_value")
    return Outputs(await vectors.remove(config.collection_name, documents=documents))


def mistakes(config: Config) -> Iterator[tuple[str, Keys]]:
    if config.what != "collection" and not getattr(config, config.what):
        yield f"{config.what!r} is empty, so nothing could be removed", (config.what,)


NODE = NodeType.step(
    run,
    "DeleteDocuments",
    "Delete documents",
    effect=True,
    mistakes=mistakes,
    icon="trash-2",
    examples=(
        {"collection_name": "handbook", "documents": ["https://example.org/old"]},
        {"collection_name": "handbook", "what": "filter", "filter": {"year": {"$lt": 2020}}},
    ),
)
