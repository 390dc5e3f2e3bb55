"""A chat model of any server that speaks OpenAI's chat-completions API, such as vLLM or OpenRouter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import cache
from typing import Annotated, Any

import msgspec

from nodes.contract import ChatModel, NodeError, NodeType, Nothing, RunContext, port, setting
from nodes.credentials import CredentialId
from nodes.mistakes import Keys
from nodes.openai_models import OPENAI, chat_model, host_of, open_credential, tuning, typed_key
from nodes.reasoning import Unreasoned, unreasoned

_OURS = frozenset({"messages", "stream", "stream_options", "tools", "tool_choice", "model"})


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    model: Annotated[
        str,
        setting("model_name", description="The model's name; left empty, the credential's field 'model'."),
    ] = ""
    credential_id: CredentialId = None
    base_url: Annotated[
        str | None,
        setting(
            "api_base",
            "openai_api_base",
            "endpoint",
            description="Where the server is, to /v1; left empty, the credential's field 'base_url'.",
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
        setting(description="How freely it chooses its words; left empty, as the server does."),
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
    extra_body_params: Annotated[
        dict[str, Any] | str,
        setting("extra_body", description="A JSON object; its fields join each request's body."),
    ] = ""
    strip_reasoning: Annotated[
        bool, setting(description="Whether what stands in <think> tags is taken out of answers.")
    ] = False
    verify_ssl: Annotated[bool, setting(description="Cannot be switched off.")] = True
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
    _must_verify(config)
    model, base_url, key = config.model, config.base_url, typed_key(config.api_key, ctx)
    if config.credential_id:
        known = await open_credential(config.credential_id, base_url, base_url or OPENAI, ctx)
        key = known["api_key"]
        base_url = base_url or known.get("base_url")
        model = model or known.get("model") or known.get("model_name") or ""
    for name, value in (("base_url", base_url), ("model", model)):
        if not value:
            message = f"{ctx.name!r} has no {name!r}: set it here, or as a field of its credential"
            raise NodeError(message, code="bad_config", is_final=True)
    return chat_model(
        ctx,
        model=model,
        base_url=base_url,
        api_key=key or "none",  # local servers ask for none, but the client insists on one
        timeout=config.timeout,
        max_retries=config.max_retries,
        kind=_without_reasoning() if config.strip_reasoning else None,
        extra_body=_extra(config) or None,
        **tuning(config),
    )


@cache
def _without_reasoning() -> Any:
    from langchain_core.messages import AIMessageChunk  # noqa: PLC0415  loaded with the first model
    from langchain_core.outputs import ChatGenerationChunk, ChatResult  # noqa: PLC0415
    from langchain_openai.chat_models.base import BaseChatOpenAI  # noqa: PLC0415

    class WithoutReasoning(BaseChatOpenAI):
        """What it thinks aloud is not part of its answers."""

        async def _agenerate(self, *values: Any, **more: Any) -> ChatResult:
            result = await super()._agenerate(*values, **more)
            for each in result.generations:
                if isinstance(each.message.content, str):
                    each.message.content = each.text = unreasoned(each.message.content)
            return result

        async def _astream(self, *values: Any, **more: Any) -> AsyncIterator[ChatGenerationChunk]:
            taker = Unreasoned()
            async for chunk in super()._astream(*values, **more):
                if isinstance(chunk.message.content, str) and chunk.message.content:
                    chunk.message.content = chunk.text = taker.feed(chunk.message.content)
                yield chunk
            if rest := taker.end():
                yield ChatGenerationChunk(message=AIMessageChunk(content=rest), text=rest)

    return WithoutReasoning


def _extra(config: Config) -> dict[str, Any]:
    found = config.extra_body_params
    if isinstance(found, str):
        try:
            found = msgspec.json.decode(found, type=dict[str, Any]) if found.strip() else {}
        except (msgspec.DecodeError, RecursionError):
            raise NodeError("'extra_body_params' is not a JSON object", code="bad_config") from None
    if taken := sorted(_OURS & found.keys()):
        message = f"'extra_body_params' may not set {taken[0]!r}: that is told by the workflow"
        raise NodeError(message, code="bad_config")
    return found


def _must_verify(config: Config) -> None:
    if not config.verify_ssl:
        raise NodeError("certificates are always verified: switch 'verify_ssl' on", code="not_supported")


def mistakes(config: Config) -> Iterator[tuple[str, Keys]]:
    """What no model could be made of."""
    if "{{" not in str(config.extra_body_params):
        try:
            _extra(config)
        except NodeError as exc:
            yield exc.message, ("extra_body_params",)
    if not config.verify_ssl:
        yield "certificates are always verified: switch 'verify_ssl' on", ("verify_ssl",)
    if not config.base_url and not config.credential_id:
        yield "either 'base_url' or 'credential_id' must say where the model is", ()


def hosts(config: Config) -> list[str]:
    return [host_of(config.base_url)] if config.base_url else []


NODE = NodeType.provider(
    make,
    "OpenAICompatibleNode",
    "OpenAI-compatible chat model",
    gives=ChatModel,
    outputs=Outputs,
    aliases=("OpenAICompatible", "OpenAICompatibleChat"),
    imports=("langchain_openai.chat_models.base",),
    ignores=("streaming", "config_info"),
    hosts=hosts,
    mistakes=mistakes,
    icon="plug",
    examples=({"model": "llama-3.3-70b", "base_url": "https://models.example.com/v1"},),
)
