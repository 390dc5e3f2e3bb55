"""Let an agent search a collection of documents."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from nodes.contract import NodeType, RunContext, Tool, port, setting
from nodes.filters import Strategy
from nodes.searching import COLLECTION, Retriever, check_filter, retriever_tool, wanted_metadata
from nodes.vectors import Embedder, Mode, Query, Reranker, Vectors


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    collection_name: Annotated[
        Annotated[str, msgspec.Meta(min_length=1, max_length=200)],
        setting("collection", "collectionName", description="Where the documents are."),
    ] = COLLECTION
    search_type: Annotated[
        Literal["similarity", "mmr", "similarity_score_threshold"],
        setting(
            "searchType", description="The nearest; or by 'mmr' those that are near and unlike each other."
        ),
    ] = "similarity"
    mode: Annotated[
        Mode,
        setting(
            "search_mode",
            description="By meaning (vector), by words (keyword), or by both together (hybrid).",
        ),
    ] = "vector"
    search_k: Annotated[
        int,
        setting("k", "top_k", "searchK", description="The most passages that a search gives."),
        msgspec.Meta(ge=1, le=100),
    ] = 6
    score_threshold: Annotated[
        float,
        setting(
            "scoreThreshold",
            description="The least similarity of the vectors, 0 for any. By cosine it is from 0 to 1.",
        ),
        msgspec.Meta(ge=0),
    ] = 0.0
    fetch_k: Annotated[
        int,
        setting(
            description="From how many it chooses; 0 for four times as many as it gives.",
            when={"search_type": ["mmr"]},
        ),
        msgspec.Meta(ge=0, le=100),
    ] = 0
    lambda_mult: Annotated[
        float,
        setting(
            description="1: only what is nearest counts; 0: only that the passages differ.",
            when={"search_type": ["mmr"]},
        ),
        msgspec.Meta(ge=0, le=1),
    ] = 0.5
    enable_metadata_filtering: Annotated[
        bool | None,
        setting(
            "enableMetadataFiltering", description="Whether the filter counts; left out, if there is one."
        ),
    ] = None
    metadata_filter: Annotated[
        dict[str, Any] | str,
        setting(
            "filter",
            description="What the metadata of a passage must say, as a JSON object; $gt, $in, $or …",
        ),
    ] = ""
    filter_strategy: Annotated[
        Strategy,
        setting(
            description="Whether every key must be equal, every one contain the value, or any one be equal."
        ),
    ] = "exact"
    tool_name: Annotated[
        str, setting(description="What the model calls it; left empty, the name of this node.")
    ] = ""
    tool_description: Annotated[
        str, setting(description="Tells the model what is to be found here, and when to look.")
    ] = ""
    credential_id: Annotated[
        str | None,
        setting(
            "credential",
            template=False,
            description="Of older drawings, without effect: the server's own database holds the vectors.",
        ),
    ] = None
    connection_string: Annotated[
        str,
        setting(
            "database_connection",
            secret=True,
            description="Of older drawings, without effect: the server's own database holds the vectors.",
        ),
    ] = ""

    def __post_init__(self) -> None:
        check_filter(self.metadata_filter, self.filter_strategy, "metadata_filter")


class Bindings(msgspec.Struct, frozen=True):
    embedder: Annotated[
        Embedder | None,
        port("embeddings", description="Of the model by which the documents were stored."),
    ] = None
    reranker: Annotated[Reranker | None, port(description="Reads what is found again; may be left out.")] = (
        None
    )


class Outputs(msgspec.Struct, frozen=True):
    retriever_tool: Annotated[
        Any, port("output", "retriever", "tool", description="For the tools of an agent, or a Reranker.")
    ]


def make(config: Config, bindings: Bindings, ctx: RunContext) -> Any:
    enabled = config.enable_metadata_filtering is not False
    query = Query(
        k=config.search_k,
        filter=wanted_metadata(config.metadata_filter, config.filter_strategy, enabled=enabled),
        threshold=config.score_threshold,
        diverse=config.search_type == "mmr",
        candidates=config.fetch_k,
        balance=config.lambda_mult,
    )
    retriever = Retriever(
        ctx.door(Vectors),
        config.collection_name,
        query,
        config.mode,
        bindings.embedder,
        bindings.reranker,
    )
    described = config.tool_description or (
        f"Search the collection {config.collection_name!r} for passages that answer a question."
    )
    return retriever_tool(retriever, config.tool_name or ctx.name, described)


def facts(config: Config) -> dict[str, Any]:
    return {"collection_name": config.collection_name, "mode": config.mode}


NODE = NodeType.provider(
    make,
    "RetrieverProvider",
    "Retriever",
    gives=Tool,
    outputs=Outputs,
    aliases=("RetrieverNode", "RetrieverProviderNode"),
    ignores=("table_prefix",),
    imports=("langchain_core.tools",),
    facts=facts,
    icon="file-search",
    examples=(
        {"collection_name": "handbook", "mode": "hybrid", "search_k": 5},
        {"collection_name": "handbook", "metadata_filter": {"year": {"$gte": 2024}}},
    ),
)
