"""Vectors of texts by an embedding model of OpenAI, or of any server that speaks its embeddings API."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

import httpx
import msgspec
from pydantic import SecretStr

from nodes.contract import NodeError, NodeType, Nothing, RunContext, port, setting
from nodes.credentials import CredentialId
from nodes.keys import as_key, trimmed
from nodes.openai_models import OPENAI, host_of, open_credential, openai_key
from nodes.vectors import MOST_DIMENSIONS, Embedder

_KNOWN = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536}
"""The dimensions that a model's vectors have if nobody asks for others."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    model: Annotated[
        Annotated[str, msgspec.Meta(min_length=1, max_length=200)],
        setting("model_name", "embedding_model", description="The model; a collection stays with one."),
    ] = "text-embedding-3-small"
    base_url: Annotated[
        str | None,
        setting(
            "openai_api_base",
            "api_base",
            "endpoint",
            description="Of an OpenAI-compatible server, to /v1; left empty, OpenAI's.",
        ),
    ] = None
    credential_id: CredentialId = None
    api_key: Annotated[
        str | None,
        setting(
            "openai_api_key",
            secret=True,
            description="Better kept as a credential, which wins over it; else the server's own is used.",
        ),
    ] = None
    dimensions: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=MOST_DIMENSIONS)] | None,
        setting(
            "embedding_dimension",
            description="How many numbers a vector has, if the model can shorten them; left empty or 0, all.",
        ),
    ] = None
    batch_size: Annotated[
        int,
        setting("chunk_size", description="How many texts one request carries."),
        msgspec.Meta(ge=1, le=2048),
    ] = 100
    organization: Annotated[
        str | None, setting(description="The OpenAI organisation that is billed, if the key has several.")
    ] = None
    timeout: Annotated[
        float,
        setting("request_timeout", description="Seconds for one request."),
        msgspec.Meta(ge=1, le=3600),
    ] = 60
    max_retries: Annotated[
        int, setting(description="Attempts after the first one."), msgspec.Meta(ge=0, le=10)
    ] = 3


class Outputs(msgspec.Struct, frozen=True):
    embedder: Annotated[
        Any, port("embeddings", "output", description="For whatever stores or searches documents.")
    ]


async def make(config: Config, bindings: Nothing, ctx: RunContext) -> Embedder:
    """A LangChain `Embeddings` whose client is the run's guarded one."""
    if config.credential_id:
        config = await _with_credential(config, config.credential_id, ctx)
    from langchain_openai import OpenAIEmbeddings  # noqa: PLC0415  half a second that many servers never need

    base_url = trimmed(config.base_url or "") or ctx.models.base_url
    embeddings = OpenAIEmbeddings(
        model=config.model,
        base_url=base_url,
        api_key=SecretStr(openai_key(config.api_key, base_url, ctx)),
        organization=as_key(config.organization, f"the setting 'organization' of {ctx.name!r}") or None,
        dimensions=_asked_dimensions(config),
        chunk_size=config.batch_size,
        timeout=config.timeout,
        max_retries=config.max_retries,
        # It would count tokens by a table that it downloads around the guarded client.
        check_embedding_ctx_length=False,
        http_async_client=ctx.http,
        http_client=_no_sync_client(),
    )
    return Embedder(config.model, embeddings, dimension(config, base_url), config.batch_size)


async def _with_credential(config: Config, id: str, ctx: RunContext) -> Config:
    """`config` with what the credential says; it goes nowhere but where that is for.

    Where there is none, as in drawings that come from elsewhere, another key may serve.
    """
    try:
        known = await open_credential(id, config.base_url, ctx.models.base_url or OPENAI, ctx)
    except NodeError as exc:
        has_other = config.api_key or config.base_url or ctx.models.api_key
        if exc.code != "credential_not_found" or not has_other:
            raise
        return config
    return msgspec.structs.replace(
        config,
        api_key=known["api_key"],
        base_url=config.base_url or known.get("base_url") or None,
        organization=config.organization or known.get("organization") or None,
    )


def dimension(config: Config, base_url: str | None) -> int | None:
    """How many numbers its vectors have, as far as it is known: only OpenAI's own models are."""
    return config.dimensions or (None if base_url else _KNOWN.get(config.model))


def _asked_dimensions(config: Config) -> int | None:
    """What the request says: nothing of what the model does by itself, as older ones take no word of it."""
    return None if config.dimensions in (0, _KNOWN.get(config.model)) else config.dimensions


@cache
def _no_sync_client() -> httpx.Client:
    """Keeps the library from making a blocking client that goes around the guarded one."""

    def refuse(request: httpx.Request) -> httpx.Response:
        raise RuntimeError("the embedding model was called synchronously")

    return httpx.Client(transport=httpx.MockTransport(refuse))


def hosts(config: Config) -> list[str]:
    return [host_of(config.base_url or OPENAI)]


def facts(config: Config) -> dict[str, Any]:
    return {"model": config.model, "dimensions": dimension(config, config.base_url)}


NODE = NodeType.provider(
    make,
    "OpenAIEmbeddingsProvider",
    "OpenAI embeddings",
    gives=Embedder,
    falls_back=True,
    outputs=Outputs,
    aliases=("OpenAIEmbeddings", "OpenAIEmbeddingsNode", "OpenAIEmbeddingsProviderNode"),
    imports=("langchain_openai.embeddings.base",),
    hosts=hosts,
    facts=facts,
    icon="binary",
    examples=({"model": "text-embedding-3-small"},),
)
