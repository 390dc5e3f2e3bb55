"""Read what a search has found again, with the question, and keep what answers it best (Cohere)."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from nodes.cohere import ADDRESS, MODEL, CohereReranker, cohere, host_of
from nodes.contract import NodeType, Nothing, RunContext, port, setting
from nodes.credentials import CredentialId
from nodes.vectors import Reranker


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    model: Annotated[
        Annotated[str, msgspec.Meta(min_length=1, max_length=200)],
        setting("model_name", description="Such as rerank-v3.5 or rerank-multilingual-v3.0."),
    ] = MODEL
    credential_id: CredentialId = None
    api_key: Annotated[
        str | None, setting("cohere_api_key", secret=True, description="The key of a Cohere account.")
    ] = None
    top_n: Annotated[
        int,
        setting("topN", description="The most that it keeps; a search that wants fewer gets fewer."),
        msgspec.Meta(ge=1, le=1000),
    ] = 10
    base_url: Annotated[
        str | None,
        setting(description="Of a server that speaks Cohere's API, without /v2; left empty, Cohere's."),
    ] = None
    timeout: Annotated[
        float,
        setting("request_timeout", description="Seconds for one request."),
        msgspec.Meta(ge=1, le=600),
    ] = 60
    max_retries: Annotated[
        int, setting(description="Attempts after the first one."), msgspec.Meta(ge=0, le=10)
    ] = 2


class Outputs(msgspec.Struct, frozen=True):
    reranker: Annotated[Any, port("output", description="For whatever searches.")]


async def make(config: Config, bindings: Nothing, ctx: RunContext) -> CohereReranker:
    return await cohere(
        ctx,
        credential_id=config.credential_id,
        api_key=config.api_key,
        model=config.model,
        top_n=config.top_n,
        base_url=config.base_url,
        timeout=config.timeout,
        max_retries=config.max_retries,
    )


def hosts(config: Config) -> list[str]:
    return [host_of(config.base_url or ADDRESS)]


NODE = NodeType.provider(
    make,
    "CohereRerankerProvider",
    "Cohere reranker",
    gives=Reranker,
    outputs=Outputs,
    aliases=("CohereReranker", "CohereRerankerNode", "CohereRerankerProviderNode"),
    ignores=("max_chunks_per_doc",),
    hosts=hosts,
    icon="arrow-down-wide-narrow",
    examples=({"model": "rerank-v3.5", "top_n": 5},),
)
