"""A chat model of Google's Gemini API. Needs `flowserver[google]`."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from pydantic import SecretStr

from nodes.contract import ChatModel, NodeError, NodeType, Nothing, RunContext, port, setting
from nodes.credentials import CredentialId
from nodes.extras import needs_extra
from nodes.guarded import Guarded
from nodes.keys import trimmed
from nodes.openai_models import host_of, open_credential, typed_key

GOOGLE = "https://generativelanguage.googleapis.com"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    model: Annotated[
        str, setting("model_name", description="The model's name, such as gemini-3.5-flash.")
    ] = "gemini-3.5-flash"
    credential_id: CredentialId = None
    api_key: Annotated[
        str | None,
        setting(
            "google_api_key", secret=True, description="Better kept as a credential, which wins over it."
        ),
    ] = None
    base_url: Annotated[str | None, setting(description="Of another server that speaks its API.")] = None
    temperature: Annotated[
        Annotated[float, msgspec.Meta(ge=0, le=2)] | None,
        setting(description="How freely it chooses its words; left empty, as the provider does."),
    ] = None
    max_tokens: Annotated[
        Annotated[int, msgspec.Meta(ge=1)] | None,
        setting("max_output_tokens", description="The most tokens of one answer."),
    ] = None
    top_p: Annotated[
        Annotated[float, msgspec.Meta(ge=0, le=1)] | None,
        setting(description="It chooses among words that have this much of the probability together."),
    ] = None
    timeout: Annotated[
        float, setting("request_timeout", description="Seconds."), msgspec.Meta(ge=1, le=3600)
    ] = 60
    max_retries: Annotated[
        int, setting(description="Attempts after the first one."), msgspec.Meta(ge=0, le=10)
    ] = 2


class Outputs(msgspec.Struct, frozen=True):
    llm: Annotated[Any, port("output", "model", description="The model, for an agent and the like.")]


async def make(config: Config, bindings: Nothing, ctx: RunContext) -> Any:
    """A LangChain chat model; its client sends through the run's guarded one."""
    from langchain_google_genai import ChatGoogleGenerativeAI  # noqa: PLC0415  slow to import, and an extra

    key, base_url = typed_key(config.api_key, ctx), trimmed(config.base_url or "") or None
    if config.credential_id:
        known = await open_credential(config.credential_id, base_url, GOOGLE, ctx)
        key, base_url = known["api_key"], base_url or known.get("base_url")
    if not key:
        message = f"{ctx.name!r} has no API key: set its 'credential_id' or 'api_key'"
        raise NodeError(message, code="missing_key", is_final=True)
    given = {name: found for name in ("temperature", "top_p") if (found := getattr(config, name)) is not None}
    return ChatGoogleGenerativeAI(
        model=config.model,
        google_api_key=SecretStr(key),
        base_url=base_url or None,
        vertexai=False,  # which the environment could choose, with the operator's own login
        max_output_tokens=config.max_tokens,
        timeout=config.timeout,
        max_retries=config.max_retries + 1,  # it counts the first one, too
        client_args={"transport": Guarded(ctx.http), "trust_env": False},
        **given,
    )


def hosts(config: Config) -> list[str]:
    return [host_of(config.base_url or GOOGLE)]


NODE = NodeType.provider(
    make,
    "GoogleChat",
    "Google chat model",
    gives=ChatModel,
    outputs=Outputs,
    aliases=("ChatGoogle", "GeminiChat", "GoogleGenerativeAI"),
    imports=("langchain_google_genai",),
    ignores=("streaming",),
    hosts=hosts,
    mistakes=needs_extra("langchain_google_genai", "google"),
    icon="sparkles",
    examples=({"model": "gemini-3.5-flash"},),
)
