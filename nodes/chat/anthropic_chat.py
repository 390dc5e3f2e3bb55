"""A chat model of Anthropic. Needs `flowserver[anthropic]`."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

import msgspec
from pydantic import SecretStr

from nodes.contract import ChatModel, NodeError, NodeType, Nothing, RunContext, port, setting
from nodes.credentials import CredentialId
from nodes.extras import needs_extra
from nodes.guarded import guarded2
from nodes.keys import trimmed
from nodes.openai_models import host_of, open_credential, typed_key

ANTHROPIC = "https://api.anthropic.com"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    model: Annotated[
        str, setting("model_name", description="The model's name, such as claude-sonnet-5-5.")
    ] = "claude-sonnet-5-5"
    credential_id: CredentialId = None
    api_key: Annotated[
        str | None,
        setting(
            "anthropic_api_key", secret=True, description="Better kept as a credential, which wins over it."
        ),
    ] = None
    base_url: Annotated[
        str | None, setting("anthropic_api_url", description="Of another server that speaks its API.")
    ] = None
    temperature: Annotated[
        Annotated[float, msgspec.Meta(ge=0, le=1)] | None,
        setting(description="How freely it chooses its words; left empty, as the provider does."),
    ] = None
    max_tokens: Annotated[int, setting(description="The most tokens of one answer."), msgspec.Meta(ge=1)] = (
        4096
    )
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
    key, base_url = typed_key(config.api_key, ctx), trimmed(config.base_url or "") or None
    if config.credential_id:
        known = await open_credential(config.credential_id, base_url, ANTHROPIC, ctx)
        key, base_url = known["api_key"], base_url or known.get("base_url")
    if not key:
        message = f"{ctx.name!r} has no API key: set its 'credential_id' or 'api_key'"
        raise NodeError(message, code="missing_key", is_final=True)
    given = {name: found for name in ("temperature", "top_p") if (found := getattr(config, name)) is not None}
    model = _kind()(
        model_name=config.model,
        anthropic_api_key=SecretStr(key),
        anthropic_api_url=base_url or ANTHROPIC,
        max_tokens_to_sample=config.max_tokens,
        timeout=config.timeout,
        max_retries=config.max_retries,
        stop=None,
        **given,
    )
    model.sends_through(guarded2(ctx.http))
    return model


@cache
def _kind() -> Any:
    """Its class, with a client that we make: its own would go around the guard."""
    import anthropic  # noqa: PLC0415  slow to import, and an extra
    from langchain_anthropic import ChatAnthropic  # noqa: PLC0415

    class GuardedAnthropic(ChatAnthropic):
        def sends_through(self, transport: Any) -> None:
            client = anthropic.DefaultAsyncHttpxClient(transport=transport, trust_env=False)
            made = anthropic.AsyncClient(**self._client_params, http_client=client)
            self.__dict__["_async_client"] = made  # what its cached property would make itself
            self.__dict__["_client"] = None

        @property
        def _llm_type(self) -> str:
            return "anthropic-chat"

    return GuardedAnthropic


def hosts(config: Config) -> list[str]:
    return [host_of(config.base_url or ANTHROPIC)]


NODE = NodeType.provider(
    make,
    "AnthropicChat",
    "Anthropic chat model",
    gives=ChatModel,
    outputs=Outputs,
    aliases=("ChatAnthropic", "AnthropicNode"),
    imports=("langchain_anthropic",),
    ignores=("streaming",),
    hosts=hosts,
    mistakes=needs_extra("langchain_anthropic", "anthropic"),
    icon="sparkles",
    examples=({"model": "claude-sonnet-5-5", "max_tokens": 2000},),
)
