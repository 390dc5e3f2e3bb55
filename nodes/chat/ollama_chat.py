"""A chat model of an Ollama server. Needs `flowserver[ollama]`, and a server that operators allow."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from nodes.contract import ChatModel, NodeType, Nothing, RunContext, port, setting
from nodes.credentials import CredentialId
from nodes.extras import needs_extra
from nodes.guarded import Guarded
from nodes.keys import trimmed
from nodes.openai_models import host_of, open_credential

OLLAMA = "http://127.0.0.1:11434"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    model: Annotated[str, setting("model_name", description="The name of a model that the server has.")] = (
        "llama3.2"
    )
    base_url: Annotated[
        str, setting("host", "endpoint", description="Where the server is, without a path.")
    ] = OLLAMA
    credential_id: CredentialId = None
    temperature: Annotated[
        Annotated[float, msgspec.Meta(ge=0, le=2)] | None,
        setting(description="How freely it chooses its words; left empty, as the model does."),
    ] = None
    max_tokens: Annotated[
        Annotated[int, msgspec.Meta(ge=1)] | None,
        setting("num_predict", description="The most tokens of one answer."),
    ] = None
    context_size: Annotated[
        Annotated[int, msgspec.Meta(ge=1)] | None,
        setting(
            "num_ctx", description="Tokens that the model is given at most; left empty, as the server does."
        ),
    ] = None
    top_p: Annotated[
        Annotated[float, msgspec.Meta(ge=0, le=1)] | None,
        setting(description="It chooses among words that have this much of the probability together."),
    ] = None
    timeout: Annotated[
        float, setting("request_timeout", description="Seconds."), msgspec.Meta(ge=1, le=3600)
    ] = 120


class Outputs(msgspec.Struct, frozen=True):
    llm: Annotated[Any, port("output", "model", description="The model, for an agent and the like.")]


async def make(config: Config, bindings: Nothing, ctx: RunContext) -> Any:
    """A LangChain chat model; its client sends through the run's guarded one."""
    from langchain_ollama import ChatOllama  # noqa: PLC0415  an extra

    headers = {}
    if config.credential_id:
        known = await open_credential(config.credential_id, config.base_url, OLLAMA, ctx)
        headers = {"authorization": f"Bearer {known['api_key']}"}
    # Without a key of ours, the library would take one from its environment to whatever address is named.
    transport = Guarded(ctx.http, without=() if headers else ("authorization",))
    given: dict[str, Any] = {
        name: found
        for name, found in (
            ("temperature", config.temperature),
            ("num_predict", config.max_tokens),
            ("num_ctx", config.context_size),
            ("top_p", config.top_p),
        )
        if found is not None
    }
    return ChatOllama(
        model=config.model,
        base_url=trimmed(config.base_url),
        client_kwargs={
            "transport": transport,
            "timeout": config.timeout,
            "headers": headers,
            "trust_env": False,
        },
        **given,
    )


def hosts(config: Config) -> list[str]:
    return [host_of(config.base_url)]


NODE = NodeType.provider(
    make,
    "OllamaChat",
    "Ollama chat model",
    gives=ChatModel,
    outputs=Outputs,
    aliases=("ChatOllama", "OllamaNode"),
    imports=("langchain_ollama",),
    ignores=("streaming",),
    hosts=hosts,
    mistakes=needs_extra("langchain_ollama", "ollama"),
    icon="sparkles",
    examples=({"model": "llama3.2", "base_url": "http://ollama:11434"},),
)
