"""Keep documents in a collection, where they are found by meaning and by words."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from nodes.chunks import as_chunks
from nodes.contract import NodeError, NodeType, RunContext, ServerTrouble, port, setting
from nodes.mistakes import Mistakes
from nodes.searching import COLLECTION, as_object
from nodes.vectors import MOST_DIMENSIONS, Chunk, Distance, Embedder, Stored, Vectors

_DISTANCES: Mapping[str, Distance] = {
    "cosine": "cosine",
    "euclidean": "l2",
    "l2": "l2",
    "inner_product": "inner_product",
    "dot_product": "inner_product",
}


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    collection_name: Annotated[
        Annotated[str, msgspec.Meta(min_length=1, max_length=200)],
        setting("collection", "collectionName", description="Where they are kept; made when it is missing."),
    ] = COLLECTION
    custom_metadata: Annotated[
        dict[str, Any] | str,
        setting(
            "metadata", "customMetadata", description="What is said of every document, as a JSON object."
        ),
    ] = ""
    metadata_strategy: Annotated[
        Literal["merge", "replace", "document_only"],
        setting(
            description="Whether that joins what a document says of itself (and wins over it), "
            "takes its place, or does not count."
        ),
    ] = "merge"
    preserve_document_metadata: Annotated[
        bool, setting(description="Whether what a document says of itself is kept.")
    ] = True
    search_algorithm: Annotated[
        Literal["cosine", "euclidean", "l2", "inner_product", "dot_product"],
        setting(
            "distance",
            "distance_strategy",
            description="How vectors are compared; a collection stays with what it was made with.",
        ),
    ] = "cosine"
    language: Annotated[
        Annotated[str, msgspec.Meta(pattern="^[a-z_]+$|\\{\\{", max_length=200)],
        setting(
            description="By whose rules words are found: english, german, turkish … or simple for no rules. "
            "A collection stays with what it was made with."
        ),
    ] = "english"
    embedding_dimension: Annotated[
        int,
        setting(description="How many numbers a vector has; 0 for what the model gives."),
        msgspec.Meta(ge=0, le=MOST_DIMENSIONS),
    ] = 0
    batch_size: Annotated[
        int,
        setting("batchSize", description="How many texts are made vectors, and kept, at a time."),
        msgspec.Meta(ge=1, le=1000),
    ] = 100
    pre_delete_collection: Annotated[
        bool,
        setting(
            "preDeleteCollection",
            description="Whether all that was there before goes, once the new documents are in.",
        ),
    ] = False
    replace_documents: Annotated[
        bool,
        setting(
            description="Whether a document that was there before holds only what comes now. "
            "Switch it off where one document comes in several parts, as in a map."
        ),
    ] = True
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
        given = self.custom_metadata
        if isinstance(given, str) and given and "{{" not in given:
            try:
                as_object(given, "custom_metadata")
            except NodeError as exc:
                raise Mistakes([(exc.message, ("custom_metadata",))]) from None


class Inputs(msgspec.Struct, frozen=True):
    documents: Annotated[
        tuple[Any, ...],
        port("input", "chunks", many=True, description="Documents, texts, and lists of them."),
    ] = ()


class Bindings(msgspec.Struct, frozen=True):
    embedder: Annotated[Embedder, port("embeddings", description="Makes vectors of the texts.")]


class Outputs(msgspec.Struct, frozen=True):
    result: Annotated[
        dict[str, Any],
        port("retriever", "vectorstore", "output", description="Which collection, and what it holds now."),
    ]
    storage_stats: Annotated[
        dict[str, Any], port(description="How many texts were new, changed, the same, blank or removed.")
    ]
    optimization_report: Annotated[dict[str, Any], port(description="How the collection is indexed.")]


async def run(config: Config, inputs: Inputs, bindings: Bindings, ctx: RunContext) -> Outputs:
    vectors = ctx.door(Vectors)
    started = time.monotonic()
    chunks = [_described(config, chunk) for chunk in as_chunks(inputs.documents)]
    embedder = _embedder(config, bindings.embedder)
    stored = await (_afresh if config.pre_delete_collection else _added)(
        config, chunks, embedder, vectors, ctx
    )
    counts = await vectors.counts(config.collection_name) if stored.collection else {}
    return _told(config, stored, counts, time.monotonic() - started)


async def _added(
    config: Config, chunks: list[Chunk], embedder: Embedder, vectors: Vectors, ctx: RunContext
) -> Stored:
    return await vectors.store(
        config.collection_name,
        chunks,
        embedder,
        distance=_DISTANCES[config.search_algorithm],
        language=config.language,
        replace=config.replace_documents,
    )


async def _afresh(
    config: Config, chunks: list[Chunk], embedder: Embedder, vectors: Vectors, ctx: RunContext
) -> Stored:
    """Fill another collection, which then takes the place of the old one: that is whole until then."""
    # The same name for every attempt: one that died half way is gone on with.
    other = f"{config.collection_name[:150]} (new {ctx.idempotency_key[:12]})"
    aside = msgspec.structs.replace(config, collection_name=other)
    try:
        stored = await _added(aside, chunks, embedder, vectors, ctx)
    except ServerTrouble:
        raise
    except Exception:  # where the run is cancelled, another process may have it, and go on with this
        await vectors.drop(other)
        raise
    if stored.collection is None:
        await vectors.drop(config.collection_name)
        return stored
    moved = await vectors.rename(other, config.collection_name)
    return dataclasses.replace(stored, collection=moved)


def _embedder(config: Config, given: Embedder) -> Embedder:
    """The embedder with what the settings say of it.

    Raises:
        NodeError: They contradict it.
    """
    wanted = config.embedding_dimension or given.dimension
    if given.dimension not in (None, wanted):
        message = f"'embedding_dimension' is {wanted}, but vectors of {given.model!r} have {given.dimension}"
        raise NodeError(message, code="bad_vector", is_final=True)
    return dataclasses.replace(given, dimension=wanted, batch=min(config.batch_size, given.batch))


def _described(config: Config, chunk: Chunk) -> Chunk:
    own = dict(chunk.metadata) if config.preserve_document_metadata else {}
    given = as_object(config.custom_metadata, "custom_metadata")
    match config.metadata_strategy:
        case "merge":
            metadata = {**own, **given}
        case "replace":
            metadata = dict(given)
        case "document_only":
            metadata = dict(chunk.metadata)
    return dataclasses.replace(chunk, metadata=metadata)


def _told(config: Config, stored: Stored, counts: Mapping[str, int], seconds: float) -> Outputs:
    found = stored.collection
    told = {
        "documents_stored": stored.added + stored.changed,
        "added": stored.added,
        "changed": stored.changed,
        "unchanged": stored.unchanged,
        "blank": stored.blank,
        "removed": stored.removed,
    }
    result: dict[str, Any] = {"collection": config.collection_name}
    report: dict[str, Any] = {}
    if found is not None:
        result |= {"id": str(found.id), "model": found.model, "dimension": found.dimension}
        result |= {"distance": found.distance, **counts}
        report = {
            "index": "hnsw" if found.dimension <= 4000 else None,
            "precision": "half" if 2000 < found.dimension <= 4000 else "single",
            "distance": found.distance,
            "language": found.language,
        }
    stats = {**told, "collection_name": config.collection_name, "processing_time_seconds": round(seconds, 3)}
    return Outputs({**result, **told}, stats, report)


def facts(config: Config) -> dict[str, Any]:
    return {
        "collection_name": config.collection_name,
        "search_algorithm": _DISTANCES[config.search_algorithm],
        "pre_delete_collection": config.pre_delete_collection,
    }


NODE = NodeType.step(
    run,
    "VectorStoreOrchestrator",
    "Store documents",
    effect=True,
    aliases=("VectorStoreOrchestratorNode",),
    ignores=("table_prefix", "auto_optimize", "enable_hnsw_index", "search_k", "score_threshold"),
    facts=facts,
    icon="database",
    examples=(
        {"collection_name": "handbook"},
        {"collection_name": "handbook", "custom_metadata": {"team": "support"}, "language": "german"},
    ),
)
