"""Make a retriever better: what it finds is read again, and the best of it kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import msgspec

from nodes.cohere import ADDRESS, MODEL, cohere, host_of
from nodes.contract import NodeType, RunContext, Tool, port, setting
from nodes.credentials import CredentialId
from nodes.searching import retriever_of, retriever_tool
from nodes.vectors import Reranker


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    model: Annotated[
        Annotated[str, msgspec.Meta(min_length=1, max_length=200)],
        setting("model_name", "rerank_model", description="Of Cohere, where no reranker is connected."),
    ] = MODEL
    credential_id: CredentialId = None
    api_key: Annotated[
        str | None,
        setting("cohere_api_key", secret=True, description="Of Cohere, where no reranker is connected."),
    ] = None
    top_n: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=100)] | None,
        setting(
            "top_k", "topN", description="How many it keeps; left empty, as many as the retriever gives."
        ),
    ] = None
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


class Bindings(msgspec.Struct, frozen=True):
    retriever: Annotated[Tool, port("retriever_tool", "input", description="What is made better.")]
    reranker: Annotated[
        Reranker | None, port(description="What reads again; left out, Cohere by the settings here.")
    ] = None


class Outputs(msgspec.Struct, frozen=True):
    reranked_retriever: Annotated[
        Any, port("output", "retriever", description="A retriever again, for the tools of an agent.")
    ]


async def make(config: Config, bindings: Bindings, ctx: RunContext) -> Any:
    plain = retriever_of(bindings.retriever, ctx)
    k = config.top_n or plain.query.k
    reranker = bindings.reranker or await cohere(
        ctx,
        credential_id=config.credential_id,
        api_key=config.api_key,
        model=config.model,
        top_n=k,
        base_url=config.base_url,
        timeout=config.timeout,
        max_retries=config.max_retries,
    )
    better = replace(plain, query=replace(plain.query, k=k), reranker=reranker)
    tool: Any = bindings.retriever
    return retriever_tool(better, tool.name, tool.description)


def hosts(config: Config) -> list[str]:
    return [host_of(config.base_url or ADDRESS)] if config.api_key or config.credential_id else []


NODE = NodeType.provider(
    make,
    "Reranker",
    "Reranked retriever",
    gives=Tool,
    outputs=Outputs,
    aliases=("RerankerNode",),
    imports=("langchain_core.tools",),
    hosts=hosts,
    icon="arrow-down-wide-narrow",
    examples=({"top_n": 5},),
)
