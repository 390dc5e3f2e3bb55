"""A chat model of OpenAI, or of any server that speaks its chat-completions API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from nodes.contract import ChatModel, NodeError, NodeType, Nothing, RunContext, port, setting
from nodes.credentials import CredentialId
from nodes.keys import as_key
from nodes.openai_models import OPENAI, chat_model, host_of, open_credential, openai_key, tuning


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    model: Annotated[str, setting("model_name", description="The model's name, such as gpt-4o.")] = "gpt-4o"
    credential_id: CredentialId = None
    base_url: Annotated[
        str | None,
        setting(
            "openai_api_base", "api_base", "endpoint", description="Of an OpenAI-compatible server, to /v1."
        ),
    ] = None
    api_key: Annotated[
        str | None,
        setting(
            "openai_api_key", secret=True, description="Better kept as a credential, which wins over it."
        ),
    ] = None
    temperature: Annotated[
        Annotated[float, msgspec.Meta(ge=0, le=2)] | None,
        setting(description="How freely it chooses its words; left empty, as the provider does."),
    ] = None
    max_tokens: Annotated[
        Annotated[int, msgspec.Meta(ge=1)] | None, setting(description="The most tokens of one answer.")
    ] = None
    top_p: Annotated[
        Annotated[float, msgspec.Meta(ge=0, le=1)] | None,
        setting(description="It chooses among words that have this much of the probability together."),
    ] = None
    frequency_penalty: Annotated[
        Annotated[float, msgspec.Meta(ge=-2, le=2)] | None,
        setting(description="Above 0, words become less likely the more often they were used."),
    ] = None
    presence_penalty: Annotated[
        Annotated[float, msgspec.Meta(ge=-2, le=2)] | None,
        setting(description="Above 0, words become less likely once they were used."),
    ] = None
    organization: Annotated[
        str | None, setting(description="The OpenAI organisation that is billed, if the key has several.")
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
    """A LangChain chat model; its client is the run's guarded one."""
    known = await _known(config, ctx)
    if known is not None:
        config = msgspec.structs.replace(
            config,
            api_key=known["api_key"],
            base_url=config.base_url or known.get("base_url") or None,
            organization=config.organization or known.get("organization") or None,
        )
    base_url = config.base_url or ctx.models.base_url
    return chat_model(
        ctx,
        model=config.model,
        base_url=base_url,
        api_key=openai_key(config.api_key, base_url, ctx),
        organization=as_key(config.organization, f"the setting 'organization' of {ctx.name!r}") or None,
        timeout=config.timeout,
        max_retries=config.max_retries,
        **tuning(config),
    )


async def _known(config: Config, ctx: RunContext) -> Mapping[str, str] | None:
    """What its credential says; `None` where there is none, and another key to go on with.

    Drawings that come from elsewhere name credentials of there.
    """
    if not config.credential_id:
        return None
    try:
        usual = ctx.models.base_url or OPENAI
        return await open_credential(config.credential_id, config.base_url, usual, ctx)
    except NodeError as exc:
        has_other = config.api_key or config.base_url or ctx.models.api_key
        if exc.code != "credential_not_found" or not has_other:
            raise
        return None


def hosts(config: Config) -> list[str]:
    return [host_of(config.base_url or OPENAI)]


NODE = NodeType.provider(
    make,
    "OpenAIChat",
    "OpenAI chat model",
    gives=ChatModel,
    falls_back=True,
    outputs=Outputs,
    aliases=("OpenAINode", "OpenAIChatNode"),
    imports=("langchain_openai.chat_models.base",),
    ignores=("streaming", "tavily_api_key", "verify_ssl", "system_prompt"),
    hosts=hosts,
    icon="sparkles",
    examples=({"model": "gpt-4o-mini", "temperature": 0.2},),
)
