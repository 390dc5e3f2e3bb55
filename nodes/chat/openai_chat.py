"""A chat model of OpenAI, or of any server that speaks its chat-completions API."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any
from urllib.parse import urlsplit

import httpx
import msgspec
from pydantic import SecretStr

from nodes.contract import ChatModel, NodeError, NodeType, Nothing, RunContext, port, setting
from nodes.credentials import CredentialId, Credentials

OPENAI = "https://api.openai.com/v1"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    model: Annotated[str, setting("model_name")] = "gpt-4o"
    base_url: Annotated[
        str | None,
        setting(
            "openai_api_base", "api_base", "endpoint", description="Of an OpenAI-compatible server, to /v1."
        ),
    ] = None
    credential_id: CredentialId = None
    api_key: Annotated[
        str | None,
        setting(
            "openai_api_key", secret=True, description="Better kept as a credential, which wins over it."
        ),
    ] = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    frequency_penalty: Annotated[float, msgspec.Meta(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, msgspec.Meta(ge=-2, le=2)] | None = None
    organization: str | None = None
    timeout: Annotated[
        float, setting("request_timeout", description="Seconds."), msgspec.Meta(ge=1, le=3600)
    ] = 60
    max_retries: Annotated[int, msgspec.Meta(ge=0, le=10)] = 2


class Outputs(msgspec.Struct, frozen=True):
    llm: Annotated[Any, port("output", "model")]


async def make(config: Config, bindings: Nothing, ctx: RunContext) -> Any:
    """A LangChain chat model; its client is the run's guarded one."""
    if config.credential_id:
        config = await _with_credential(config, config.credential_id, ctx)
    from langchain_openai import ChatOpenAI  # noqa: PLC0415  half a second and 20 MB that many servers never need
    from langchain_openai.chat_models.base import BaseChatOpenAI  # noqa: PLC0415

    base_url = config.base_url or ctx.models.base_url
    settings = {
        name: getattr(config, name)
        for name in ("temperature", "max_tokens", "top_p", "frequency_penalty", "presence_penalty")
        if getattr(config, name) is not None
    }
    # OpenAI itself wants `max_completion_tokens`, which ChatOpenAI writes; most compatible servers know only
    # `max_tokens`, which its base class keeps.
    kind = BaseChatOpenAI if base_url else ChatOpenAI
    return kind(
        model=config.model,
        base_url=base_url,
        api_key=SecretStr(_key(config, base_url, ctx)),
        organization=config.organization or None,
        timeout=config.timeout,
        max_retries=config.max_retries,
        stream_usage=True,
        http_async_client=ctx.http,
        http_client=_no_sync_client(),
        **settings,
    )


async def _with_credential(config: Config, id: str, ctx: RunContext) -> Config:
    """`config` with what the credential says; it goes nowhere but where that is for."""
    usual = _host(ctx.models.base_url or OPENAI)
    host = _host(config.base_url) if config.base_url else None
    known = await ctx.door(Credentials).get(id, host=host, usual=usual)
    if not known.get("api_key"):
        message = f"the credential of {ctx.name!r} has no field 'api_key'; it has: {', '.join(known)}"
        raise NodeError(message, code="missing_key", is_final=True)
    return msgspec.structs.replace(
        config,
        api_key=known["api_key"],
        base_url=config.base_url or known.get("base_url") or None,
        organization=config.organization or known.get("organization") or None,
    )


def _key(config: Config, base_url: str | None, ctx: RunContext) -> str:
    """The drawing's key, else the operator's, which goes to the operator's own address only."""
    if config.api_key:
        return config.api_key
    if ctx.models.api_key and base_url == ctx.models.base_url:
        return ctx.models.api_key
    if base_url:
        return "none"  # local servers ask for none, but the client insists on one
    raise NodeError(
        f"{ctx.name!r} has no API key: set its 'api_key', or FLOWSERVER_OPENAI_API_KEY for the whole server",
        code="missing_key",
    )


@cache
def _no_sync_client() -> httpx.Client:
    """Keeps the library from making a blocking client that goes around the guarded one."""

    def refuse(request: httpx.Request) -> httpx.Response:
        raise RuntimeError("the chat model was called synchronously")

    return httpx.Client(transport=httpx.MockTransport(refuse))


def hosts(config: Config) -> list[str]:
    return [_host(config.base_url or OPENAI)]


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""


NODE = NodeType.provider(
    make,
    "OpenAIChat",
    "OpenAI chat model",
    gives=ChatModel,
    outputs=Outputs,
    aliases=("OpenAINode", "OpenAIChatNode"),
    imports=("langchain_openai.chat_models.base",),
    ignores=("streaming", "tavily_api_key", "verify_ssl"),
    hosts=hosts,
)
