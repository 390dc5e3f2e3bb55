"""Chat models that speak OpenAI's chat-completions API, whichever node configures them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from nodes.broken_calls import is_object
from nodes.contract import NodeError, RunContext
from nodes.credentials import Credentials
from nodes.keys import as_key, trimmed
from nodes.texts import to_text

OPENAI = "https://api.openai.com/v1"
TUNING = ("temperature", "max_tokens", "top_p", "frequency_penalty", "presence_penalty")
"""Settings that go to the model as they are, where they are given."""


async def open_credential(id: str, base_url: str | None, usual: str, ctx: RunContext) -> Mapping[str, str]:
    """The credential of a model, which must have a key; `usual` is where that goes if nothing says it.

    Raises:
        NodeError: There is none, it is for another host, or has no key.
    """
    known = await ctx.door(Credentials).get(
        id, host=host_of(base_url) if base_url else None, usual=host_of(usual)
    )
    key = as_key(known.get("api_key"), f"the field 'api_key' of the credential of {ctx.name!r}")
    if not key:
        message = f"the credential of {ctx.name!r} has no field 'api_key'; it has: {', '.join(known)}"
        raise NodeError(message, code="missing_key", is_final=True)
    return {**known, "api_key": key}


def typed_key(key: str | None, ctx: RunContext) -> str:
    """Return the key in the setting 'api_key' of a node; empty if there is none.

    Raises:
        NodeError: It is none.
    """
    return as_key(key, f"the setting 'api_key' of {ctx.name!r}")


def openai_key(key: str | None, base_url: str | None, ctx: RunContext) -> str:
    """Return the drawing's key, else the operator's, which goes to the operator's own address only.

    Raises:
        NodeError: There is none, or it is none.
    """
    if typed := typed_key(key, ctx):
        return typed
    if ctx.models.api_key and base_url == ctx.models.base_url:
        return as_key(ctx.models.api_key, "FLOWSERVER_OPENAI_API_KEY")
    if base_url:
        return "none"  # local servers ask for none, but the client insists on one
    raise NodeError(
        f"{ctx.name!r} has no API key: set its 'credential_id' or 'api_key', "
        "or FLOWSERVER_OPENAI_API_KEY for the whole server",
        code="missing_key",
        is_final=True,
    )


def tuning(config: Any) -> dict[str, Any]:
    """Those of `TUNING` that `config` gives."""
    return {name: found for name in TUNING if (found := getattr(config, name, None)) is not None}


def chat_model(
    ctx: RunContext,
    *,
    model: str,
    base_url: str | None,
    api_key: str,
    timeout: float,
    max_retries: int,
    kind: Any = None,
    **more: Any,
) -> Any:
    """A LangChain chat model whose client is the run's guarded one; `kind` is a class of one's own."""
    from langchain_openai import ChatOpenAI  # noqa: PLC0415  half a second and 20 MB that many servers never need
    from langchain_openai.chat_models.base import BaseChatOpenAI  # noqa: PLC0415

    # OpenAI itself wants `max_completion_tokens`, which ChatOpenAI writes; most compatible servers know only
    # `max_tokens`, which its base class keeps.
    make = _careful(kind or (BaseChatOpenAI if base_url else ChatOpenAI))
    return make(
        model=model,
        base_url=trimmed(base_url) if base_url else None,
        api_key=SecretStr(api_key),
        timeout=timeout,
        max_retries=max_retries,
        stream_usage=True,
        http_async_client=ctx.http,
        http_client=_no_sync_client(),
        **more,
    )


_BROKEN = "\n(no object)"
"""Stands behind arguments that are no object: langchain_openai 1.7 keeps only what is no JSON at all."""


@cache
def _careful(kind: Any) -> Any:
    """A subclass whose answers may have tool calls with any arguments."""

    class Careful(kind):  # type: ignore[misc]
        # Subclasses for other providers, such as langchain_deepseek, override this method, too.
        def _create_chat_result(self, response: Any, generation_info: Any = None) -> Any:
            for choice in getattr(response, "choices", None) or ():
                for call in getattr(choice.message, "tool_calls", None) or ():
                    _mark(getattr(call, "function", None))
            result = super()._create_chat_result(response, generation_info)
            for generation in result.generations:
                for call in generation.message.invalid_tool_calls:
                    call["args"] = call["args"].removesuffix(_BROKEN)
            return result

    return Careful


def _mark(function: Any) -> None:
    given = getattr(function, "arguments", None)
    if isinstance(given, dict):  # as some compatible servers write them
        function.arguments = json.dumps(given)
    elif given is not None and not is_object(given):
        function.arguments = f"{to_text(given)}{_BROKEN}"


def host_of(url: str) -> str:
    """The host of a URL; nothing where it has none."""
    try:
        return urlsplit(trimmed(url)).hostname or ""
    except ValueError:
        return ""


@cache
def _no_sync_client() -> httpx.Client:
    """Keeps the library from making a blocking client that goes around the guarded one."""

    def refuse(request: httpx.Request) -> httpx.Response:
        raise RuntimeError("the chat model was called synchronously")

    return httpx.Client(transport=httpx.MockTransport(refuse))
