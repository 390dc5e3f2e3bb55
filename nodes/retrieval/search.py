"""Search a collection of documents by meaning, by words, or both."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from nodes.chunks import as_document
from nodes.contract import NodeType, RunContext, port, setting
from nodes.filters import Strategy
from nodes.searching import COLLECTION, Retriever, check_filter, passages, wanted_metadata
from nodes.texts import written_or_arrived
from nodes.vectors import Embedder, Query, Reranker, Vectors


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    query: Annotated[
        str | UnsetType,
        setting("question", description="What to look for; left empty, what arrives.", left_empty=True),
    ] = UNSET
    collection_name: Annotated[
        Annotated[str, msgspec.Meta(min_length=1, max_length=200)],
        setting("collection", "collectionName", description="Where the documents are."),
    ] = COLLECTION
    mode: Annotated[
        Literal["auto", "vector", "keyword", "hybrid"],
        setting(
            "search_mode",
            description="By meaning (vector), by words (keyword), or both together (hybrid); "
            "auto is hybrid with an embedder, and keyword without.",
        ),
    ] = "auto"
    k: Annotated[
        int,
        setting("search_k", "top_k", "limit", description="The most passages that it gives."),
        msgspec.Meta(ge=1, le=1000),
    ] = 6
    score_threshold: Annotated[
        float,
        setting(description="The least similarity of the vectors, 0 for any. By cosine it is from 0 to 1."),
        msgspec.Meta(ge=0),
    ] = 0.0
    diverse: Annotated[
        bool,
        setting("mmr", description="Whether it leaves out what says the same as something better."),
    ] = False
    fetch_k: Annotated[
        int,
        setting(
            description="From how many it chooses; 0 for four times as many as it gives.",
            when={"diverse": [True]},
        ),
        msgspec.Meta(ge=0, le=100),
    ] = 0
    lambda_mult: Annotated[
        float,
        setting(
            description="1: only what is nearest counts; 0: only that the passages differ.",
            when={"diverse": [True]},
        ),
        msgspec.Meta(ge=0, le=1),
    ] = 0.5
    filter: Annotated[
        dict[str, Any] | str,
        setting(
            "metadata_filter",
            description="What the metadata of a passage must say, as a JSON object; $gt, $in, $or …",
        ),
    ] = ""
    filter_strategy: Annotated[
        Strategy,
        setting(
            description="Whether every key must be equal, every one contain the value, or any one be equal."
        ),
    ] = "exact"

    def __post_init__(self) -> None:
        check_filter(self.filter, self.filter_strategy, "filter")


class Inputs(msgspec.Struct, frozen=True):
    input: Annotated[
        tuple[Any, ...], port("query", many=True, description="What to look for; several are joined.")
    ] = ()


class Bindings(msgspec.Struct, frozen=True):
    embedder: Annotated[
        Embedder | None,
        port("embeddings", description="Of the model by which the documents were stored."),
    ] = None
    reranker: Annotated[Reranker | None, port(description="Reads what is found again; may be left out.")] = (
        None
    )


class Outputs(msgspec.Struct, frozen=True):
    documents: Annotated[
        list[dict[str, Any]], port("output", description="What was found, best first, with its score.")
    ]
    text: Annotated[str, port("context", description="The passages in one text, as a prompt takes it.")]
    count: Annotated[int, port(description="How many were found.")]


async def run(config: Config, inputs: Inputs, bindings: Bindings, ctx: RunContext) -> Outputs:
    query = Query(
        k=config.k,
        filter=wanted_metadata(config.filter, config.filter_strategy),
        threshold=config.score_threshold,
        diverse=config.diverse,
        candidates=config.fetch_k,
        balance=config.lambda_mult,
    )
    retriever = Retriever(
        ctx.door(Vectors), config.collection_name, query, config.mode, bindings.embedder, bindings.reranker
    )
    found = await retriever.find(written_or_arrived(config.query, inputs.input))
    return Outputs([as_document(each) for each in found], passages(found), len(found))


def facts(config: Config) -> dict[str, Any]:
    return {"collection_name": config.collection_name, "mode": config.mode}


NODE = NodeType.step(
    run,
    "Search",
    "Search documents",
    effect=True,
    aliases=("VectorSearch", "SearchDocuments"),
    facts=facts,
    icon="search",
    examples=(
        {"collection_name": "handbook", "query": "{{ input }}", "k": 5},
        {"collection_name": "handbook", "mode": "keyword", "filter": {"year": {"$gte": 2024}}},
    ),
)
